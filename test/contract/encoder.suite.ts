/**
 * What every pair of encoder and decoder promises: the exact inverse for any blocks over any held versions, and against
 * hostile bytes a coded error or a refused block, never wrong content, a crash or memory above the bound.
 */
import fc from 'fast-check';
import type { BlockToEncode, EncodeSettings } from '../../src/encoder/batch-encoder';
import { readBatchHead } from '../../src/encoder/batch-format';
import { blockHash, ZERO_HASH } from '../../src/encoder/hash';
import { compressBound, Packer } from '../../src/encoder/packer';
import { writePageHashes } from '../../src/encoder/page-patch';
import { DwcpError } from '../../src/model/errors';
import { BLOCK_SIZE_BYTES } from '../../src/model/image';
import { makeBlock, randomBlock, textBlock } from '../helpers/data';

export interface EncoderUnderTest {
  /** Encodes into one buffer; returns head and payload. */
  encode(blocks: readonly BlockToEncode[], settings: EncodeSettings): { meta: Buffer; payload: Buffer };
  /** Decodes over an image of these blocks. */
  decode(
    meta: Buffer,
    payload: Buffer,
    image: { sizeBytes: number; blocks: ReadonlyMap<number, Buffer> },
  ): { written: Map<number, Buffer>; refused: number[] };
}

const BLOCKS = 64;

/** Blocks of normally distributed numbers: float32, or the upper half of them. */
function gaussian(width: 2 | 4): (block: number) => Buffer {
  return (block) => {
    const count = BLOCK_SIZE_BYTES / width;
    const uniform = randomBlock(block, 8, 8 * count);
    const numbers = Float32Array.from({ length: count }, (_, index) => {
      const [one, other] = [0, 4].map((offset) => (uniform.readUInt32LE(8 * index + offset) + 1) / 2 ** 32) as [
        number,
        number,
      ];
      return Math.sqrt(-2 * Math.log(one)) * Math.cos(2 * Math.PI * other);
    });
    const bytes = Buffer.from(numbers.buffer);
    if (width === 4) return bytes;
    const halves = Buffer.alloc(BLOCK_SIZE_BYTES);
    for (let index = 0; index < count; index += 1) bytes.copy(halves, 2 * index, 4 * index + 2, 4 * index + 4);
    return halves;
  };
}

/** How a block looks now, beside the version held. */
function variants(old: Buffer, seed: number): Record<string, Buffer> {
  const edited = Buffer.from(old);
  for (let edit = 0; edit < 20; edit += 1)
    if (old.length > 6000) edited.writeUInt32LE((seed * 31 + edit) >>> 0, edit * 280);
  const shifted = Buffer.concat([Buffer.from('inserted'), old]).subarray(0, old.length);
  return {
    same: old,
    zero: Buffer.alloc(old.length),
    edited,
    shifted,
    random: randomBlock(seed, 1, old.length),
    text: textBlock(seed, 2, old.length),
  };
}

const settingsArbitrary = fc.record({
  compress: fc.boolean(),
  level: fc.constantFrom(-5, -1, 1, 3, 6, 9),
  delta: fc.boolean(),
  deltaThreshold: fc.constantFrom(0, 0.1, 0.7, 1),
});

const caseArbitrary = fc.record({
  settings: settingsArbitrary,
  sizeBytes: fc.constantFrom(
    BLOCKS * BLOCK_SIZE_BYTES,
    BLOCKS * BLOCK_SIZE_BYTES - 4097,
    (BLOCKS - 1) * BLOCK_SIZE_BYTES + 1,
  ),
  picks: fc.uniqueArray(
    fc.record({
      block: fc.nat(BLOCKS - 1),
      seed: fc.nat(1000),
      variant: fc.constantFrom('zero', 'edited', 'shifted', 'random', 'text'),
      knows: fc.constantFrom('nothing', 'bytes', 'pages'),
    }),
    { selector: (pick) => pick.block, minLength: 1, maxLength: 24 },
  ),
});

type Case = typeof caseArbitrary extends fc.Arbitrary<infer T> ? T : never;

function build({ picks, sizeBytes }: Case): { blocks: BlockToEncode[]; image: Map<number, Buffer> } {
  const lengthOf = (block: number): number => Math.min(BLOCK_SIZE_BYTES, sizeBytes - block * BLOCK_SIZE_BYTES);
  const image = new Map(picks.map(({ block, seed }) => [block, makeBlock(seed, block, lengthOf(block))]));
  const blocks = [...picks]
    .sort((a, b) => a.block - b.block)
    .map(({ block, seed, variant, knows }): BlockToEncode => {
      const old = image.get(block)!;
      const bytes = variants(old, seed)[variant]!;
      const hash = blockHash(bytes);
      const oldHash = blockHash(old);
      if (knows === 'nothing' || oldHash.equals(ZERO_HASH) || hash.equals(ZERO_HASH)) return { block, bytes, hash };
      if (knows === 'bytes') return { block, bytes, hash, held: { hash: oldHash, bytes: old } };
      const pageHashes = Buffer.alloc(128);
      writePageHashes(old, pageHashes, 0);
      return { block, bytes, hash, held: { hash: oldHash, pageHashes } };
    });
  return { blocks, image };
}

