/**
 * What one attempt of a source has under way at its destination. When its session ends, what can be broken off is; a newer
 * attempt's work begins only when the older one's has ended, so that nothing old falls into its midst.
 */
import { DwcpError } from '../../model/errors';

export class SessionWork {
  readonly #abort = new AbortController();
  readonly #underWay = new Set<Promise<unknown>>();
  readonly #earlier: Promise<void>;

  constructor(earlier: SessionWork | undefined) {
    this.#earlier = earlier?.end() ?? Promise.resolve();
  }

  /** Aborted when the session has ended. */
  get signal(): AbortSignal {
    return this.#abort.signal;
  }

  /** @throws SUPERSEDED where the session has ended before it began */
  async run<T>(work: () => Promise<T>): Promise<T> {
    const running = this.#earlier.then(() => {
      this.signal.throwIfAborted();
      return work();
    });
    this.#underWay.add(running);
    try {
      return await running;
    } finally {
      this.#underWay.delete(running);
    }
  }

  /** What is under way now has ended when this resolves. */
  async idle(): Promise<void> {
    await this.#earlier;
    await Promise.allSettled([...this.#underWay]);
  }

  /** Breaks off what can be. @returns when everything has ended, also of those before it */
  async end(): Promise<void> {
    if (!this.signal.aborted)
      this.#abort.abort(
        new DwcpError('SUPERSEDED', 'The session that asked for it has ended', { side: 'destination' }),
      );
    await this.idle();
  }
}
