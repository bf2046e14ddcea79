/**
 * How often a guest has stood still for its migration, and how long: its result counts every pause, also those that were broken off.
 * How long one may last is guest-pause.ts's.
 */
import type { ImageProgress } from '../../model/migration';

/** What is counted of pauses over all attempts at a move. */
interface Counted {
  readonly pauses: number;
  readonly pausedMs: number;
}

/** The pauses of one attempt: one that is broken off counts as one that is not. */
export class GuestPauses {
  #count = 0;
  #overMs = 0;
  #sinceMs: number | undefined;

  /** @param atMs by this host's clock */
  begin(atMs: number): void {
    this.#count += 1;
    this.#sinceMs = atMs;
  }

  /** The guest runs on here. */
  end(): void {
    this.#overMs += this.#standsMs;
    this.#sinceMs = undefined;
  }

  /** With those of the attempts before; the one that lasts is of what it has lasted. */
  soFar(before: readonly ImageProgress[]): Counted {
    const { pauses, pausedMs } = this.beforeThis(before);
    return { pauses, pausedMs: pausedMs + this.#standsMs };
  }

  /** As many, and how long all but the one that lasts were. */
  beforeThis(before: readonly ImageProgress[]): Counted {
    const earlier = before.find(({ guest }) => guest)?.guest;
    return {
      pauses: this.#count + (earlier?.pauses ?? 0),
      pausedMs: Math.round(this.#overMs + (earlier?.pausedMs ?? 0)),
    };
  }

  get #standsMs(): number {
    return this.#sinceMs === undefined ? 0 : Math.max(0, Date.now() - this.#sinceMs);
  }
}
