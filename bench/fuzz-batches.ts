/**
 * Batches as the encoder makes them, one at least for each encoding of a block and each packing of a section, over an image that both
 * sides hold; and that image as the decoder asks for it. What is missing ends the bench: an encoding that nobody fuzzes is not known.
 */

import type { HeldImage } from '../src/encoder/batch-decoder';
import { BatchEncoder, type BlockToEncode, type EncodeSettings, encodedBound } from '../src/encoder/batch-encoder';
import { ENCODING, PACKING, readBatchHead, writeBatchHead } from '../src/encoder/batch-format';
import { packBrotli } from '../src/encoder/brotli';
import { blockHash, PAGE_HASH_BYTES } from '../src/encoder/hash';
import { writePageHashes } from '../src/encoder/page-patch';
import { BLOCK_SIZE_BYTES, blockLength, PAGE_SIZE_BYTES, PAGES_PER_BLOCK } from '../src/model/image';
import { Draw } from './fuzz-draw';

export interface BatchExample {
  readonly meta: Buffer;
  readonly payload: Buffer;
}

/** Four blocks and a short one. */
export const IMAGE_BYTES = 4 * BLOCK_SIZE_BYTES + 5000;
const SETTINGS: EncodeSettings = { compress: true, level: 1, delta: true, deltaThreshold: 0.7 };
const noise = new Draw(7, 7);

function text(block: number): Buffer {
  const lines = Array.from(
    { length: 1400 },
    (_, line) => `${block} ${line} of ${(line * 7919) % 10_007}: the quick brown fox\n`,
  );
  return Buffer.from(lines.join('')).subarray(0, BLOCK_SIZE_BYTES);
}

function rows(): Buffer {
  const lines = Array.from(
    { length: 1100 },
    (_, row) => `customer-${(row * 7919) % 5000},Basel,item ${row % 97},${noise.bytes(12).toString('hex')}\n`,
  );
  return Buffer.from(lines.join('').padEnd(BLOCK_SIZE_BYTES, '.')).subarray(0, BLOCK_SIZE_BYTES);
}

/** Numbers about one another's size. */
function numbers(width: 2 | 4): Buffer {
  const all = Float32Array.from({ length: BLOCK_SIZE_BYTES / width }, () => {
    const [one, other] = [(noise.u32() + 1) / 2 ** 32, noise.u32() / 2 ** 32];
    return Math.sqrt(-2 * Math.log(one)) * Math.cos(2 * Math.PI * other);
  });
  const bytes = Buffer.from(all.buffer);
  if (width === 4) return bytes;
  return Buffer.concat(Array.from({ length: all.length }, (_, at) => bytes.subarray(4 * at + 2, 4 * at + 4)));
}

/** What both sides hold: text, noise, zeros. */
export const HELD: readonly Buffer[] = [0, 1, 2, 3, 4].map((block) => {
  const bytes =
    block === 2 ? Buffer.alloc(BLOCK_SIZE_BYTES) : block === 3 ? noise.bytes(BLOCK_SIZE_BYTES) : text(block);
  return bytes.subarray(0, blockLength(IMAGE_BYTES, block));
});
const HASHES = HELD.map(blockHash);
const DICTIONARY = { id: 0x01020304, bytes: text(9).subarray(0, 16_384) };

/** The image as a decoder sees it; its pages may be referred to by their numbers. */
export const HELD_IMAGE: HeldImage = {
  sizeBytes: IMAGE_BYTES,
  hashOf: (block) => HASHES[block] ?? Buffer.alloc(16),
  read: (block, out) => void HELD[block]?.copy(out),
  readReferences: (address, out) => {
    const from = HELD[Math.floor(address / 16)]?.subarray((address % 16) * PAGE_SIZE_BYTES);
    return from !== undefined && from.copy(out) === out.length;
  },
  dictionaryOf: (id) => (id === DICTIONARY.id ? DICTIONARY : undefined),
};

const encoder = new BatchEncoder();

function encoded(blocks: readonly BlockToEncode[], settings: Partial<EncodeSettings> = {}): BatchExample {
  const out = Buffer.alloc(encodedBound(blocks.length));
  const { metaBytes, payloadBytes } = encoder.encode(0, blocks, { ...SETTINGS, ...settings }, out);
  return { meta: out.subarray(0, metaBytes), payload: out.subarray(metaBytes, metaBytes + payloadBytes) };
}

