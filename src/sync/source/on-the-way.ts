/**
 * Batches that a stream has been given and the destination has not confirmed: of which lane, how large, which blocks. What is done
 * with a batch that is lost, refused or verified is batch-source.ts's.
 */

export interface Outstanding<Lane> {
  readonly lane: Lane;
  readonly bytes: number;
  readonly blocks: readonly number[];
}

export class OnTheWay<Lane> {
  readonly #batches = new Map<number, Outstanding<Lane>>();
  #bytes = 0;

  get size(): number {
    return this.#batches.size;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** Size of the largest batch: on a stream that has been idle it takes a round trip for each doubling. */
  get largest(): number {
    let largest = 0;
    for (const { bytes } of this.#batches.values()) largest = Math.max(largest, bytes);
    return largest;
  }

  add(id: number, batch: Outstanding<Lane>): void {
    this.#batches.set(id, batch);
    this.#bytes += batch.bytes;
  }

  /** It is not on the way any more. @returns undefined where it was not */
  end(id: number): Outstanding<Lane> | undefined {
    const batch = this.#batches.get(id);
    if (!batch) return undefined;
    this.#batches.delete(id);
    this.#bytes -= batch.bytes;
    return batch;
  }

  /** One of its blocks was refused: the rest goes on. @returns its lane; undefined where it has no such block */
  refuse(id: number, block: number): Lane | undefined {
    const batch = this.#batches.get(id);
    if (!batch?.blocks.includes(block)) return undefined;
    this.#batches.set(id, { ...batch, blocks: batch.blocks.filter((other) => other !== block) });
    return batch.lane;
  }
}
