/**
 * The head of a batch as bytes (the meta part of a BATCH frame), big-endian:
 *
 *   offset size field
 *   0      2    image: the number that open_image gave
 *   2      1    packing of the gathered section: 1 stored, 2 zstd, 3 zstd with a trained dictionary, 4 and 5 numbers
 *               taken apart, 6 hexadecimal text taken apart, 7 Brotli
 *   3      1    pieces: how many packed pieces with old content stand before the gathered section in the payload (old-pages.ts)
 *   4      4    gathered: bytes of the gathered section once unpacked
 *   8      4    entries that follow
 *   12     36n  entries:
 *               0  4  block number
 *               4  1  encoding: 1 zero, 2 full, 3 pages, 4 run delta, 5 references, 6 old pages
 *               5  1  zero
 *               6  2  page bitmap (encodings 3, 5 and 6), else zero
 *               8  4  length in the gathered section, of encoding 6 in its piece
 *               12 16 BLAKE3 of the new block (all zero for encoding 1)
 *               28 8  first 8 bytes of the hash of the old block (encodings 3 to 6), else zero
 *
 * Encoded lengths follow one another in the gathered section in the order of the entries. What is out of range is
 * refused here (PROTOCOL_VIOLATION), before anything is unpacked; that an entry fits its image is the decoder's check.
 */
import { DwcpError } from '../model/errors';
import { BLOCK_SIZE_BYTES } from '../model/image';
import { HASH_BYTES } from './hash';

export const BATCH_HEAD_BYTES = 12;
export const ENTRY_BYTES = 36;
export const OLD_HASH_BYTES = 8;
/** 4 MiB of blocks: the largest batch, and with it the most memory that decoding one may take. */
export const MAX_BATCH_BLOCKS = 64;
export const MAX_GATHERED_BYTES = MAX_BATCH_BLOCKS * BLOCK_SIZE_BYTES;

export const PACKING = { stored: 1, zstd: 2, dictionary: 3, numbers16: 4, numbers32: 5, hex: 6, brotli: 7 } as const;
export type Packing = keyof typeof PACKING;
export const ENCODING = { zero: 1, full: 2, pages: 3, runDelta: 4, references: 5, oldPages: 6 } as const;
export type Encoding = keyof typeof ENCODING;

export function noBlocks(): Record<Encoding, number> {
  return { zero: 0, full: 0, pages: 0, runDelta: 0, references: 0, oldPages: 0 };
}

export interface BatchEntry {
  readonly block: number;
  readonly encoding: Encoding;
  readonly pageBitmap: number;
  readonly length: number;
  readonly hash: Buffer;
  readonly oldHash: Buffer;
}

export interface BatchHead {
  readonly image: number;
  readonly packing: Packing;
  readonly pieces: number;
  readonly gatheredBytes: number;
  readonly entries: readonly BatchEntry[];
}

export function batchMetaBytes(entryCount: number): number {
  return BATCH_HEAD_BYTES + entryCount * ENTRY_BYTES;
}

export function writeBatchHead(
  out: Buffer,
  { image, packing, pieces, gatheredBytes, entryCount }: Omit<BatchHead, 'entries'> & { readonly entryCount: number },
): void {
  out.writeUInt16BE(image, 0);
  out.writeUInt8(PACKING[packing], 2);
  out.writeUInt8(pieces, 3);
  out.writeUInt32BE(gatheredBytes, 4);
  out.writeUInt32BE(entryCount, 8);
}

export function writeBatchEntry(out: Buffer, index: number, entry: BatchEntry): void {
  const at = BATCH_HEAD_BYTES + index * ENTRY_BYTES;
  out.writeUInt32BE(entry.block, at);
  out.writeUInt8(ENCODING[entry.encoding], at + 4);
  out.writeUInt8(0, at + 5);
  out.writeUInt16BE(entry.pageBitmap, at + 6);
  out.writeUInt32BE(entry.length, at + 8);
  entry.hash.copy(out, at + 12, 0, HASH_BYTES);
  entry.oldHash.copy(out, at + 28, 0, OLD_HASH_BYTES);
}

function violation(text: string): DwcpError {
  return new DwcpError('PROTOCOL_VIOLATION', `Batch refused: ${text}`);
}

const PACKING_BY_NUMBER = new Map<number, Packing>(
  Object.entries(PACKING).map(([name, number]) => [number, name as Packing]),
);
const ENCODING_BY_NUMBER = new Map<number, Encoding>(
  Object.entries(ENCODING).map(([name, number]) => [number, name as Encoding]),
);

function readEntry(meta: Buffer, index: number): BatchEntry {
  const at = BATCH_HEAD_BYTES + index * ENTRY_BYTES;
  const encoding = ENCODING_BY_NUMBER.get(meta.readUInt8(at + 4));
  if (!encoding) throw violation(`unknown encoding ${meta.readUInt8(at + 4)}`);
  const entry: BatchEntry = {
    block: meta.readUInt32BE(at),
    encoding,
    pageBitmap: meta.readUInt16BE(at + 6),
    length: meta.readUInt32BE(at + 8),
    hash: meta.subarray(at + 12, at + 28),
    oldHash: meta.subarray(at + 28, at + 36),
  };
  if (entry.length > BLOCK_SIZE_BYTES) throw violation(`block ${entry.block} claims ${entry.length} encoded bytes`);
  if (encoding === 'zero' && entry.length !== 0) throw violation(`zero block ${entry.block} has content`);
  return entry;
}

/** The blocks that a head names and what they shall be, unchecked: what is wrong with them readBatchHead() says. */
export function namedBlocks(meta: Buffer): Pick<BatchEntry, 'block' | 'hash'>[] {
  return Array.from({ length: Math.max(0, Math.floor((meta.length - BATCH_HEAD_BYTES) / ENTRY_BYTES)) }, (_, index) => {
    const at = BATCH_HEAD_BYTES + index * ENTRY_BYTES;
    return { block: meta.readUInt32BE(at), hash: meta.subarray(at + 12, at + 12 + HASH_BYTES) };
  });
}

/** Reads and checks a batch's head. @throws PROTOCOL_VIOLATION */
export function readBatchHead(meta: Buffer): BatchHead {
  if (meta.length < BATCH_HEAD_BYTES) throw violation(`its head is ${meta.length} bytes long`);
  const packing = PACKING_BY_NUMBER.get(meta.readUInt8(2));
  if (!packing) throw violation(`unknown packing ${meta.readUInt8(2)}`);
  const gatheredBytes = meta.readUInt32BE(4);
  const entryCount = meta.readUInt32BE(8);
  if (entryCount === 0 || entryCount > MAX_BATCH_BLOCKS) throw violation(`${entryCount} entries`);
  if (meta.length !== batchMetaBytes(entryCount)) throw violation(`${entryCount} entries in ${meta.length} bytes`);
  if (gatheredBytes > MAX_GATHERED_BYTES) throw violation(`${gatheredBytes} gathered bytes`);
  const entries = Array.from({ length: entryCount }, (_, index) => readEntry(meta, index));
  const sum = entries.reduce((total, entry) => total + (entry.encoding === 'oldPages' ? 0 : entry.length), 0);
  if (sum !== gatheredBytes) throw violation(`its entries take ${sum} bytes and its head says ${gatheredBytes}`);
  return { image: meta.readUInt16BE(0), packing, pieces: meta.readUInt8(3), gatheredBytes, entries };
}
