/**
 * One at a time for each VM of a host: whoever checks, reads and writes who owns a VM does so inside. First come, first
 * served; not re-entrant.
 */
export class VmLocks {
  readonly #last = new Map<string, Promise<unknown>>();

  async run<T>(vmId: string, work: () => Promise<T>): Promise<T> {
    const before = this.#last.get(vmId) ?? Promise.resolve();
    const running = before.then(work, work);
    const ended = running.then(
      () => undefined,
      () => undefined,
    );
    this.#last.set(vmId, ended);
    try {
      return await running;
    } finally {
      if (this.#last.get(vmId) === ended) this.#last.delete(vmId);
    }
  }
}