export function encoderSuite(name: string, create: () => EncoderUnderTest): void {
  describe(`encoder contract: ${name}`, () => {
    const codec = create();

    it('gives back exactly what went in, for any blocks over any versions held', () => {
      fc.assert(
        fc.property(caseArbitrary, (given) => {
          const { blocks, image } = build(given);
          const { meta, payload } = codec.encode(blocks, given.settings);
          const { written, refused } = codec.decode(meta, payload, { sizeBytes: given.sizeBytes, blocks: image });
          expect(refused).toEqual([]);
          for (const { block, bytes } of blocks) expect(written.get(block)?.equals(bytes)).toBe(true);
        }),
        { numRuns: 60 },
      );
    });

    it('never sends a delta that is larger than deltaThreshold of the full encoding', () => {
      const old = textBlock(1, 1);
      for (const [what, bytes] of Object.entries({ ...variants(old, 3), random: randomBlock(1, 9) })) {
        if (what === 'same' || what === 'zero') continue;
        const held = { hash: blockHash(old), bytes: old };
        const settings = { compress: true, level: 1, delta: true, deltaThreshold: 0.7 };
        const full = codec.encode([{ block: 0, bytes, hash: blockHash(bytes) }], settings).payload.length;
        const { meta, payload } = codec.encode([{ block: 0, bytes, hash: blockHash(bytes), held }], settings);
        const [entry] = readBatchHead(meta).entries;
        if (entry?.encoding === 'runDelta') expect(payload.length).toBeLessThanOrEqual(0.7 * full);
        if (entry?.encoding === 'oldPages') expect(payload.length).toBeLessThanOrEqual(0.7 * bytes.length);
        expect([what, entry?.encoding]).toEqual([
          what,
          { edited: 'runDelta', shifted: 'oldPages', random: 'full', text: 'oldPages' }[what],
        ]);
        const never = codec.encode([{ block: 0, bytes, hash: blockHash(bytes), held }], {
          ...settings,
          deltaThreshold: 0,
        });
        expect(['pages', 'full']).toContain(readBatchHead(never.meta).entries[0]?.encoding);
      }
    });

    it('refuses a block whose held version is not the one the delta was made against, and writes nothing', () => {
      const old = randomBlock(5, 5);
      for (const variant of ['edited', 'shifted']) {
        const bytes = variants(old, 5)[variant]!;
        const { meta, payload } = codec.encode(
          [{ block: 3, bytes, hash: blockHash(bytes), held: { hash: blockHash(old), bytes: old } }],
          { compress: true, level: 3, delta: true, deltaThreshold: 0.7 },
        );
        const other = codec.decode(meta, payload, {
          sizeBytes: BLOCKS * BLOCK_SIZE_BYTES,
          blocks: new Map([[3, randomBlock(6, 6)]]),
        });
        expect([variant, other.refused, other.written.size]).toEqual([variant, [3], 0]);
      }
    });

    it('packs moved content with the old pages of all its piece, and refuses all of the piece where one of them is another', () => {
      const sizeBytes = BLOCKS * BLOCK_SIZE_BYTES;
      const held = Array.from({ length: 12 }, (_, block) => randomBlock(7, block));
      const blocks = held.map((old, block): BlockToEncode => {
        const bytes = variants(old, block).shifted!;
        return { block, bytes, hash: blockHash(bytes), held: { hash: blockHash(old), bytes: old } };
      });
      for (const [level, pieces] of [
        [1, 12],
        [3, 3],
        [9, 3],
      ] as const) {
        const { meta, payload } = codec.encode(blocks, { compress: true, level, delta: true, deltaThreshold: 0.7 });
        const head = readBatchHead(meta);
        expect([level, head.pieces, payload.length < 12 * 2_000]).toEqual([level, pieces, true]);
        const right = new Map(held.map((old, block) => [block, old]));
        expect(codec.decode(meta, payload, { sizeBytes, blocks: right }).written.size).toBe(12);
        // A page of it changed by one byte at the destination, and its hash with it.
        const other = Buffer.from(held[0]!);
        other.writeUInt8(other.readUInt8(70) ^ 1, 70);
        const { written, refused } = codec.decode(meta, payload, {
          sizeBytes,
          blocks: new Map([...right, [0, other]]),
        });
        expect([level, refused.length, written.size]).toEqual([level, 12 / pieces, 12 - 12 / pieces]);
      }
    });

    it('takes numbers apart only where that beats zstd, and puts them together bit for bit', () => {
      const sizeBytes = BLOCKS * BLOCK_SIZE_BYTES;
      const make = {
        float32: gaussian(4),
        bfloat16: gaussian(2),
        noise: (block: number) => randomBlock(3, block),
        text: (block: number) => textBlock(3, block),
      };
      const packings = Object.fromEntries(
        Object.entries(make).map(([name, content]) => {
          const blocks = Array.from(
            { length: 8 },
            (_, block): BlockToEncode => ({ block, bytes: content(block), hash: blockHash(content(block)) }),
          );
          const { meta, payload } = codec.encode(blocks, {
            compress: true,
            level: 3,
            delta: true,
            deltaThreshold: 0.7,
          });
          const { written } = codec.decode(meta, payload, { sizeBytes, blocks: new Map() });
          for (const { block, bytes } of blocks) expect(written.get(block)?.equals(bytes)).toBe(true);
          return [name, readBatchHead(meta).packing];
        }),
      );
      expect(packings).toEqual({ float32: 'numbers32', bfloat16: 'numbers16', noise: 'stored', text: 'zstd' });
    });

    it('takes hexadecimal text apart from level 3 on, which saves a tenth of rows with random identifiers, and no other text', () => {
      const sizeBytes = BLOCKS * BLOCK_SIZE_BYTES;
      const rows = (block: number): Buffer => {
        const noise = randomBlock(9, block);
        const lines = Array.from(
          { length: 900 },
          (_, row) =>
            `customer-${(row * 7919) % 5000},Basel,item ${row % 97},2023-11-${10 + (row % 20)},` +
            `${noise.toString('hex', row * 12, row * 12 + 12)}\n`,
        );
        return Buffer.from(lines.join('').padEnd(BLOCK_SIZE_BYTES, '.').slice(0, BLOCK_SIZE_BYTES), 'latin1');
      };
      const pack = (content: (block: number) => Buffer, level: number): { packing: string; bytes: number } => {
        const blocks = Array.from(
          { length: 8 },
          (_, block): BlockToEncode => ({ block, bytes: content(block), hash: blockHash(content(block)) }),
        );
        const { meta, payload } = codec.encode(blocks, { compress: true, level, delta: true, deltaThreshold: 0.7 });
        const { written } = codec.decode(meta, payload, { sizeBytes, blocks: new Map() });
        for (const { block, bytes } of blocks) expect(written.get(block)?.equals(bytes)).toBe(true);
        return { packing: readBatchHead(meta).packing, bytes: payload.length };
      };
      expect(pack(rows, 1).packing).toBe('zstd');
      expect(pack(rows, 3).packing).toBe('hex');
      expect(pack((block) => textBlock(3, block), 9).packing).toBe('zstd');
      expect([pack(rows, 10).packing, pack((block) => randomBlock(3, block), 10).packing]).toEqual(['hex', 'stored']);
      for (const content of [rows, (block: number) => textBlock(3, block)])
        expect(pack(content, 10).bytes).toBeLessThan(1.05 * pack(content, 9).bytes);
      const whole = Buffer.concat(Array.from({ length: 8 }, (_, block) => rows(block)));
      expect(pack(rows, 9).bytes).toBeLessThan(
        0.9 * new Packer().packedSize(whole, Buffer.alloc(compressBound(whole.length)), 9),
      );
    });

    it('meets bit flips, truncations and lying heads with a coded error or a refused block, never with wrong content', () => {
      const damage = fc.record({
        where: fc.constantFrom('meta', 'payload'),
        how: fc.constantFrom('flip', 'cut', 'grow', 'u32'),
        at: fc.nat(),
        value: fc.nat(0xffffffff),
      });
      // What takes time is to encode: each batch is damaged in several ways.
      const damages = fc.array(damage, { minLength: 8, maxLength: 16 });
      fc.assert(
        fc.property(caseArbitrary, damages, (given, ways) => {
          const { blocks, image } = build(given);
          const encoded = codec.encode(blocks, given.settings);
          const right = new Map(blocks.map(({ block, bytes }) => [block, bytes]));
          for (const { where, how, at, value } of ways) {
            const part = Buffer.from(encoded[where]);
            if (part.length === 0) continue;
            const place = at % part.length;
            if (how === 'flip') part[place] = part[place]! ^ (1 << (value % 8));
            if (how === 'u32' && part.length >= 4) part.writeUInt32BE(value, Math.min(place, part.length - 4));
            const changed =
              how === 'cut'
                ? part.subarray(0, place)
                : how === 'grow'
                  ? Buffer.concat([part, randomBlock(value, 0, 64)])
                  : part;
            try {
              const { written } = codec.decode(
                where === 'meta' ? changed : encoded.meta,
                where === 'payload' ? changed : encoded.payload,
                { sizeBytes: given.sizeBytes, blocks: new Map(image) },
              );
              // A flipped bit in a block number may move content that verifies under its own hash; what is written always is
              // content that some block of the batch really had.
              for (const [block, bytes] of written) {
                const may = where === 'payload' ? [right.get(block)!] : [...right.values()];
                expect(may.some((one) => one.equals(bytes))).toBe(true);
              }
            } catch (error) {
              expect(error).toBeInstanceOf(DwcpError);
              expect(['PROTOCOL_VIOLATION', 'FRAME_CORRUPT']).toContain((error as DwcpError).code);
            }
          }
        }),
        { numRuns: 60 },
      );
    });
  });
}
