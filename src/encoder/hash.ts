/**
 * The two hashes. BLAKE3, cut to 16 bytes, stands for a block's content wherever an equal hash means "not sent";
 * XXH3-64 only detects change where a BLAKE3 of the result follows. A block of zeros has the all-zero hash, so that
 * manifests of sparse images shrink to nothing. Figures behind the choice: docs/transport.md, decisions.
 */
import { Blake3Hasher, blake3 } from '@napi-rs/blake-hash';
import { XXHash3 } from 'xxhash-addon';
import { isZero } from './zero';

export const HASH_BYTES = 16;
export const PAGE_HASH_BYTES = 8;
export const ZERO_HASH: Buffer = Buffer.alloc(HASH_BYTES);

/** Writes the 16-byte hash of a block at `out[offset]`; zeros are told apart first, which is far cheaper than hashing. */
export function writeBlockHash(block: Buffer, out: Buffer, offset: number): void {
  if (isZero(block)) out.fill(0, offset, offset + HASH_BYTES);
  else blake3(block).copy(out, offset, 0, HASH_BYTES);
}

export function blockHash(block: Buffer): Buffer {
  const hash = Buffer.allocUnsafe(HASH_BYTES);
  writeBlockHash(block, hash, 0);
  return hash;
}

/** XXH3-64 of some bytes, as 8 bytes big-endian. */
export function quickHash(bytes: Buffer): Buffer {
  return XXHash3.hash(bytes);
}

/**
 * Root of a manifest: BLAKE3 over a tag, the image's size and block size (u64 big-endian each) and all block hashes,
 * as hex. Equal roots mean equal images.
 */
export function manifestRoot(hashes: Buffer, sizeBytes: number, blockSizeBytes: number): string {
  const head = Buffer.alloc(32);
  head.write('DWCP manifest 1', 'latin1');
  head.writeBigUInt64BE(BigInt(sizeBytes), 16);
  head.writeBigUInt64BE(BigInt(blockSizeBytes), 24);
  const hasher = new Blake3Hasher();
  hasher.update(head);
  hasher.update(hashes);
  return hasher.digest('hex');
}
