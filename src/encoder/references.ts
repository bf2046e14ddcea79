/**
 * A block as a list of pages that the destination has somewhere else: in an image that was sent before, or in a file that
 * both hosts have. What is referred to is named by its page's address (reference-index.ts says how addresses are given).
 *
 *   encoded := u16 referred (bit p: page p is one of those)
 *              for each of them, in order: varint(zigzag(address - expected)); expected is the address before it plus one, 0 at first
 *              the pages of the entry's bitmap, as they are
 *
 * A page in neither bitmap stays as in the version held; without one (old hash zero) it is zeros. Every result is checked
 * against the block's BLAKE3: an address that means something else by now costs a resend, no harm.
 */
import { PAGE_SIZE_BYTES } from '../model/image';
import { applyPages, gatherPages, pageCount } from './page-patch';
import { readVarint, writeVarint } from './varint';

export const NOT_REFERRED = -1;
const BITMAP_BYTES = 2;
/** Seven varint bytes carry 49 bits, more than any address takes. */
const MAX_VARINT_BYTES = 7;

/** Reads pages from `address` on into `out`; false where they are not there. */
export type ReadReferences = (address: number, out: Buffer) => boolean;

/**
 * @param addresses of each page, NOT_REFERRED where it has none
 * @param carried bitmap of pages that travel as they are
 * @returns the offset behind what was written at `out[offset]`
 */
export function encodeReferences(
  block: Buffer,
  addresses: ArrayLike<number>,
  carried: number,
  out: Buffer,
  offset: number,
): number {
  let at = offset + BITMAP_BYTES;
  let referred = 0;
  let expected = 0;
  for (let page = 0; page < pageCount(block.length); page += 1) {
    const address = addresses[page] ?? NOT_REFERRED;
    if (address < 0) continue;
    referred |= 1 << page;
    const distance = address - expected;
    at = writeVarint(out, at, distance < 0 ? -2 * distance - 1 : 2 * distance);
    expected = address + 1;
  }
  out.writeUInt16BE(referred, offset);
  return gatherPages(block, carried, out, at);
}

/** The inverse, in place: `block` holds the base. @returns 'malformed' where it breaks the format, 'missing' where a page is not there */
export function applyReferences(
  encoded: Buffer,
  carried: number,
  block: Buffer,
  read: ReadReferences,
): 'done' | 'missing' | 'malformed' {
  if (encoded.length < BITMAP_BYTES) return 'malformed';
  const referred = encoded.readUInt16BE(0);
  if (referred >>> pageCount(block.length) !== 0 || (referred & carried) !== 0) return 'malformed';
  const cursor = { at: BITMAP_BYTES };
  let address = -1;
  let run = { page: 0, address: 0, pages: 0 };
  const readRun = (): boolean =>
    run.pages === 0 ||
    read(
      run.address,
      block.subarray(run.page * PAGE_SIZE_BYTES, Math.min(block.length, (run.page + run.pages) * PAGE_SIZE_BYTES)),
    );
  for (let page = 0; page < pageCount(block.length); page += 1) {
    if (!(referred & (1 << page))) continue;
    const coded = readVarint(encoded, cursor, MAX_VARINT_BYTES);
    if (coded < 0) return 'malformed';
    address += 1 + (coded % 2 === 1 ? -(coded + 1) / 2 : coded / 2);
    if (address < 0 || !Number.isSafeInteger(address)) return 'malformed';
    if (run.pages > 0 && run.page + run.pages === page && run.address + run.pages === address) run.pages += 1;
    else {
      if (!readRun()) return 'missing';
      run = { page, address, pages: 1 };
    }
  }
  if (!readRun()) return 'missing';
  return applyPages(encoded.subarray(cursor.at), carried, block) ? 'done' : 'malformed';
}
