/**
 * Where in a backlog of changed blocks to go on. There are two places, so that stretches of which little crosses (the
 * destination has them elsewhere) are gone through while the link is busy with those that have to be sent. Which blocks
 * have changed is the feed's to know.
 *
 *   streams wait:      the place that gave more to send of late; where both give little, the second leaps ahead
 *   enough is packed:  the place that gave little
 */
import { BLOCK_SIZE_BYTES } from '../../model/image';

/** Of a block's bytes: below it, looking at the block takes longer than the link does with it. */
const LITTLE_BYTES = BLOCK_SIZE_BYTES / 32;
/** A backlog below this (16 MiB) is gone through in order. */
const SPREAD_BLOCKS = 256;
const LEAPS = 8;
const SMOOTHING = 0.5;

export interface FeedCursor {
  /** The block to go on from. */
  at: number;
  /** Bytes sent for each block of late; undefined where nothing is known. */
  sentBytes: number | undefined;
}

export class FeedCursors {
  readonly #first: FeedCursor = { at: 0, sentBytes: undefined };
  readonly #second: FeedCursor = { at: -1, sentBytes: undefined };
  readonly #dirty: Uint8Array;

  /** @param dirty one byte a block, 1 where it waits to be looked at */
  constructor(dirty: Uint8Array) {
    this.#dirty = dirty;
  }

  /** @param backlog blocks that wait @param enoughToSend the streams have as much as they can take */
  choose(backlog: number, enoughToSend: boolean): FeedCursor {
    if (backlog < SPREAD_BLOCKS) return this.#first;
    this.#placeSecond();
    const [one, other] = [this.#first.sentBytes ?? Infinity, this.#second.sentBytes ?? Infinity];
    return (enoughToSend ? other < one : other > one) ? this.#second : this.#first;
  }

  /** Whether a place is known of which little would have to be sent. */
  hasLittleToSend(backlog: number): boolean {
    return (
      backlog >= SPREAD_BLOCKS &&
      Math.min(this.#first.sentBytes ?? Infinity, this.#second.sentBytes ?? Infinity) < LITTLE_BYTES
    );
  }

  /** What came of blocks taken from there. @param streamsWait whether it was to keep the streams busy */
  learn(cursor: FeedCursor, blocks: number, sentBytes: number, streamsWait: boolean): void {
    const each = sentBytes / Math.max(1, blocks);
    cursor.sentBytes = cursor.sentBytes === undefined ? each : cursor.sentBytes + SMOOTHING * (each - cursor.sentBytes);
    const bothGiveLittle = cursor.sentBytes < LITTLE_BYTES && (this.#first.sentBytes ?? Infinity) < LITTLE_BYTES;
    if (cursor === this.#second && streamsWait && bothGiveLittle) this.#leap();
  }

  #placeSecond(): void {
    const { at } = this.#second;
    if (at > this.#first.at && this.#dirty.includes(1, at)) return;
    this.#moveSecond((this.#first.at + this.#last) / 2);
  }

  #leap(): void {
    const span = Math.max(1, this.#last - this.#first.at);
    this.#moveSecond(this.#first.at + ((this.#second.at - this.#first.at + span / LEAPS) % span));
  }

  #moveSecond(at: number): void {
    this.#second.at = Math.floor(at);
    this.#second.sentBytes = undefined;
  }

  /** The last block that waits. */
  get #last(): number {
    return this.#dirty.lastIndexOf(1);
  }
}
