/**
 * One bandwidth limit for all migrations of a host: weighted fair by priority, and work-conserving, so that what one
 * does not use the others get. Takers of one share wait in line; between shares the one whose next bytes would be
 * finished first in a fair fluid system goes next.
 *
 *   start tag = max(virtual time, finish tag of the share's last)     finish tag = start + bytes / weight
 *   serve the least start tag; virtual time = the start tag served    (start-time fair queueing: Goyal, Vin, Cheng 1996)
 */
import { PacedQueue, type Pacer, quantumOf, type Taker, TakerLine } from './paced-queue';

/** Virtual time, common to all shares. */
interface Clock {
  now: number;
}

export class SharedLimit {
  readonly #pacer: PacedQueue;
  readonly #shares = new Set<LimitShare>();
  readonly #clock: Clock = { now: 0 };

  /** @param rateBytesPerSecond 0 is no limit */
  constructor(rateBytesPerSecond: number) {
    this.#pacer = new PacedQueue(rateBytesPerSecond, { next: () => this.#next() });
  }

  get rateBytesPerSecond(): number {
    return this.#pacer.rateBytesPerSecond;
  }

  setRate(rateBytesPerSecond: number): void {
    this.#pacer.setRate(rateBytesPerSecond);
  }

  /** @param weight any positive number: of two shares that both have more to send than they may, each gets its part */
  share(weight: number): LimitShare {
    const share: LimitShare = new LimitShare(weight, this.#pacer, this.#clock, () => this.#shares.delete(share));
    this.#shares.add(share);
    return share;
  }

  #next(): Taker | undefined {
    let first: LimitShare | undefined;
    for (const share of this.#shares)
      if (share.waiting > 0 && (!first || share.startTag < first.startTag)) first = share;
    if (!first) return undefined;
    this.#clock.now = first.startTag;
    return first.shift();
  }
}

/** The part of one migration. */
export class LimitShare implements Pacer {
  readonly #weight: number;
  readonly #pacer: PacedQueue;
  readonly #clock: Clock;
  readonly #left: () => void;
  readonly #line = new TakerLine();
  #startTag = 0;
  #finishTag = 0;

  constructor(weight: number, pacer: PacedQueue, clock: Clock, left: () => void) {
    this.#weight = weight;
    this.#pacer = pacer;
    this.#clock = clock;
    this.#left = left;
  }

  get waiting(): number {
    return this.#line.waiting;
  }

  get startTag(): number {
    return this.#startTag;
  }

  get rateBytesPerSecond(): number {
    return this.#pacer.rateBytesPerSecond;
  }

  get quantumBytes(): number {
    return quantumOf(this.#pacer.rateBytesPerSecond);
  }

  get throttledMs(): number {
    return this.#line.throttledMs;
  }

  take(bytes: number): Promise<void> | undefined {
    if (this.#pacer.takeAtOnce(bytes)) {
      this.#clock.now = Math.max(this.#clock.now, this.#finishTag);
      this.#finishTag = this.#clock.now + bytes / this.#weight;
      return undefined;
    }
    if (this.#line.waiting === 0) this.#startTag = Math.max(this.#clock.now, this.#finishTag);
    const waiting = this.#line.join(bytes);
    this.#pacer.wait();
    return waiting;
  }

  shift(): Taker | undefined {
    const taken = this.#line.shift();
    if (!taken) return undefined;
    this.#finishTag = this.#startTag + taken.bytes / this.#weight;
    this.#startTag = this.#finishTag;
    return taken;
  }

  /** The migration has ended; whoever still waits goes on, and finds its connection closed. */
  leave(): void {
    for (let taker = this.#line.shift(); taker; taker = this.#line.shift()) taker.resolve();
    this.#left();
  }
}
