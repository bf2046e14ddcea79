/**
 * The part of the demonstration that moves a guest while it runs: a real Linux that prints a tick five times a second, there
 * and back. What it shows of the guest is what the guest says of itself.
 */
import { copyFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Orchestrator } from '../../control/orchestrator';
import { DwcpError } from '../../model/errors';
import type { MigrationResult } from '../../model/migration';
import { formatBytes, formatDuration } from '../../model/units';
import { VmRegistry } from '../../store/vm-registry';
import { until } from '../../system/wait';
import type { Output } from '../output';
import { table } from '../output';
import type { Children } from './children';
import { linuxGuestCommand, makeLinuxGuest, serialLine, ticksOf } from './linux-guest';

export interface GuestSite {
  readonly hostId: string;
  readonly dataDir: string;
}

export interface GuestLeg {
  readonly name: string;
  readonly result: MigrationResult;
  readonly tickBefore: number;
  readonly tickAfter: number;
  readonly bad: readonly string[];
}

const VM = 'demo-guest';
const OPTIONS = {
  memoryMiB: 256,
  diskMiB: 192,
  filesMiB: 64,
  randomMiB: 16,
  dirtyKiBPerTick: 128,
  diskKiBPerSecond: 128,
};
const BOOT_MS = 120_000;
const TICKS_BETWEEN = 15;

export class GuestDemo {
  readonly #folder: string;
  readonly #children: Children;
  readonly #env: Readonly<Record<string, string>>;
  readonly #orchestrator: Orchestrator;
  readonly #output: Output;

  constructor(
    folder: string,
    children: Children,
    env: Readonly<Record<string, string>>,
    orchestrator: Orchestrator,
    output: Output,
  ) {
    this.#folder = folder;
    this.#children = children;
    this.#env = env;
    this.#orchestrator = orchestrator;
    this.#output = output;
  }

  /** Boots the guest on a, moves it to b while it runs, and back. The guest is ended afterwards. */
  async run(a: GuestSite, b: GuestSite): Promise<GuestLeg[]> {
    const guest = await makeLinuxGuest(join(this.#folder, 'guest'), OPTIONS, this.#children, (line) =>
      this.#output.say(line),
    );
    const disk = join(this.#folder, 'guest', 'vda.img');
    copyFileSync(guest.disk, disk);
    const serial = join(this.#folder, 'guest', 'serial.log');
    const command = linuxGuestCommand({ ...guest, disk }, OPTIONS, serial);
    await this.#dwcp(['vm', 'define', VM, '--data-dir', a.dataDir, '--', ...command]);
    await this.#dwcp(['vm', 'start', VM, '--data-dir', a.dataDir]);
    try {
      this.#output.say(`booting a Linux guest on ${a.hostId} (${OPTIONS.memoryMiB} MiB, software emulation)`);
      await serialLine(serial, new RegExp(`^tick ${TICKS_BETWEEN}$`), BOOT_MS);
      const there = await this.#move(a, b, serial);
      const serialOnB = this.#serialOn(b);
      await this.#ticks(serialOnB, there.tickAfter + TICKS_BETWEEN);
      const back = await this.#move(b, a, serialOnB);
      return [there, back];
    } finally {
      for (const site of [a, b])
        await this.#dwcp(['vm', 'stop', VM, '--now', '--data-dir', site.dataDir]).catch(() => undefined);
    }
  }

  async #move(source: GuestSite, destination: GuestSite, serial: string): Promise<GuestLeg> {
    this.#output.say(`moving ${VM} from ${source.hostId} to ${destination.hostId} while it runs`);
    const id = await this.#orchestrator.migrateVm(VM, source.hostId, destination.hostId, { bandwidthLimit: 0 });
    const result = await this.#orchestrator.waitForResult(id);
    const tickBefore = ticksOf(serial).last;
    const after = await this.#ticks(this.#serialOn(destination), tickBefore + 5);
    this.#output.emit(
      { event: 'guest', tickBefore, tickAfter: after.last, guest: result.guest },
      () =>
        `  tick ${tickBefore} on ${source.hostId}, tick ${after.last} on ${destination.hostId}; downtime ` +
        formatDuration(result.guest?.downtimeMs ?? NaN),
    );
    return {
      name: `${source.hostId} → ${destination.hostId}`,
      result,
      tickBefore,
      tickAfter: after.last,
      bad: after.bad,
    };
  }

  async #ticks(serial: string, atLeast: number): Promise<{ last: number; bad: readonly string[] }> {
    if (!(await until(() => ticksOf(serial).last >= atLeast, { everyMs: 100, withinMs: 30_000 })))
      throw new DwcpError('GUEST_LOST', `The guest does not tick on: ${ticksOf(serial).last}, expected ${atLeast}`);
    return ticksOf(serial);
  }

  #serialOn(site: GuestSite): string {
    return join(new VmRegistry(site.dataDir).runFolder(VM), 'serial.log');
  }

  async #dwcp(args: readonly string[]): Promise<void> {
    const child = this.#children.startDwcp(`vm-${args[1] ?? ''}`, args, this.#env);
    if ((await child.ended) !== 0)
      throw new DwcpError('INTERNAL', `dwcp ${args.slice(0, 3).join(' ')} failed; see ${child.logFile}`);
  }
}

export function guestSummary(legs: readonly GuestLeg[]): string {
  const rows = [['running guest', 'on the link', 'time', 'downtime', 'rounds', 'ticks', 'its checksums']];
  for (const { name, result, tickBefore, tickAfter, bad } of legs) {
    const { guest, linkBytes, totalSeconds } = result;
    rows.push([
      name,
      formatBytes(linkBytes),
      formatDuration(totalSeconds * 1000),
      formatDuration(guest?.downtimeMs ?? NaN),
      String(guest?.rounds ?? 0),
      `${tickBefore} → ${tickAfter}`,
      bad.length === 0 ? 'hold' : `BROKEN: ${bad[0] ?? ''}`,
    ]);
  }
  return table(rows);
}
