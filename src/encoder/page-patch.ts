/**
 * The second level of the manifest: inside a block that differs, only the 4 KiB pages that differ travel. Which
 * they are is known from the old bytes, or from the other side's page hashes (XXH3-64, 8 bytes a page) where the old
 * bytes are not at hand. The block's BLAKE3 is checked after patching, so a colliding page hash costs a resend, no harm.
 */
import { PAGE_SIZE_BYTES, PAGES_PER_BLOCK } from '../model/image';
import { PAGE_HASH_BYTES, quickHash } from './hash';

export function pageCount(blockBytes: number): number {
  return Math.ceil(blockBytes / PAGE_SIZE_BYTES);
}

/** Bit p set: page p of the block differs from `before`. Lengths are equal. */
export function differingPages(before: Buffer, after: Buffer): number {
  let bitmap = 0;
  for (let page = 0; page < pageCount(after.length); page += 1) {
    const start = page * PAGE_SIZE_BYTES;
    const end = Math.min(start + PAGE_SIZE_BYTES, after.length);
    if (after.compare(before, start, end, start, end) !== 0) bitmap |= 1 << page;
  }
  return bitmap;
}

/** Bit p set: page p differs from the one that `hashes[offset + 8p]` stands for. */
export function differingPagesByHash(hashes: Buffer, offset: number, after: Buffer): number {
  let bitmap = 0;
  for (let page = 0; page < pageCount(after.length); page += 1) {
    const held = hashes.subarray(offset + page * PAGE_HASH_BYTES, offset + (page + 1) * PAGE_HASH_BYTES);
    if (!quickHash(pageOf(after, page)).equals(held)) bitmap |= 1 << page;
  }
  return bitmap;
}

/** Page hashes of one block, always 16 of them (pages behind the image's end are zero), at `out[offset]`. */
export function writePageHashes(block: Buffer, out: Buffer, offset: number): void {
  for (let page = 0; page < PAGES_PER_BLOCK; page += 1) {
    const at = offset + page * PAGE_HASH_BYTES;
    if (page < pageCount(block.length)) quickHash(pageOf(block, page)).copy(out, at);
    else out.fill(0, at, at + PAGE_HASH_BYTES);
  }
}

export function pageOf(block: Buffer, page: number): Buffer {
  return block.subarray(page * PAGE_SIZE_BYTES, Math.min((page + 1) * PAGE_SIZE_BYTES, block.length));
}

/** Bytes that the pages of a bitmap take, the last page of a short block counted at its length. */
export function bitmapBytes(bitmap: number, blockBytes: number): number {
  let bytes = 0;
  for (let page = 0; page < pageCount(blockBytes); page += 1) {
    if (bitmap & (1 << page)) bytes += Math.min(PAGE_SIZE_BYTES, blockBytes - page * PAGE_SIZE_BYTES);
  }
  return bytes;
}

/** Copies the pages of a bitmap one behind the other to `out[offset]`; returns the offset behind them. */
export function gatherPages(block: Buffer, bitmap: number, out: Buffer, offset: number): number {
  let at = offset;
  for (let page = 0; page < pageCount(block.length); page += 1) {
    if (bitmap & (1 << page)) at += pageOf(block, page).copy(out, at);
  }
  return at;
}

/** The inverse of gatherPages, in place; false where lengths do not fit. */
export function applyPages(pages: Buffer, bitmap: number, block: Buffer): boolean {
  if (bitmap >>> pageCount(block.length) !== 0 || bitmapBytes(bitmap, block.length) !== pages.length) return false;
  let at = 0;
  for (let page = 0; page < pageCount(block.length); page += 1) {
    if (bitmap & (1 << page)) at += pages.copy(block, page * PAGE_SIZE_BYTES, at, at + pageOf(block, page).length);
  }
  return true;
}
