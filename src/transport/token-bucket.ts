/**
 * The bandwidth limit of one migration: all its streams take from it in line, and, where the host has a limit too, from
 * the migration's share of that. Placed at the socket write, behind every buffer (transport.md section 4, pacing).
 */
import { PacedQueue, type Pacer, quantumOf, type Taker } from './paced-queue';

export class TokenBucket implements Pacer {
  readonly #waiting: Taker[] = [];
  readonly #pacer: PacedQueue;
  readonly #host: Pacer | undefined;
  #throttledMs = 0;
  #waitingSince = 0;

  /** @param rateBytesPerSecond 0 is no limit @param host the migration's share of its host's limit */
  constructor(rateBytesPerSecond: number, host?: Pacer) {
    this.#pacer = new PacedQueue(rateBytesPerSecond, { next: () => this.#next() });
    this.#host = host;
  }

  /** The nearer of the two limits, 0 where there is none. Of the host's, others may have a part. */
  get rateBytesPerSecond(): number {
    const rates = [this.#pacer.rateBytesPerSecond, this.#host?.rateBytesPerSecond ?? 0].filter((rate) => rate > 0);
    return rates.length === 0 ? 0 : Math.min(...rates);
  }

  get throttledMs(): number {
    const own = this.#throttledMs + (this.#waiting.length > 0 ? performance.now() - this.#waitingSince : 0);
    return own + (this.#host?.throttledMs ?? 0);
  }

  get quantumBytes(): number {
    return quantumOf(this.rateBytesPerSecond);
  }

  setRate(rateBytesPerSecond: number): void {
    this.#pacer.setRate(rateBytesPerSecond);
  }

  take(bytes: number): Promise<void> | undefined {
    if (this.#pacer.takeAtOnce(bytes)) return this.#host?.take(bytes);
    if (this.#waiting.length === 0) this.#waitingSince = performance.now();
    const own = new Promise<void>((resolve) => {
      this.#waiting.push({ bytes, resolve });
      this.#pacer.wait();
    });
    return this.#host ? own.then(() => this.#host?.take(bytes)) : own;
  }

  #next(): Taker | undefined {
    const taker = this.#waiting.shift();
    if (taker && this.#waiting.length === 0) this.#throttledMs += performance.now() - this.#waitingSince;
    return taker;
  }
}
