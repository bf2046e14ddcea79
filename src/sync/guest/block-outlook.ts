/**
 * What will have to be sent of a block that has come from QEMU, guessed from two of its pages as they pass by: whether the
 * destination has them elsewhere. A guess decides nothing but the order in which blocks are looked at, so that the link
 * is never without work while there is some; feeds keep that order, encoders find out what is true.
 *
 * Memory: 16 bytes a block (256 KiB for each GiB of an image).
 */
import { PAGE_HASH_BYTES, quickHash } from '../../encoder/hash';
import { NOT_REFERRED } from '../../encoder/references';
import { PAGE_SIZE_BYTES, PAGES_PER_BLOCK } from '../../model/image';
import { ReferenceIndex, type SharedReferences } from '../codec/reference-index';
import type { Outlook } from '../feeds/live-feed';

/** One in each half of a block. */
const SAMPLE_EVERY = PAGES_PER_BLOCK / 2;
const SAMPLE_AT = 3;
const SAMPLES = PAGES_PER_BLOCK / SAMPLE_EVERY;
const NO_SAMPLE = Buffer.alloc(PAGE_HASH_BYTES);

const STRIDE = 4;
/** Times what is expected of random bytes, n + n²/256. */
const DENSE = 1.25;
const counts = new Uint16Array(256);

export class BlockOutlook {
  readonly #hashes: Buffer;
  readonly #references: () => SharedReferences | undefined;
  /** One byte a sample: 1 where it looks as if it did not compress. */
  readonly #dense: Uint8Array;
  readonly #tell: (block: number, outlook: Outlook) => void;
  #index: ReferenceIndex | undefined;

  /** @param references where pages are looked for, as soon as they are findable @param tell hears the guess for a block */
  constructor(
    blocks: number,
    references: () => SharedReferences | undefined,
    tell: (block: number, outlook: Outlook) => void,
  ) {
    this.#hashes = Buffer.alloc(blocks * SAMPLES * PAGE_HASH_BYTES);
    this.#dense = new Uint8Array(blocks * SAMPLES);
    this.#references = references;
    this.#tell = tell;
  }

  /** Pages of the image as they are now, one behind the other; those that are samples are looked at. */
  note(firstPage: number, bytes: Buffer): void {
    const endPage = firstPage + bytes.length / PAGE_SIZE_BYTES;
    for (
      let sample = Math.ceil((firstPage - SAMPLE_AT) / SAMPLE_EVERY);
      sample * SAMPLE_EVERY + SAMPLE_AT < endPage;
      sample += 1
    ) {
      const at = (sample * SAMPLE_EVERY + SAMPLE_AT - firstPage) * PAGE_SIZE_BYTES;
      const page = bytes.subarray(at, at + PAGE_SIZE_BYTES);
      quickHash(page).copy(this.#hashes, sample * PAGE_HASH_BYTES);
      this.#dense[sample] = looksDense(page) ? 1 : 0;
      if (this.#index) this.#guess(Math.floor(sample / SAMPLES));
    }
  }

  /** The pages of what may be referred to are findable from now on. */
  begin(): void {
    const shared = this.#references();
    if (!shared) return;
    this.#index = new ReferenceIndex(shared);
    for (let block = 0; block < this.#hashes.length / (SAMPLES * PAGE_HASH_BYTES); block += 1) this.#guess(block);
  }

  /** A page that is nowhere else tells of a block that has to be sent, whatever the other one is. */
  #guess(block: number): void {
    let [known, unknown, dense] = [0, 0, 0];
    for (let sample = block * SAMPLES; sample < (block + 1) * SAMPLES; sample += 1) {
      const at = sample * PAGE_HASH_BYTES;
      if (this.#hashes.compare(NO_SAMPLE, 0, PAGE_HASH_BYTES, at, at + PAGE_HASH_BYTES) === 0) continue;
      if (this.#index?.find(this.#hashes, at) === NOT_REFERRED) {
        unknown += 1;
        dense += this.#dense[sample] ?? 0;
      } else known += 1;
    }
    if (unknown > 0) this.#tell(block, dense === unknown && known === 0 ? 'raw' : 'much');
    else this.#tell(block, known > 0 ? 'little' : 'unknown');
  }
}

/** Whether bytes are spread as evenly as those of random data: the sum of the squares of how often each comes, of every fourth. */
function looksDense(bytes: Buffer): boolean {
  counts.fill(0);
  let squares = 0;
  for (let at = 0; at < bytes.length; at += STRIDE) {
    const count = counts[bytes[at] ?? 0] ?? 0;
    squares += 2 * count + 1;
    counts[bytes[at] ?? 0] = count + 1;
  }
  const looked = bytes.length / STRIDE;
  return squares < DENSE * (looked + (looked * looked) / 256);
}
