/** One move of a guest of the table, followed to its end: how it has ended, after how long, and what had been sent of its images. */
import type { StageHost } from '../../bench/stage';
import type { MigrateOptions } from '../../src/control/orchestrator';
import { DwcpError, fromReport, toDwcpError } from '../../src/model/errors';
import type { MigrationResult } from '../../src/model/migration';
import { wait } from '../../src/system/wait';
import type { TwoHosts } from './two-hosts';

const LOOKS_MS = 250;
const PATIENCE_MS = 180_000;

export interface Ending {
  readonly result?: MigrationResult;
  readonly error?: DwcpError;
  /** It waited for an operator, and was cancelled. */
  readonly parked: boolean;
  readonly seconds: number;
  /** Most that was said to have been sent of its images. */
  readonly sentBytes: number;
}

export class Move {
  readonly ended: Promise<Ending>;
  #sentBytes = 0;
  readonly #hosts: TwoHosts;

  constructor(hosts: TwoHosts, vmId: string, way: readonly [StageHost, StageHost], options: MigrateOptions) {
    this.#hosts = hosts;
    this.ended = this.#follow(vmId, way, options);
  }

  get sentBytes(): number {
    return this.#sentBytes;
  }

  async #follow(vmId: string, [from, to]: readonly [StageHost, StageHost], options: MigrateOptions): Promise<Ending> {
    const { orchestrator } = this.#hosts.stage;
    const begunAt = performance.now();
    const since = (): number => (performance.now() - begunAt) / 1000;
    const id = await orchestrator.migrateVm(vmId, from.hostId, to.hostId, options);
    let outcome: Pick<Ending, 'result' | 'error' | 'seconds'> | undefined;
    const over = orchestrator.waitForResult(id).then(
      (result) => void (outcome = { result, seconds: since() }),
      (error: unknown) => void (outcome = { error: toDwcpError(error, 'INTERNAL'), seconds: since() }),
    );
    for (;;) {
      await Promise.race([over, wait(LOOKS_MS)]);
      const { progress, live } = await orchestrator.getMigrationStatus(id);
      for (const images of [live, progress?.images ?? []])
        this.#sentBytes = Math.max(
          this.#sentBytes,
          images.reduce((sum, { linkBytes }) => sum + linkBytes, 0),
        );
      if (outcome) return { ...outcome, parked: false, sentBytes: this.#sentBytes };
      const parked = progress?.parked?.error;
      if (!parked && since() < PATIENCE_MS / 1000) continue;
      const seconds = since();
      await orchestrator.cancelMigration(id);
      await over;
      const error = parked
        ? fromReport(parked)
        : new DwcpError('INTERNAL', `it had not ended after ${seconds.toFixed(0)} s`);
      return { error, parked: true, seconds, sentBytes: this.#sentBytes };
    }
  }
}
