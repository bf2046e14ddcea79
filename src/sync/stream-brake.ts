/**
 * How far QEMU's memory stream may be ahead of what the destination has confirmed: far while a round has much left, so that
 * the link never waits for QEMU; hardly at its end, so that little is on the way when the guest is to be paused.
 */
import { PAGE_SIZE_BYTES } from '../model/image';
import { clamp, KIB, MIB } from '../model/units';
import type { GuestSender } from './guest-sender';
import type { LiveFeed } from './live-feed';

/** Read from QEMU before it is sent: it lies in the image's file, and the more of it, the more there is to choose from. */
const MOST_AHEAD_BYTES = 512 * MIB;
/** So little left at QEMU is the end of a round, which is to be its end at the destination too. */
const END_OF_ROUND_BYTES = 4 * MIB;
/** What the link takes in this time may be on the way while rounds end. */
const ON_THE_WAY_SECONDS = 0.1;
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
  /** At the end of a round. */
  #leastBytes = 2 * AHEAD_AT_THE_END_BYTES;
  #pauseIsClose = false;
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
    const goodput = sender?.session?.stats.goodputBytesPerSecond ?? 0;
    const onTheWay = this.#pauseIsClose ? 0 : (goodput * ON_THE_WAY_SECONDS) / Math.max(0.1, wireShare);
    this.#leastBytes = clamp(onTheWay, 2 * AHEAD_AT_THE_END_BYTES, END_OF_ROUND_BYTES);
    this.apply();
  }

  apply(): void {
    if (this.#off) return;
    const ahead = this.#feed.backlogBytes;
    const left = this.#remainingBytes - this.#receivedBytes;
    const limit = left > END_OF_ROUND_BYTES ? MOST_AHEAD_BYTES : Math.max(this.#leastBytes, left);
    if (!this.#held && ahead > limit) {
      this.#held = true;
      this.#reader.hold();
    } else if (this.#held && ahead <= GOES_ON_BELOW * limit) {
      this.#held = false;
      this.#reader.release();
    }
  }

  /** The destination has nearly all that QEMU has given: only then is the end of QEMU's round the end of one. */
  get isThrough(): boolean {
    return this.#feed.backlogBytes <= END_OF_ROUND_BYTES;
  }

  /** From now on next to nothing may be on the way. */
  pauseIsClose(): void {
    this.#pauseIsClose = true;
  }

  /** The guest is being stopped: everything that is left is read at once. */
  letGo(): void {
    this.#off = true;
    this.#held = false;
    this.#reader.release();
  }
}
