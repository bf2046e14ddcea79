/**
 * The rounds of a running guest's disks: before its memory, and then beside it, each begun when the one before has arrived. They are
 * judged by one rule (src/model/disk-convergence.ts): where the guest writes faster than the link carries it, its writes are slowed
 * down as far as that is allowed, or the move ends with the figures. A pause waits until what they leave is little.
 */
import { isHardlyLonger } from '../../model/convergence';
import {
  type DiskRoundDecision,
  decideDiskRound,
  fitsIntoAPause,
  SMALL_DISK_ROUND_BYTES,
} from '../../model/disk-convergence';
import { DwcpError } from '../../model/errors';
import type { MigrationOptions } from '../../model/options';
import { type Looking, until } from '../../system/wait';
import type { DiskBytes, LiveDisks } from './live-disks';
import type { LiveSending } from './live-sending';

const EVERY_MS = 1_000;
const MAX_ROUNDS_BEFORE_MEMORY = 30;

/** As it lies on the disks, and as it will travel. */
export interface DisksLeft {
  readonly bytes: number;
  readonly wireBytes: number;
}

export class DiskRounds {
  readonly #options: Pick<MigrationOptions, 'maxDowntimeMs' | 'autoConverge'>;
  readonly #disks: LiveDisks;
  readonly #sending: Pick<LiveSending, 'ofLate'>;
  #wireBytesBefore: number | undefined;
  #begunAt: number | undefined;
  #nextAt = 0;
  #stalled = 0;
  #maySlowDown: boolean;
  #limitBytesPerSecond: number | undefined;
  #decision: DiskRoundDecision | undefined;

  constructor(
    options: Pick<MigrationOptions, 'maxDowntimeMs' | 'autoConverge'>,
    disks: LiveDisks,
    sending: Pick<LiveSending, 'ofLate'>,
  ) {
    this.#options = options;
    this.#disks = disks;
    this.#sending = sending;
    this.#maySlowDown = options.autoConverge;
  }

  /** What the guest may write to all its disks; undefined where it is not slowed down. */
  get limitBytesPerSecond(): number | undefined {
    return this.#limitBytesPerSecond;
  }

  /** What is left of them: on its way, and written meanwhile. Asks the hypervisor. */
  async left(): Promise<DisksLeft> {
    const dirty = await this.#disks.dirty();
    return {
      bytes: this.#disks.backlogBytes + sumOf(dirty),
      wireBytes: this.wireBytesOf(this.#disks.backlog) + this.wireBytesOf(dirty),
    };
  }

  /** Little enough is left for a pause. */
  isLittle({ bytes, wireBytes }: DisksLeft): boolean {
    if (bytes <= SMALL_DISK_ROUND_BYTES) return true;
    const left = { ...this.#sending.ofLate, remainingBytes: wireBytes };
    return isHardlyLonger(left) || (this.#decision?.next === 'small enough' && fitsIntoAPause(left, this.#options));
  }

  /** As they will travel, after encoding. */
  wireBytesOf(disks: readonly DiskBytes[]): number {
    const { wireShare } = this.#sending.ofLate;
    return disks.reduce((sum, { imageId, bytes }) => sum + bytes * wireShare(imageId), 0);
  }

  /** All of the disks, and what the guest has written meanwhile, until rounds no longer shrink. @throws GUEST_NOT_CONVERGING */
  async beforeMemory(looking: Looking): Promise<void> {
    this.#begunAt ??= performance.now();
    for (let round = 0; round < MAX_ROUNDS_BEFORE_MEMORY; round += 1) {
      await until(() => this.#disks.areThere, looking);
      if ((await this.#round()).next === 'small enough') return;
    }
  }

  /** Begins the next one where its time has come. @throws GUEST_NOT_CONVERGING */
  async besideMemory(): Promise<void> {
    if (performance.now() < this.#nextAt || this.#disks.backlogBytes > 0) return;
    await this.#round();
  }

  /** @throws GUEST_NOT_CONVERGING */
  async #round(): Promise<DiskRoundDecision> {
    const begunAt = performance.now();
    const seconds = (begunAt - (this.#begunAt ?? begunAt)) / 1000;
    this.#begunAt = begunAt;
    const written = await this.#disks.nextRound();
    this.#nextAt = performance.now() + EVERY_MS;
    const { rateBytesPerSecond, rttMs } = this.#sending.ofLate;
    const wireBytes = this.wireBytesOf(written);
    const decision = decideDiskRound(
      {
        ...{ writtenBytes: sumOf(written), wireBytes, wireBytesBefore: this.#wireBytesBefore, seconds },
        ...{ rateBytesPerSecond, rttMs },
        ...{ stalledBefore: this.#stalled, limitBytesPerSecond: this.#limitBytesPerSecond },
      },
      { maxDowntimeMs: this.#options.maxDowntimeMs, maySlowDown: this.#maySlowDown },
    );
    this.#wireBytesBefore = wireBytes;
    this.#decision = decision;
    this.#stalled = decision.stalled;
    if (decision.limitBytesPerSecond !== undefined) await this.#slowDown(decision.limitBytesPerSecond, written);
    if (decision.next === 'cannot converge')
      throw new DwcpError('GUEST_NOT_CONVERGING', decision.reason, { phase: 'transfer', side: 'source' });
    return decision;
  }

  async #slowDown(bytesPerSecond: number, written: readonly DiskBytes[]): Promise<void> {
    this.#maySlowDown = await this.#disks.limitWrites(bytesPerSecond, written);
    if (this.#maySlowDown) this.#limitBytesPerSecond = bytesPerSecond;
  }
}

function sumOf(disks: readonly DiskBytes[]): number {
  return disks.reduce((sum, { bytes }) => sum + bytes, 0);
}
