/**
 * How far QEMU's memory stream may be ahead of what the destination has confirmed: QEMU is read no faster, so that what is on
 * the way stays bounded, and is little when the guest is to be paused.
 */
import { PAGE_SIZE_BYTES } from '../model/image';
import { KIB, MIB } from '../model/units';
import type { GuestSender } from './guest-sender';
import type { LiveFeed } from './live-feed';

/** Two bandwidth-delay products, and batches of the size that packs well for every stream, within these. */
const LEAST_AHEAD_BYTES = 64 * MIB;
const MOST_AHEAD_BYTES = 128 * MIB;
/** Close to the pause, what is on the way is paid for in downtime. */
export const AHEAD_AT_THE_END_BYTES = 512 * KIB;
/** Share of what may be on the way at which QEMU is read again. */
const GOES_ON_BELOW = 0.75;

export interface Reader {
  hold(): void;
  release(): void;
}

export class StreamBrake {
  readonly #feed: LiveFeed;
  readonly #reader: Reader;
  #limitBytes = LEAST_AHEAD_BYTES;
  #remainingBytes = 0;
  /** Of the stream, since QEMU was asked last what remains. */
  #receivedBytes = 0;
  #held = false;
  #off = false;

  constructor(feed: LiveFeed, reader: Reader) {
    this.#feed = feed;
    this.#reader = reader;
  }

  received(pages: number): void {
    this.#receivedBytes += pages * PAGE_SIZE_BYTES;
  }

  /** QEMU has said how much it has left to send. @param sender what the destination's confirmations are measured by, once there is one */
  remains(bytes: number, sender: GuestSender | undefined, wireShare: number): void {
    this.#remainingBytes = bytes;
    this.#receivedBytes = 0;
    const stats = sender?.session?.stats;
    if (sender && stats) {
      const twoBdp = (2 * stats.goodputBytesPerSecond * Math.max(50, stats.rttMs)) / 1000 / Math.max(0.1, wireShare);
      const forStreams = 2 * stats.activeStreams * sender.batchBytes;
      this.#limitBytes = Math.min(MOST_AHEAD_BYTES, Math.max(LEAST_AHEAD_BYTES, twoBdp + forStreams));
    }
    this.apply();
  }

  apply(): void {
    if (this.#off) return;
    const ahead = this.#feed.backlogBytes;
    // The less QEMU has left, the less may be on the way: the end of a round is to be the end of it at the destination too.
    const limit = Math.min(this.#limitBytes, Math.max(2 * AHEAD_AT_THE_END_BYTES, this.#remainingBytes - this.#receivedBytes));
    if (!this.#held && ahead > limit) {
      this.#held = true;
      this.#reader.hold();
    } else if (this.#held && ahead <= GOES_ON_BELOW * limit) {
      this.#held = false;
      this.#reader.release();
    }
  }

  /** The guest is being stopped: everything that is left is read at once. */
  letGo(): void {
    this.#off = true;
    this.#held = false;
    this.#reader.release();
  }
}
