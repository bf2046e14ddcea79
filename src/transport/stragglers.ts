/**
 * The endgame of a transfer: what is late while others idle goes out a second time, each batch once. How late is late follows from
 * how long batches have taken; what is sent again is the supplier's.
 */
import type { SendingStream } from './sending-stream';

const REMEMBERED = 64;
const FEWEST_KNOWN = 4;
const LEAST_LATE_MS = 1_000;

export class Stragglers {
  readonly #reissued = new Set<number>();
  readonly #completionsMs: number[] = [];

  /** Another transfer begins. */
  beginAnew(): void {
    this.#reissued.clear();
  }

  /** @param ms from when a batch was written out until it was confirmed */
  completed(ms: number): void {
    this.#completionsMs.push(ms);
    if (this.#completionsMs.length > REMEMBERED) this.#completionsMs.shift();
  }

  /** Batches to send once more, of a supplier that has nothing else. @param nowMs of the process's own clock */
  late(streams: readonly SendingStream[], nowMs: number): number[] {
    if (this.#completionsMs.length < FEWEST_KNOWN) return [];
    const sorted = [...this.#completionsMs].sort((a, b) => a - b);
    const lateMs = Math.max(LEAST_LATE_MS, 2 * (sorted[sorted.length >> 1] ?? 0));
    // While most have something on the way the link is full: a second copy would only take its turn behind the first.
    const active = streams.filter((stream) => stream.active);
    if (active.filter(({ outstanding }) => outstanding.size > 0).length > active.length / 2) return [];
    const late: number[] = [];
    for (const stream of streams) {
      for (const [id, { writtenAt }] of stream.outstanding) {
        if (nowMs - writtenAt < lateMs || this.#reissued.has(id)) continue;
        this.#reissued.add(id);
        late.push(id);
      }
    }
    return late;
  }
}
