/**
 * Which pages the destination has somewhere: an index from page hashes to addresses, in shared memory, filled and asked by the
 * worker threads. An address is a page's number in all sources one behind the other, in the order in which the source
 * named them to the destination. Of this host's own files XXH3-64 finds, of bases what the destination has told; the block's
 * BLAKE3, checked by the destination, decides.
 *
 * Memory: 16 bytes a page (4 MiB for each GiB of a source), at most MAX_PAGES of them (64 MiB); what lies behind is not found.
 */
import { PAGE_HASH_BYTES, quickHash } from '../../encoder/hash';
import { NOT_REFERRED } from '../../encoder/references';
import { PAGE_SIZE_BYTES } from '../../model/image';

export const MAX_PAGES = 4 * 1024 * 1024;

/** A page that finds no place within so many is left out. */
const PROBES = 16;

const ZERO_PAGE = quickHash(Buffer.alloc(PAGE_SIZE_BYTES));
const [ZERO_HIGH, ZERO_LOW] = [ZERO_PAGE.readInt32LE(0), ZERO_PAGE.readInt32LE(4)];

/** Zeros, as either kind of hash has them, are not looked for. */
function isOfZeros(high: number, low: number): boolean {
  return (high === ZERO_HIGH && low === ZERO_LOW) || (high === 0 && low === 0);
}

export interface SharedReferences {
  /** The hash of the page at each address, as two words. */
  readonly hashes: SharedArrayBuffer;
  /** Open addressing: an address plus one, or zero. */
  readonly slots: SharedArrayBuffer;
}

export function shareReferences(pages: number): SharedReferences {
  const capacity = Math.min(pages, MAX_PAGES);
  const slots = 2 ** Math.ceil(Math.log2(Math.max(2, 1.5 * capacity)));
  return { hashes: new SharedArrayBuffer(capacity * PAGE_HASH_BYTES), slots: new SharedArrayBuffer(slots * 4) };
}

export class ReferenceIndex {
  readonly #hashes: Int32Array;
  readonly #slots: Int32Array;
  readonly #mask: number;

  constructor({ hashes, slots }: SharedReferences) {
    this.#hashes = new Int32Array(hashes);
    this.#slots = new Int32Array(slots);
    this.#mask = this.#slots.length - 1;
  }

  /** The page at `address` has this hash now (8 bytes at `hashes[offset]`); what it was before is forgotten. */
  add(address: number, hashes: Buffer, offset: number): void {
    const [high, low] = [hashes.readInt32LE(offset), hashes.readInt32LE(offset + 4)];
    if (2 * address >= this.#hashes.length) return;
    this.#hashes[2 * address] = high;
    this.#hashes[2 * address + 1] = low;
    if (isOfZeros(high, low)) return;
    for (let probe = 0; probe < PROBES; probe += 1) {
      const slot = (low + probe) & this.#mask;
      const taken = Atomics.compareExchange(this.#slots, slot, 0, address + 1);
      if (taken === 0 || taken === address + 1 || this.#is(taken - 1, high, low)) return;
    }
  }

  /** Where a page with this hash is, or NOT_REFERRED. */
  find(hashes: Buffer, offset: number): number {
    const [high, low] = [hashes.readInt32LE(offset), hashes.readInt32LE(offset + 4)];
    if (isOfZeros(high, low)) return NOT_REFERRED;
    for (let probe = 0; probe < PROBES; probe += 1) {
      const taken = this.#slots[(low + probe) & this.#mask] ?? 0;
      if (taken === 0) return NOT_REFERRED;
      if (this.#is(taken - 1, high, low)) return taken - 1;
    }
    return NOT_REFERRED;
  }

  #is(address: number, high: number, low: number): boolean {
    return this.#hashes[2 * address] === high && this.#hashes[2 * address + 1] === low;
  }
}

/**
 * @property from address of the first page that is found in it
 * @property key that the destination has made their hashes with
 */
export interface BasePages {
  readonly shared: SharedReferences;
  readonly key: Uint8Array;
  readonly from: number;
}
