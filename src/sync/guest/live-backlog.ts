/**
 * What is left to be sent of a running guest: at QEMU, read and not packed, and on the way; how fast it grows, and whether it is little
 * enough to stop the guest for. What follows from that is the judge's and live-migration.ts's.
 */
import type { GuestPort, MemoryInfo } from '../../hypervisor/contract';
import { expectedDowntimeMs } from '../../model/convergence';
import { MEMORY_IMAGE_ID } from '../../model/guest';
import { PAGE_SIZE_BYTES } from '../../model/image';
import { clamp } from '../../model/units';
import type { DiskRounds, DisksLeft } from './disk-rounds';
import type { LiveDisks } from './live-disks';
import type { LiveSending } from './live-sending';
import type { MemoryStream } from './memory-stream';
import type { RoundMeasured } from './round-judge';
import { AHEAD_AT_THE_END_BYTES } from './stream-brake';

const SENT_IN_PASSING_SECONDS = 0.08;

export class LiveBacklog {
  readonly #guest: GuestPort;
  readonly #memory: MemoryStream;
  readonly #disks: LiveDisks;
  readonly #rounds: DiskRounds;
  readonly #sending: LiveSending;
  #info: MemoryInfo = { rounds: 0, remainingBytes: 0, dirtyBytesPerSecond: 0, throttle: 0 };

  constructor(
    guest: GuestPort,
    memory: MemoryStream,
    { disks, rounds }: { readonly disks: LiveDisks; readonly rounds: DiskRounds },
    sending: LiveSending,
  ) {
    this.#guest = guest;
    this.#memory = memory;
    this.#disks = disks;
    this.#rounds = rounds;
    this.#sending = sending;
  }

  /** What QEMU said at the last look. */
  get info(): MemoryInfo {
    return this.#info;
  }

  async look(): Promise<void> {
    this.#info = await this.#guest.info();
    // What a first pass has left out (pages that the guest says are free) comes no more: it is not left to the pause.
    if (this.#info.rounds > 1) this.#memory.feed.nameUnseen();
    this.#memory.brake.remains(this.#info.remainingBytes, this.#sending.sender, this.#wireShare);
  }

  /** As it will travel, after encoding; what the disks have to name yet is not in it. */
  get remainingBytes(): number {
    return Math.round(this.#memoryBytes * this.#wireShare + this.#rounds.wireBytesOf(this.#disks.backlog));
  }

  /** Of all that is left. */
  measured(disks: DisksLeft): RoundMeasured {
    const { dirtyBytesPerSecond, throttle } = this.#info;
    const { rateBytesPerSecond, rttMs } = this.#sending.ofLate;
    return {
      remainingBytes: Math.round(this.#memoryBytes * this.#wireShare + disks.wireBytes),
      remainingPages: Math.ceil(this.#memoryBytes / PAGE_SIZE_BYTES),
      dirtyBytesPerSecond: dirtyBytesPerSecond * this.#wireShare,
      ...{ rateBytesPerSecond, rttMs, throttle },
    };
  }

  /** How long the guest would stand still for what is left now. */
  async expectedDowntimeMs(): Promise<number> {
    return expectedDowntimeMs(this.measured(await this.#rounds.left()));
  }

  /** It goes over in the time that a switchover takes anyway, about. */
  get isWorthPausing(): boolean {
    const share = Math.max(0.1, this.#wireShare);
    const inPassing = (this.#sending.linkBytesPerSecond * SENT_IN_PASSING_SECONDS) / share;
    const left = this.#memoryBytes + this.#disks.backlogBytes;
    return left <= clamp(inPassing, AHEAD_AT_THE_END_BYTES, 2 * AHEAD_AT_THE_END_BYTES);
  }

  /** Of memory, at QEMU and on the way, before encoding. */
  get #memoryBytes(): number {
    return this.#info.remainingBytes + this.#memory.feed.backlogBytes;
  }

  get #wireShare(): number {
    return this.#sending.sender?.wireShare(MEMORY_IMAGE_ID) ?? 1;
  }
}
