/**
 * A VM that does not run, of a disk and a small memory image, on its way from host a to b. Its states are the lines of both
 * journals, and `transfer` in between; whatever happened, one host has it whole.
 */
import { execFileSync } from 'node:child_process';
import { MIB } from '../../src/model/units';
import { VmRegistry } from '../../src/store/vm-registry';
import type { Outcome } from './cells';
import { sha256 } from './data';
import { MovingVm, type Place } from './moving-vm';
import { until } from './waiting';

export const STOPPED_STATES = ['claimed', 'transfer', 'handedOver', 'mine', 'installed'] as const;
export type StoppedState = (typeof STOPPED_STATES)[number];

const DISK_BYTES = 24 * MIB;
const REACHED_MS = 60_000;
const SHARE = 0.3;

export class StoppedVm extends MovingVm {
  readonly #hashes: readonly string[];

  static async at(place: Place, vmId: string): Promise<StoppedVm> {
    const { hashes } = await place.lab.defineVm(vmId, DISK_BYTES);
    if (place.disks.source) execFileSync('sync', ['-f', place.disks.source.folder]);
    return new StoppedVm(place, vmId, hashes);
  }

  private constructor(place: Place, vmId: string, hashes: readonly string[]) {
    super(place, vmId);
    this.#hashes = hashes;
  }

  async reached(state: StoppedState): Promise<void> {
    if (state === 'transfer') return this.lab.untilShare(this.migrationId, SHARE);
    const [side, line] = (
      {
        claimed: ['source', 'claimed'],
        handedOver: ['source', 'handed_over'],
        mine: ['destination', 'mine'],
        installed: ['destination', 'installed'],
      } as const
    )[state];
    await until(REACHED_MS, state, () => this.statesOf(side).includes(line));
    this.note(`state ${state}`);
  }

  /** Where it is: there alone, and whole. */
  async outcome(): Promise<Outcome> {
    const here = await this.home();
    const { images } = await new VmRegistry(this.hostOf(here).dataDir).get(this.vmId);
    expect(images.map(({ path }) => sha256(path))).toEqual(this.#hashes);
    return here === 'source' ? 'stayed' : 'moved';
  }

  /** A VM that stands still runs nowhere; who has it is looked at in the end. */
  protected assertSafe(): void {
    return undefined;
  }
}
