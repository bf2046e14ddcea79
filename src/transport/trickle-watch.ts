/**
 * Finds streams that trickle: far below their fellows for long, though they have something to send. A connection that
 * has lost its window is opened anew rather than waited for (docs/transport.md, When a path fails); few at a time, since where all
 * are slow the path is.
 */
import type { SendingStream } from './sending-stream';

const SLOW_SHARE = 0.2;
const SLOW_FOR_MS = 10_000;
const RECYCLED_SHARE = 0.1;
const MIN_STREAMS = 4;

/** What it looks at of a stream. */
export type Watched = Pick<SendingStream, 'id' | 'active' | 'busy' | 'rateBytesPerSecond'>;

export class TrickleWatch {
  readonly #slowSince = new Map<number, number>();
  #recycledAt = -Infinity;

  /** @returns the streams to open anew, at most a tenth of them in ten seconds */
  observe<T extends Watched>(now: number, streams: readonly T[]): T[] {
    const busy = streams.filter((stream) => stream.active && stream.busy);
    const rates = busy.map((stream) => stream.rateBytesPerSecond).sort((a, b) => a - b);
    const limit = busy.length < MIN_STREAMS ? 0 : SLOW_SHARE * (rates[rates.length >> 1] ?? 0);
    const slow = busy.filter((stream) => stream.rateBytesPerSecond < limit);
    const ids = new Set(slow.map(({ id }) => id));
    for (const id of [...this.#slowSince.keys()]) if (!ids.has(id)) this.#slowSince.delete(id);
    for (const id of ids) if (!this.#slowSince.has(id)) this.#slowSince.set(id, now);
    if (now - this.#recycledAt < SLOW_FOR_MS) return [];
    const due = slow
      .filter(({ id }) => now - (this.#slowSince.get(id) ?? now) >= SLOW_FOR_MS)
      .slice(0, Math.max(1, Math.floor(RECYCLED_SHARE * streams.length)));
    if (due.length > 0) this.#recycledAt = now;
    return due;
  }
}
