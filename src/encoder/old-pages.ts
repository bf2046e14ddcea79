/**
 * Changed pages packed with their old content as zstd's dictionary: finds what has moved inside and between pages, where
 * run coding sees only new bytes. Pages are packed in pieces, each with the old content of its own pages, those that were
 * zeros left out; both sides gather it in the order of the entries.
 *
 *   piece table := n x (u16 entries, u16 zero, u32 packed bytes)     entries of encoding 6, in order, belong to the pieces in order
 *
 * zstd does not notice a wrong dictionary: each block is checked against its BLAKE3
 * by the decoder. At levels below 3 a dictionary above 64 KiB is forgotten without an error: pieces are smaller there.
 */
import { DwcpError } from '../model/errors';
import { BLOCK_SIZE_BYTES, blockLength } from '../model/image';
import { KIB } from '../model/units';
import { type BatchEntry, type BatchHead, MAX_GATHERED_BYTES } from './batch-format';
import type { Packer } from './packer';
import { pageCount, pageOf } from './page-patch';
import { isZero } from './zero';

export const PIECE_TABLE_BYTES = 8;
const PIECE_BYTES = 256 * KIB;
const FAST_PIECE_BYTES = 64 * KIB;
const LEAST_LEVEL_FOR_LARGE_DICTIONARIES = 3;
/** A piece is closed by the block that fills it. */
export const MAX_PIECE_BYTES = PIECE_BYTES + BLOCK_SIZE_BYTES;

export function pieceBytesAt(level: number): number {
  return level >= LEAST_LEVEL_FOR_LARGE_DICTIONARIES ? PIECE_BYTES : FAST_PIECE_BYTES;
}

/** Copies the old content of a bitmap's pages behind `out[offset]`, but for zeros; returns the offset behind it. */
export function gatherOldPages(before: Buffer, bitmap: number, out: Buffer, offset: number): number {
  let at = offset;
  for (let page = 0; page < pageCount(before.length); page += 1) {
    if (!(bitmap & (1 << page))) continue;
    const old = pageOf(before, page);
    if (!isZero(old)) at += old.copy(out, at);
  }
  return at;
}

/** Reads the old version of an entry's block into `out`; false where it is not the one that the entry was made against. */
export type ReadOld = (entry: BatchEntry, out: Buffer) => boolean;

export interface UnpackedPieces {
  /** Where in the payload the gathered section begins. */
  readonly end: number;
  /** An entry without pages has another old version here. */
  readonly pages: ReadonlyMap<BatchEntry, Buffer>;
}

export class OldPagesUnpacker {
  readonly #packer: Packer;
  readonly #pages = Buffer.allocUnsafeSlow(MAX_GATHERED_BYTES);
  readonly #old = Buffer.allocUnsafeSlow(MAX_PIECE_BYTES);
  readonly #block = Buffer.allocUnsafeSlow(BLOCK_SIZE_BYTES);

  constructor(packer: Packer) {
    this.#packer = packer;
  }

  /** Unpacks the pieces at the start of a payload. @throws PROTOCOL_VIOLATION where their table lies */
  unpack({ pieces, entries }: BatchHead, payload: Buffer, imageBytes: number, read: ReadOld): UnpackedPieces {
    const inPieces = entries.filter(({ encoding }) => encoding === 'oldPages');
    const pages = new Map<BatchEntry, Buffer>();
    let end = pieces * PIECE_TABLE_BYTES;
    let next = 0;
    let written = 0;
    if (payload.length < end) throw violation(`${pieces} pieces in ${payload.length} bytes`);
    for (let piece = 0; piece < pieces; piece += 1) {
      const own = inPieces.slice(next, next + payload.readUInt16BE(piece * PIECE_TABLE_BYTES));
      const packedBytes = payload.readUInt32BE(piece * PIECE_TABLE_BYTES + 4);
      const rawBytes = own.reduce((sum, entry) => sum + entry.length, 0);
      if (
        own.length === 0 ||
        own.length < payload.readUInt16BE(piece * PIECE_TABLE_BYTES) ||
        rawBytes > MAX_PIECE_BYTES ||
        packedBytes > payload.length - end
      )
        throw violation(`piece ${piece} does not fit`);
      const oldBytes = this.#gatherOld(own, imageBytes, read);
      const target = this.#pages.subarray(written, written + rawBytes);
      const packed = payload.subarray(end, end + packedBytes);
      next += own.length;
      end += packedBytes;
      if (
        oldBytes === undefined ||
        this.#packer.unpackWith(packed, target, this.#old.subarray(0, oldBytes)) !== rawBytes
      )
        continue;
      for (const entry of own) {
        pages.set(entry, this.#pages.subarray(written, written + entry.length));
        written += entry.length;
      }
    }
    if (next !== inPieces.length) throw violation(`${inPieces.length - next} entries belong to no piece`);
    return { end, pages };
  }

  /** @returns undefined where not all of it is here: with another dictionary no block of the piece comes out */
  #gatherOld(entries: readonly BatchEntry[], imageBytes: number, read: ReadOld): number | undefined {
    let oldBytes = 0;
    for (const entry of entries) {
      const block = this.#block.subarray(0, blockLength(imageBytes, entry.block));
      if (!read(entry, block)) return undefined;
      oldBytes = gatherOldPages(block, entry.pageBitmap, this.#old, oldBytes);
      if (oldBytes > MAX_PIECE_BYTES - BLOCK_SIZE_BYTES && entry !== entries.at(-1)) return undefined;
    }
    return oldBytes;
  }
}

function violation(text: string): DwcpError {
  return new DwcpError('PROTOCOL_VIOLATION', `Batch refused: ${text}`, { side: 'destination' });
}
