/**
 * How far QEMU's memory stream may be ahead of what the destination has confirmed: far while a round has much left, so that
 * the link never waits for QEMU; hardly at its end, so that little is on the way when the guest is to be paused.
 */
import { PAGE_SIZE_BYTES } from '../../model/image';
import { clamp, KIB, MIB } from '../../model/units';
import type { LiveFeed } from '../feeds/live-feed';
import type { GuestSender } from './guest-sender';

/** Read from QEMU before it is sent: it lies in the image's file, and the more of it, the more there is to choose from. */
const MOST_AHEAD_BYTES = 512 * MIB;
/** While something else has to be done before anything is sent: more than enough to begin with. */
const FIRST_AHEAD_BYTES = 48 * MIB;
/** So little left at QEMU is the end of a round, which is to be its end at the destination too. */
const END_OF_ROUND_BYTES = 4 * MIB;
/**
 * What the link takes in this time may be on the way while QEMU goes from one round to the next: the guest has changed
 * something since the last one, and that is better known while there is other work for the link.
 */
const ON_THE_WAY_SECONDS = 0.3;
const MOST_ON_THE_WAY_BYTES = 2 * END_OF_ROUND_BYTES;
/** Close to the pause, what is on the way is paid for in downtime. */
const ON_THE_WAY_AT_THE_END_SECONDS = 0.1;
export const AHEAD_AT_THE_END_BYTES = 512 * KIB;
/**
 * A QEMU that has nearly nothing left goes through rounds of a few pages as fast as it can, thousands a second, and takes a
 * processor for it. After some of them it is left alone for a moment: it soon waits for us to read.
 */
const SMALL_ROUNDS = 4;
const SMALL_ROUNDS_PAGES = 32;
const REST_MS = 15;
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
  #mostBytes = MOST_AHEAD_BYTES;
  #pauseIsClose = false;
  #remainingBytes = 0;
  /** Of the stream, since QEMU was asked last what remains. */
  #receivedBytes = 0;
  #held = false;
  #off = false;
  #rounds = 0;
  #pagesInRounds = 0;
  #resting: NodeJS.Timeout | undefined;

  constructor(feed: LiveFeed, reader: Reader) {
    this.#feed = feed;
    this.#reader = reader;
  }

  /** Reads no more than a beginning until then. */
  async beginSlowly(until: Promise<unknown>): Promise<void> {
    this.#mostBytes = FIRST_AHEAD_BYTES;
    await until.catch(() => undefined);
    this.#mostBytes = MOST_AHEAD_BYTES;
    this.apply();
  }

  received(pages: number): void {
    this.#receivedBytes += pages * PAGE_SIZE_BYTES;
    this.#pagesInRounds += pages;
  }

  /** A part of QEMU's stream is through. */
  sectionEnded(): void {
    this.#rounds += 1;
    if (this.#rounds < SMALL_ROUNDS) return;
    const small = this.#pagesInRounds < SMALL_ROUNDS_PAGES;
    [this.#rounds, this.#pagesInRounds] = [0, 0];
    if (!small || this.#off || this.#held || this.#resting) return;
    this.#reader.hold();
    this.#resting = setTimeout(() => {
      this.#resting = undefined;
      if (!this.#held) this.#reader.release();
    }, REST_MS);
  }

  /** QEMU has said how much it has left to send. @param sender what the destination's confirmations are measured by, once there is one */
  remains(bytes: number, sender: GuestSender | undefined, wireShare: number): void {
    this.#remainingBytes = bytes;
    this.#receivedBytes = 0;
    const goodput = sender?.session?.stats.goodputBytesPerSecond ?? 0;
    const onTheWay = this.#pauseIsClose
      ? goodput * ON_THE_WAY_AT_THE_END_SECONDS
      : (goodput * ON_THE_WAY_SECONDS) / Math.max(0.1, wireShare);
    this.#leastBytes = clamp(
      onTheWay,
      2 * AHEAD_AT_THE_END_BYTES,
      this.#pauseIsClose ? 4 * AHEAD_AT_THE_END_BYTES : MOST_ON_THE_WAY_BYTES,
    );
    this.apply();
  }

  apply(): void {
    if (this.#off) return;
    const ahead = this.#feed.backlogBytes;
    const left = this.#remainingBytes - this.#receivedBytes;
    const limit = left > END_OF_ROUND_BYTES ? this.#mostBytes : Math.max(this.#leastBytes, left);
    if (!this.#held && ahead > limit) {
      this.#held = true;
      this.#reader.hold();
    } else if (this.#held && ahead <= GOES_ON_BELOW * limit) {
      this.#held = false;
      if (!this.#resting) this.#reader.release();
    }
    this.#feed.setComing(!this.#held && left > END_OF_ROUND_BYTES);
  }

  /** The destination has nearly all that QEMU has given: only then is the end of QEMU's round the end of one. */
  get isThrough(): boolean {
    return this.#feed.backlogBytes <= END_OF_ROUND_BYTES;
  }

  /** So little is left that the end of the round may come any moment. */
  get isNearlyThrough(): boolean {
    return this.#feed.backlogBytes <= 4 * END_OF_ROUND_BYTES;
  }

  /** From now on next to nothing may be on the way. */
  pauseIsClose(): void {
    this.#pauseIsClose = true;
  }

  /** The guest is being stopped: everything that is left is read at once. */
  letGo(): void {
    this.#off = true;
    this.#held = false;
    this.#feed.setComing(false);
    this.#reader.release();
  }
}
