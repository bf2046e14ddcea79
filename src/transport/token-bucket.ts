/**
 * The bandwidth limit of one migration: all its streams take from it in line, and, where the host has a limit too, from
 * the migration's share of that. Placed at the socket write, behind every buffer (docs/transport.md, Limits).
 */
import { PacedQueue, type Pacer, quantumOf, TakerLine } from './paced-queue';

export class TokenBucket implements Pacer {
  readonly #line = new TakerLine();
  readonly #pacer: PacedQueue;
  readonly #host: Pacer | undefined;

  /** @param rateBytesPerSecond 0 is no limit @param host the migration's share of its host's limit */
  constructor(rateBytesPerSecond: number, host?: Pacer) {
    this.#pacer = new PacedQueue(rateBytesPerSecond, { next: () => this.#line.shift() });
    this.#host = host;
  }

  /** The nearer of the two limits, 0 where there is none. Of the host's, others may have a part. */
  get rateBytesPerSecond(): number {
    const rates = [this.#pacer.rateBytesPerSecond, this.#host?.rateBytesPerSecond ?? 0].filter((rate) => rate > 0);
    return rates.length === 0 ? 0 : Math.min(...rates);
  }

  get throttledMs(): number {
    return this.#line.throttledMs + (this.#host?.throttledMs ?? 0);
  }

  get quantumBytes(): number {
    return quantumOf(this.rateBytesPerSecond);
  }

  setRate(rateBytesPerSecond: number): void {
    this.#pacer.setRate(rateBytesPerSecond);
  }

  take(bytes: number): Promise<void> | undefined {
    if (this.#pacer.takeAtOnce(bytes)) return this.#host?.take(bytes);
    const own = this.#line.join(bytes);
    this.#pacer.wait();
    return this.#host ? own.then(() => this.#host?.take(bytes)) : own;
  }
}
