/**
 * Block versions as they were sent last, in shared memory: old bytes for run deltas, for blocks that change again and again.
 * Bounded: a block that gets a place takes it from the one that has had its place longest. A version is used only where its
 * hash is the one that the destination has confirmed.
 *
 * Two threads may meet at a place; what comes of it is a delta against other bytes, which the destination refuses by the
 * block's hash and is sent in full.
 */
import { HASH_BYTES } from '../../encoder/hash';
import { BLOCK_SIZE_BYTES } from '../../model/image';
import { MIB } from '../../model/units';

/** Most that one image's versions take. */
export const VERSION_CACHE_BYTES = 64 * MIB;

export interface SharedVersions {
  /** Blocks' bytes, a block's place each. */
  readonly bytes: SharedArrayBuffer;
  readonly hashes: SharedArrayBuffer;
  /** For each block its place plus one, or zero. */
  readonly placeOf: SharedArrayBuffer;
  /** For each place its block plus one, or zero; behind them the count of places given. */
  readonly blockAt: SharedArrayBuffer;
}

export function shareVersions(blocks: number): SharedVersions {
  const places = Math.max(1, Math.min(blocks, VERSION_CACHE_BYTES / BLOCK_SIZE_BYTES));
  return {
    bytes: new SharedArrayBuffer(places * BLOCK_SIZE_BYTES),
    hashes: new SharedArrayBuffer(places * HASH_BYTES),
    placeOf: new SharedArrayBuffer(4 * blocks),
    blockAt: new SharedArrayBuffer(4 * (places + 1)),
  };
}

export class VersionCache {
  readonly #bytes: Buffer;
  readonly #hashes: Buffer;
  readonly #placeOf: Int32Array;
  readonly #blockAt: Int32Array;

  constructor({ bytes, hashes, placeOf, blockAt }: SharedVersions) {
    this.#bytes = Buffer.from(bytes);
    this.#hashes = Buffer.from(hashes);
    this.#placeOf = new Int32Array(placeOf);
    this.#blockAt = new Int32Array(blockAt);
  }

  /** The bytes of a version of a block, a view on them; undefined where another or none is there. */
  find(block: number, hash: Buffer, length: number): Buffer | undefined {
    const place = (this.#placeOf[block] ?? 0) - 1;
    if (
      place < 0 ||
      this.#blockAt[place] !== block + 1 ||
      this.#hashes.compare(hash, 0, HASH_BYTES, place * HASH_BYTES, (place + 1) * HASH_BYTES) !== 0
    )
      return undefined;
    return this.#bytes.subarray(place * BLOCK_SIZE_BYTES, place * BLOCK_SIZE_BYTES + length);
  }

  put(block: number, hash: Buffer, bytes: Buffer): void {
    const place = this.#placeFor(block);
    this.#hashes.fill(0, place * HASH_BYTES, (place + 1) * HASH_BYTES);
    bytes.copy(this.#bytes, place * BLOCK_SIZE_BYTES);
    hash.copy(this.#hashes, place * HASH_BYTES, 0, HASH_BYTES);
  }

  #placeFor(block: number): number {
    const known = (this.#placeOf[block] ?? 0) - 1;
    if (known >= 0 && this.#blockAt[known] === block + 1) return known;
    const places = this.#blockAt.length - 1;
    const place = (Atomics.add(this.#blockAt, places, 1) >>> 0) % places;
    const before = Atomics.exchange(this.#blockAt, place, block + 1);
    if (before > 0) Atomics.compareExchange(this.#placeOf, before - 1, place + 1, 0);
    Atomics.store(this.#placeOf, block, place + 1);
    return place;
  }
}
