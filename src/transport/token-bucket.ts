/**
 * One bucket paces all streams of a session to the bandwidth limit. Takers wait in line; a quantum may be taken on
 * credit, so no write has to be cut finer than it is; the burst is a few milliseconds of the rate. Placed at the
 * socket write, behind every buffer (transport.md section 4, pacing).
 */
import { KIB, clamp } from '../model/units';

const WAKE_MS = 2;
const MIN_BURST_BYTES = 32 * KIB;

interface Taker {
  readonly bytes: number;
  readonly resolve: () => void;
}

export class TokenBucket {
  #rate: number;
  #tokens = 0;
  #refilledAt = performance.now();
  #waiting: Taker[] = [];
  #timer: NodeJS.Timeout | undefined;
  #throttledMs = 0;
  #waitingSince = 0;

  /** @param rateBytesPerSecond 0 is no limit */
  constructor(rateBytesPerSecond: number) {
    this.#rate = rateBytesPerSecond;
  }

  get rateBytesPerSecond(): number {
    return this.#rate;
  }

  /** Milliseconds in which somebody waited for tokens, since the beginning. */
  get throttledMs(): number {
    return this.#throttledMs + (this.#waiting.length > 0 ? performance.now() - this.#waitingSince : 0);
  }

  /** How much a writer should take at a time: about 4 ms of the rate. */
  get quantumBytes(): number {
    return this.#rate === 0 ? Number.MAX_SAFE_INTEGER : clamp(Math.round(this.#rate * 0.004), 8 * KIB, 256 * KIB);
  }

  setRate(rateBytesPerSecond: number): void {
    this.#refill();
    this.#rate = rateBytesPerSecond;
    this.#serve();
  }

  /** Resolves when `bytes` may be sent. At once where there is no limit or credit is left. */
  take(bytes: number): Promise<void> | undefined {
    if (this.#rate === 0) return undefined;
    this.#refill();
    if (this.#waiting.length === 0 && this.#tokens > 0) {
      this.#tokens -= bytes;
      return undefined;
    }
    if (this.#waiting.length === 0) this.#waitingSince = performance.now();
    return new Promise((resolve) => {
      this.#waiting.push({ bytes, resolve });
      this.#arm();
    });
  }

  #refill(): void {
    const now = performance.now();
    const burst = Math.max(MIN_BURST_BYTES, this.#rate * 0.005);
    this.#tokens = Math.min(burst, this.#tokens + ((now - this.#refilledAt) / 1000) * this.#rate);
    this.#refilledAt = now;
  }

  #serve(): void {
    this.#refill();
    while (this.#waiting.length > 0 && (this.#rate === 0 || this.#tokens > 0)) {
      const taker = this.#waiting.shift();
      if (!taker) break;
      this.#tokens -= taker.bytes;
      taker.resolve();
    }
    if (this.#waiting.length > 0) this.#arm();
    else if (this.#waitingSince > 0) {
      this.#throttledMs += performance.now() - this.#waitingSince;
      this.#waitingSince = 0;
    }
  }

  #arm(): void {
    if (this.#timer) return;
    const shortMs = (-this.#tokens / Math.max(1, this.#rate)) * 1000;
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      this.#serve();
    }, clamp(shortMs, WAKE_MS, 1000));
  }
}
