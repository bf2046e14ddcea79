/**
 * How many processors of this host the agent may count on: those that are idle and those that it has itself. Guests and
 * other programs keep theirs. Looked at no more than once a second.
 */
import { cpus } from 'node:os';

const LOOK_EVERY_MS = 1_000;
/** A host that is busy for the moment still lets a thread run. */
const LEAST = 0.25;

interface Reading {
  readonly atMs: number;
  /** Of all processors together. */
  readonly idleMs: number;
  readonly ownMs: number;
}

function read(): Reading {
  const { user, system } = process.cpuUsage();
  return {
    atMs: performance.now(),
    idleMs: cpus().reduce((sum, { times }) => sum + times.idle, 0),
    ownMs: (user + system) / 1000,
  };
}

export class IdleProcessors {
  #last = read();
  #available = Infinity;

  /** At most `threads`, which also holds until a second has been looked at. */
  available(threads: number): number {
    if (performance.now() - this.#last.atMs >= LOOK_EVERY_MS) {
      const now = read();
      this.#available = (now.idleMs - this.#last.idleMs + now.ownMs - this.#last.ownMs) / (now.atMs - this.#last.atMs);
      this.#last = now;
    }
    return Math.min(threads, Math.max(LEAST, this.#available));
  }
}
