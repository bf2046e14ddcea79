/**
 * The clock of a bandwidth limit: tokens that accrue with time, and a timer that hands them to whoever is next. A quantum
 * may be taken on credit, so no write has to be cut finer than it is; the burst is 20 ms of the rate. Who
 * is next is the owner's rule (docs/transport.md, Limits).
 */
import { clamp, KIB } from '../model/units';

const WAKE_MS = 2;
const MIN_BURST_BYTES = 32 * KIB;
/** What a busy main thread may be late without the rate falling behind. */
const BURST_SECONDS = 0.02;

export interface Taker {
  readonly bytes: number;
  readonly resolve: () => void;
}

/** What paces writes. */
export interface Pacer {
  /** 0 is no limit. */
  readonly rateBytesPerSecond: number;
  /** How much a writer should take at a time. */
  readonly quantumBytes: number;
  /** Milliseconds in which somebody waited, since the beginning. */
  readonly throttledMs: number;
  /** Resolves when `bytes` may be sent; undefined where that is at once. */
  take(bytes: number): Promise<void> | undefined;
}

/** Takers that wait, first come first served, and for how long there were any. */
export class TakerLine {
  readonly #waiting: Taker[] = [];
  #throttledMs = 0;
  #waitingSince = 0;

  get waiting(): number {
    return this.#waiting.length;
  }

  get throttledMs(): number {
    return this.#throttledMs + (this.#waiting.length > 0 ? performance.now() - this.#waitingSince : 0);
  }

  /** Resolves when it is shifted. */
  join(bytes: number): Promise<void> {
    if (this.#waiting.length === 0) this.#waitingSince = performance.now();
    return new Promise((resolve) => this.#waiting.push({ bytes, resolve }));
  }

  shift(): Taker | undefined {
    const taker = this.#waiting.shift();
    if (taker && this.#waiting.length === 0) this.#throttledMs += performance.now() - this.#waitingSince;
    return taker;
  }
}

/** About 4 ms of a rate. */
export function quantumOf(rateBytesPerSecond: number): number {
  return rateBytesPerSecond === 0
    ? Number.MAX_SAFE_INTEGER
    : clamp(Math.round(rateBytesPerSecond * 0.004), 8 * KIB, 256 * KIB);
}

export class PacedQueue {
  readonly #line: { next(): Taker | undefined };
  #rate: number;
  #tokens = 0;
  #refilledAt = performance.now();
  #waiting = 0;
  #timer: NodeJS.Timeout | undefined;

  /** @param line gives the taker whose turn it is, and takes it out of the line */
  constructor(rateBytesPerSecond: number, line: { next(): Taker | undefined }) {
    this.#rate = rateBytesPerSecond;
    this.#line = line;
  }

  get rateBytesPerSecond(): number {
    return this.#rate;
  }

  setRate(rateBytesPerSecond: number): void {
    this.#refill();
    this.#rate = rateBytesPerSecond;
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#serve();
  }

  /** @returns true where nobody waits and credit is left, or there is no limit */
  takeAtOnce(bytes: number): boolean {
    if (this.#rate === 0) return true;
    this.#refill();
    if (this.#waiting > 0 || this.#tokens <= 0) return false;
    this.#tokens -= bytes;
    return true;
  }

  /** One more waits in line. */
  wait(): void {
    this.#waiting += 1;
    this.#arm();
  }

  #refill(): void {
    const now = performance.now();
    const burst = Math.max(MIN_BURST_BYTES, this.#rate * BURST_SECONDS);
    this.#tokens = Math.min(burst, this.#tokens + ((now - this.#refilledAt) / 1000) * this.#rate);
    this.#refilledAt = now;
  }

  #serve(): void {
    this.#refill();
    while (this.#waiting > 0 && (this.#rate === 0 || this.#tokens > 0)) {
      const taker = this.#line.next();
      if (!taker) {
        this.#waiting = 0;
        break;
      }
      this.#waiting -= 1;
      this.#tokens -= taker.bytes;
      taker.resolve();
    }
    if (this.#waiting > 0) this.#arm();
  }

  #arm(): void {
    if (this.#timer) return;
    const shortMs = (-this.#tokens / Math.max(1, this.#rate)) * 1000;
    this.#timer = setTimeout(
      () => {
        this.#timer = undefined;
        this.#serve();
      },
      clamp(shortMs, WAKE_MS, 1000),
    );
  }
}
