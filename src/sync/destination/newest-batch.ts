/**
 * In what order batches are written to an image: one version of a block at a time, and of an image that goes on changing none that
 * is older than what is there. How a batch is written is working-image.ts's.
 */

/** 64 KiB of numbers for 1 GiB of an image. */
const STRETCH_BLOCKS = 16_384;

export class NewestBatch {
  /** Batch that wrote a block last, stretch by stretch, none where nothing was written; only for images that go on changing. */
  readonly #last: Map<number, Uint32Array> | undefined;
  /** The batch that is writing a block now. */
  readonly #writing = new Map<number, Promise<unknown>>();

  /** @param live whether blocks come again and again */
  constructor(live: boolean) {
    this.#last = live ? new Map() : undefined;
  }

  /** A source begins anew: what it sends now is newer than anything before. */
  beginAnew(): void {
    this.#last?.clear();
  }

  /** Whether what is there of a block is of a later batch. */
  isNewer(block: number, sequence: number): boolean {
    return (this.#last?.get(Math.floor(block / STRETCH_BLOCKS))?.[block % STRETCH_BLOCKS] ?? 0) > sequence;
  }

  /** Writes a batch when its turn has come. @returns undefined where what is there is newer */
  async inOrder<T>(blocks: readonly number[], sequence: number, write: () => Promise<T>): Promise<T | undefined> {
    const isStale = (): boolean => blocks.some((block) => this.isNewer(block, sequence));
    for (let others = this.#writersOf(blocks); others.length > 0 && !isStale(); others = this.#writersOf(blocks))
      await Promise.allSettled(others);
    if (isStale()) return undefined;
    const writing = write();
    for (const block of blocks) {
      this.#wrote(block, sequence);
      this.#writing.set(block, writing);
    }
    try {
      return await writing;
    } finally {
      for (const block of blocks) if (this.#writing.get(block) === writing) this.#writing.delete(block);
    }
  }

  #wrote(block: number, sequence: number): void {
    if (!this.#last) return;
    const number = Math.floor(block / STRETCH_BLOCKS);
    const stretch = this.#last.get(number) ?? new Uint32Array(STRETCH_BLOCKS);
    this.#last.set(number, stretch);
    stretch[block % STRETCH_BLOCKS] = sequence;
  }

  #writersOf(blocks: readonly number[]): Promise<unknown>[] {
    return [...new Set(blocks.flatMap((block) => this.#writing.get(block) ?? []))];
  }
}