function whole(block: number, bytes: Buffer): BlockToEncode {
  return { block, bytes, hash: blockHash(bytes) };
}

/**
 * A block of what is held with some bytes of some pages changed.
 * @param told what the source knows of it
 * @param by what takes their place
 */
function edited(
  block: number,
  pages: readonly number[],
  told: 'bytes' | 'hashes',
  by: (page: Buffer) => Buffer = () => noise.bytes(100),
): BlockToEncode {
  const old = HELD[block] ?? Buffer.alloc(0);
  const bytes = Buffer.from(old);
  for (const page of pages) {
    const at = page * PAGE_SIZE_BYTES;
    by(old.subarray(at, at + PAGE_SIZE_BYTES)).copy(bytes, at);
  }
  const pageHashes = Buffer.alloc(PAGES_PER_BLOCK * PAGE_HASH_BYTES);
  writePageHashes(old, pageHashes, 0);
  const hash = HASHES[block] ?? Buffer.alloc(16);
  return { ...whole(block, bytes), held: told === 'bytes' ? { hash, bytes: old } : { hash, pageHashes } };
}

/** The same bytes a little further on: nothing is where it was. */
function moved(page: Buffer): Buffer {
  return Buffer.concat([noise.bytes(7), page.subarray(0, page.length - 7)]);
}

function referring(block: number, held: boolean): BlockToEncode {
  const bytes = Buffer.concat([HELD[0]?.subarray(0, 32_768) ?? Buffer.alloc(0), noise.bytes(32_768)]);
  const references = Array.from({ length: 16 }, (_, page) => (page < 8 ? page : -1));
  const hash = HASHES[block] ?? Buffer.alloc(16);
  return { ...whole(block, bytes), references, ...(held && { held: { hash, bytes: HELD[block] ?? bytes } }) };
}

/** Brotli is tried for what it is good at only: here it is packed by hand. */
function byBrotli({ meta, payload }: BatchExample): BatchExample {
  const head = readBatchHead(meta);
  const out = Buffer.from(meta);
  writeBatchHead(out, { ...head, packing: 'brotli', entryCount: head.entries.length });
  return { meta: out, payload: packBrotli(payload) };
}

function checked(examples: readonly BatchExample[]): readonly BatchExample[] {
  const heads = examples.map(({ meta }) => readBatchHead(meta));
  const seen = new Set<string>(
    heads.flatMap(({ packing, entries }) => [packing, ...entries.map(({ encoding }) => encoding)]),
  );
  const missing = [...Object.keys(ENCODING), ...Object.keys(PACKING)].filter((name) => !seen.has(name));
  if (missing.length > 0) throw new Error(`no example of a batch with ${missing.join(', ')}`);
  return examples;
}

export const BATCHES: readonly BatchExample[] = checked([
  encoded([whole(0, Buffer.alloc(BLOCK_SIZE_BYTES)), whole(4, text(8).subarray(0, 5000))]),
  encoded([whole(0, text(5)), whole(1, text(6))]),
  encoded([whole(1, noise.bytes(BLOCK_SIZE_BYTES))], { compress: false }),
  encoded([edited(0, [1, 5], 'bytes'), edited(4, [0], 'bytes')]),
  encoded([edited(0, [2, 3], 'bytes', moved), edited(3, [0, 7], 'bytes', moved)]),
  encoded([edited(0, [2, 9], 'hashes'), edited(1, [4], 'hashes', () => noise.bytes(PAGE_SIZE_BYTES))]),
  encoded([edited(0, [2], 'hashes', () => text(9).subarray(5000, 9096))], { dictionary: DICTIONARY }),
  encoded([referring(0, false), referring(3, true)], { compress: false }),
  encoded(
    [0, 1, 2].map((block) => whole(block, numbers(4))),
    { numeric: true, level: 3 },
  ),
  encoded(
    [0, 1, 2].map((block) => whole(block, numbers(2))),
    { numeric: true, level: 3 },
  ),
  encoded(
    [0, 1, 2, 3].map((block) => whole(block, rows())),
    { level: 3 },
  ),
  byBrotli(encoded([edited(0, [1, 5], 'bytes')], { compress: false })),
]);
