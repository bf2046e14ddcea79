/**
 * Hashes as they leave a host: with a key that is drawn for one migration, so that nobody can make them ahead, or hold them
 * against those of another migration or of a host's own files. Whoever has the key can still try guesses: who is told any, the
 * walls and proofs of src/sync decide (docs/security.md, hashes that leave a host).
 *
 *   keyedHash()         BLAKE3 with a key, cut to 16 bytes
 *   keyedPageHashes()   of a page: its BLAKE3, cut to the 16 bytes that a host may keep, enciphered with AES-256; 8 bytes of that
 */
import { createCipheriv } from 'node:crypto';
import { Blake3Hasher, blake3 } from '@napi-rs/blake-hash';
import { PAGES_PER_BLOCK } from '../model/image';
import { HASH_BYTES, PAGE_HASH_BYTES } from './hash';
import { pageCount, pageOf } from './page-patch';
import { isZero } from './zero';

export const HASH_KEY_BYTES = 32;
export const PAGE_DIGESTS_BYTES: number = PAGES_PER_BLOCK * HASH_BYTES;

const WORDS = HASH_BYTES / 4;
const digests = Buffer.alloc(PAGE_DIGESTS_BYTES);

/** BLAKE3 with a key of 32 bytes over these parts, one behind the other; 16 bytes of it. */
export function keyedHash(key: Buffer, ...parts: readonly Buffer[]): Buffer {
  const hasher = Blake3Hasher.newKeyed(key);
  for (const part of parts) hasher.update(part);
  return hasher.digestBuffer().subarray(0, HASH_BYTES);
}

/** The BLAKE3 of a page, 16 bytes of it; of zeros, zeros. */
export function pageDigest(page: Buffer): Buffer {
  return isZero(page) ? Buffer.alloc(HASH_BYTES) : blake3(page).subarray(0, HASH_BYTES);
}

/** Those of a block's pages, always 16 of them (of pages behind the image's end, zeros), at `out[offset]`. */
export function writePageDigests(block: Buffer, out: Buffer, offset: number): void {
  out.fill(0, offset, offset + PAGE_DIGESTS_BYTES);
  for (let page = 0; page < pageCount(block.length); page += 1) {
    const bytes = pageOf(block, page);
    if (!isZero(bytes)) blake3(bytes).copy(out, offset + page * HASH_BYTES, 0, HASH_BYTES);
  }
}

/** What may be told of such digests: 8 bytes of each. Zeros stay zeros. */
export function keyedPageHashes(key: Buffer, pages: Buffer): Buffer {
  const cipher = createCipheriv('aes-256-ecb', key, null).setAutoPadding(false);
  const [plain, enciphered] = [wordsOf(pages), wordsOf(cipher.update(pages))];
  const out = new Uint32Array((pages.length / HASH_BYTES) * (PAGE_HASH_BYTES / 4));
  for (let [from, to] = [0, 0]; from < plain.length; from += WORDS, to += 2) {
    if (!plain[from] && !plain[from + 1] && !plain[from + 2] && !plain[from + 3]) continue;
    out[to] = enciphered[from] ?? 0;
    out[to + 1] = enciphered[from + 1] ?? 0;
  }
  return Buffer.from(out.buffer);
}

/** The pages of one block. */
export function keyedHashesOf(key: Buffer, block: Buffer): Buffer {
  writePageDigests(block, digests, 0);
  return keyedPageHashes(key, digests);
}

/** Bit p set: page p of the block differs from the one that `hashes[8p]` stands for. */
export function differingPagesByKeyedHash(hashes: Buffer, key: Buffer, after: Buffer): number {
  const own = keyedHashesOf(key, after);
  let bitmap = 0;
  for (let page = 0; page < pageCount(after.length); page += 1) {
    const [start, end] = [page * PAGE_HASH_BYTES, (page + 1) * PAGE_HASH_BYTES];
    if (own.compare(hashes, start, end, start, end) !== 0) bitmap |= 1 << page;
  }
  return bitmap;
}

/** A copy: words lie at multiples of four. */
function wordsOf(bytes: Buffer): Uint32Array {
  return new Uint32Array(Uint8Array.from(bytes).buffer);
}
