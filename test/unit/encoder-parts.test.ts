/** The parts of the encoder: hashes, zero detection, run deltas, page patches, the level rule. */
import fc from 'fast-check';
import { BatchEncoder, encodedBound } from '../../src/encoder/batch-encoder';
import { blockHash, manifestRoot, ZERO_HASH } from '../../src/encoder/hash';
import { HexSplit, hexSplitBound } from '../../src/encoder/hex-split';
import { LevelController } from '../../src/encoder/level-controller';
import {
  applyPages,
  bitmapBytes,
  differingPages,
  differingPagesByHash,
  gatherPages,
  writePageHashes,
} from '../../src/encoder/page-patch';
import { applyRunDelta, encodeRunDelta } from '../../src/encoder/run-delta';
import { isZero } from '../../src/encoder/zero';
import { randomBlock } from '../helpers/data';

const edits = fc.array(
  fc.record({ at: fc.nat(65_535), value: fc.nat(255), length: fc.integer({ min: 1, max: 300 }) }),
  { maxLength: 40 },
);

function edited(old: Buffer, changes: readonly { at: number; value: number; length: number }[]): Buffer {
  const now = Buffer.from(old);
  for (const { at, value, length } of changes) now.fill(value, at, Math.min(now.length, at + length));
  return now;
}

describe('zeros', () => {
  it('are told from everything else, wherever the first other byte is', () => {
    expect(isZero(Buffer.alloc(65_536))).toBe(true);
    expect(isZero(Buffer.alloc(0))).toBe(true);
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 700_000 }), fc.nat(), (length, at) => {
        const bytes = Buffer.alloc(length);
        bytes[at % length] = 1;
        expect(isZero(bytes)).toBe(false);
      }),
      { numRuns: 30 },
    );
  });

  it('have the zero hash, and nothing else has', () => {
    expect(blockHash(Buffer.alloc(4096)).equals(ZERO_HASH)).toBe(true);
    expect(blockHash(randomBlock(1, 1)).equals(ZERO_HASH)).toBe(false);
  });
});

describe('hexadecimal text taken apart', () => {
  const digits = (alphabet: string) =>
    fc.array(fc.constantFrom(...alphabet.split('')), { minLength: 1, maxLength: 80 }).map((all) => all.join(''));
  const text = fc
    .array(
      fc.oneof(
        digits('0123456789abcdef'),
        digits('0123456789ABCDEF'),
        digits('0123456789'),
        digits('0aF'),
        fc.string({ maxLength: 20 }),
        fc.constant('\0'.repeat(300)),
      ),
      { maxLength: 30 },
    )
    .map((parts) => Buffer.from(parts.join(''), 'utf8'));
  const splitOf = (bytes: Buffer): Buffer => {
    const out = Buffer.alloc(hexSplitBound(bytes.length));
    return out.subarray(0, new HexSplit().split(bytes, out));
  };

  it('comes together again byte for byte, and is never longer than its bound', () => {
    fc.assert(
      fc.property(text, (bytes) => {
        const back = Buffer.alloc(bytes.length, 1);
        expect(new HexSplit().join(splitOf(bytes), back)).toBe(true);
        expect(back.equals(bytes)).toBe(true);
      }),
      { numRuns: 500 },
    );
  });

  it('takes half the room for digits, of either case', () => {
    const bytes = Buffer.from('0123456789abcdef'.repeat(64) + 'FEDCBA9876543210'.repeat(64), 'latin1');
    expect(splitOf(bytes).length).toBeLessThan(bytes.length / 2 + 20);
    expect(new HexSplit().shareOf(bytes)).toBe(1);
    expect(new HexSplit().shareOf(Buffer.from('deadbeef, cafe and 1234567890', 'latin1'))).toBe(0);
  });

  it('says so where it was cut or is of another length', () => {
    fc.assert(
      fc.property(text, fc.integer({ min: 1, max: 40 }), (bytes, cut) => {
        const split = splitOf(bytes);
        const short = split.subarray(0, Math.max(0, split.length - cut));
        expect(new HexSplit().join(short, Buffer.alloc(bytes.length))).toBe(false);
        expect(new HexSplit().join(split, Buffer.alloc(bytes.length + 1))).toBe(false);
      }),
      { numRuns: 500 },
    );
  });

  it('damaged writes nothing outside, and leaves no byte as it was where it says that it is whole', () => {
    const joined = (split: Buffer, bytes: number, fill: number): Buffer | undefined => {
      const memory = Buffer.alloc(bytes + 200, fill);
      const isWhole = new HexSplit().join(split, memory.subarray(100, 100 + bytes));
      for (const outside of [memory.subarray(0, 100), memory.subarray(100 + bytes)])
        expect(outside.every((byte) => byte === fill)).toBe(true);
      return isWhole ? memory.subarray(100, 100 + bytes) : undefined;
    };
    fc.assert(
      fc.property(text, fc.nat(), fc.nat(255), (bytes, at, value) => {
        const split = Buffer.from(splitOf(bytes));
        split[at % split.length] = value;
        expect(joined(split, bytes.length, 1)).toEqual(joined(split, bytes.length, 2));
      }),
      { numRuns: 500 },
    );
  });
});

describe('manifest root', () => {
  it('depends on every hash, on their order and on the size', () => {
    const [a, b] = [blockHash(randomBlock(1, 1)), blockHash(randomBlock(1, 2))];
    const roots = [Buffer.concat([a, b]), Buffer.concat([b, a]), Buffer.concat([a, a])].map((hashes) =>
      manifestRoot(hashes, 131_072, 65_536),
    );
    roots.push(manifestRoot(Buffer.concat([a, b]), 131_071, 65_536));
    expect(new Set(roots).size).toBe(4);
  });
});

describe('run delta', () => {
  it('is the exact inverse for any edits', () => {
    fc.assert(
      fc.property(edits, (changes) => {
        const old = randomBlock(1, 1);
        const now = edited(old, changes);
        const out = Buffer.alloc(70_000);
        const end = encodeRunDelta(old, now, out, 0, out.length);
        expect(end).toBeGreaterThanOrEqual(0);
        const block = Buffer.from(old);
        expect(applyRunDelta(out.subarray(0, end), block)).toBe(true);
        expect(block.equals(now)).toBe(true);
      }),
      { numRuns: 60 },
    );
  });

  it('says that it would be too long instead of writing past its limit', () => {
    const out = Buffer.alloc(1000);
    expect(encodeRunDelta(randomBlock(1, 1), randomBlock(1, 2), out, 0, 500)).toBe(-1);
    expect(out.subarray(500).every((byte) => byte === 0)).toBe(true);
  });

  it('refuses a delta that is cut in a word, or goes on behind the end of its block', () => {
    fc.assert(
      fc.property(edits, fc.integer({ min: 1, max: 3 }), (changes, cut) => {
        const old = randomBlock(1, 1);
        const out = Buffer.alloc(70_000);
        const delta = out.subarray(0, encodeRunDelta(old, edited(old, changes), out, 0, out.length));
        if (delta.length > 0)
          expect(applyRunDelta(delta.subarray(0, delta.length - cut), Buffer.from(old))).toBe(false);
        // One word more, behind as many that stay as the block has.
        const further = Buffer.concat([delta, Buffer.from([0x80, 0x80, 0x01, 1, 9, 9, 9, 9])]);
        expect(applyRunDelta(further, Buffer.from(old))).toBe(false);
      }),
      { numRuns: 60 },
    );
  });

  it('never writes outside the block, whatever it is given', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 400 }), (bytes) => {
        const memory = Buffer.alloc(8192, 7);
        applyRunDelta(Buffer.from(bytes), memory.subarray(2048, 6144));
        expect(memory.subarray(0, 2048).every((byte) => byte === 7)).toBe(true);
        expect(memory.subarray(6144).every((byte) => byte === 7)).toBe(true);
      }),
      { numRuns: 300 },
    );
  });
});

describe('page patch', () => {
  it('finds the same pages by bytes and by hashes, and is the exact inverse', () => {
    fc.assert(
      fc.property(edits, fc.constantFrom(65_536, 61_000, 4096, 1), (changes, length) => {
        const old = randomBlock(2, 2, length);
        const now = edited(old, changes);
        const hashes = Buffer.alloc(128);
        writePageHashes(old, hashes, 0);
        const bitmap = differingPages(old, now);
        expect(differingPagesByHash(hashes, 0, now)).toBe(bitmap);
        const out = Buffer.alloc(65_536);
        const end = gatherPages(now, bitmap, out, 0);
        expect(end).toBe(bitmapBytes(bitmap, length));
        const block = Buffer.from(old);
        expect(applyPages(out.subarray(0, end), bitmap, block)).toBe(true);
        expect(block.equals(now)).toBe(true);
      }),
      { numRuns: 60 },
    );
  });

  it('refuses pages that the block does not have, and lengths that do not fit', () => {
    expect(applyPages(Buffer.alloc(4096), 1 << 3, Buffer.alloc(4096))).toBe(false);
    expect(applyPages(Buffer.alloc(4095), 1, Buffer.alloc(4096))).toBe(false);
  });
});

describe('level rule', () => {
  function settled(controller: LevelController, goodput: number): number {
    let level = controller.level;
    for (let step = 0; step < 50; step += 1) level = controller.choose(goodput);
    return level;
  }

  it('compresses hardest on a slow link and hardly on a fast one', () => {
    expect(settled(new LevelController(9, 2), 1e6)).toBe(9);
    expect(settled(new LevelController(9, 2), 1e9)).toBe(-5);
  });

  it('never passes the tier’s highest level', () => {
    expect(settled(new LevelController(3, 8), 1e5)).toBe(3);
    expect(settled(new LevelController(1, 8), 1e5)).toBe(1);
  });

  it('finds the level that the processors can really do from what comes out of them', () => {
    const controller = new LevelController(9, 2);
    const before = settled(controller, 20e6);
    // A tenth of what the table promises at each level: the host is busy with something else.
    for (let step = 0; step < 50; step += 1) {
      controller.calibrate({ [-5]: 60e6, [-1]: 50e6, 1: 45e6, 3: 30e6, 6: 12e6, 9: 7e6 }[controller.level] ?? 0);
      controller.choose(20e6);
    }
    // Level 1: 22 ns a byte of processor; -1: 20 of either.
    expect([before, controller.level]).toEqual([9, -1]);
  });

  it('takes the costliest rung from the one below it alone, or at once where the link was measured before', () => {
    const controller = new LevelController(10, 2);
    expect([controller.choose(1e6), controller.choose(1e6)]).toEqual([9, 10]);
    expect(new LevelController(10, 2).choose(1e6, 2, 'at once')).toBe(10);
  });

  it('packs harder than its table says while far ahead of the link, and less hard again once it is not', () => {
    const controller = new LevelController(10, 2);
    const before = settled(controller, 60e6);
    for (let step = 0; step < 30; step += 1) {
      controller.press('far ahead');
      controller.choose(60e6);
    }
    const ahead = controller.level;
    for (let step = 0; step < 6; step += 1) {
      controller.press('behind');
      controller.choose(60e6);
    }
    expect([before < ahead, controller.level]).toEqual([true, before]);
  });

  it('leaves guests their processors: with less of the host idle it packs less hard, and says why', () => {
    const controller = new LevelController(9, 8);
    let level = 0;
    for (let step = 0; step < 50; step += 1) level = controller.choose(20e6, 8);
    const free = level;
    for (let step = 0; step < 50; step += 1) level = controller.choose(20e6, 0.25);
    expect(level).toBeLessThan(free);
    expect(controller.reason).toMatch(/^a megabyte takes the link [\d.]+ ms and 0\.3 processors [\d.]+ ms/);
  });

  it('steps down when the processor turns out slower than its table says', () => {
    const controller = new LevelController(9, 2);
    const before = settled(controller, 8e6);
    for (let sample = 0; sample < 100; sample += 1)
      controller.observe({
        level: controller.level,
        gatheredBytes: 262_144,
        payloadBytes: 90_000,
        packMs: 80,
        otherMs: 1,
      });
    expect(settled(controller, 8e6)).toBeLessThan(before);
  });
});

test('behind a batch that does not compress a sample decides: what compresses again is packed at once', () => {
  const encoder = new BatchEncoder();
  const out = Buffer.alloc(encodedBound(8));
  const noise = Array.from({ length: 8 }, (_, block) => randomBlock(1, block));
  const text = Array.from({ length: 8 }, (_, block) =>
    Buffer.alloc(65_536, `line ${block} of a log that goes on and on\n`),
  );
  const encode = (blocks: readonly Buffer[], level: number) =>
    encoder.encode(
      1,
      blocks.map((bytes, block) => ({ block, bytes, hash: blockHash(bytes) })),
      { compress: true, level, delta: true, deltaThreshold: 0.7 },
      out,
    );
  expect(encode(noise, 9).packing).toBe('stored');
  const tried = encode(text, 3);
  expect([tried.packing, tried.payloadBytes < 100_000]).toEqual(['zstd', true]);
  encode(noise, 9);
  const [first, ...others] = [encode(noise, 9), encode(noise, 9), encode(noise, 9)];
  expect(
    [first, ...others].every(({ packing, payloadBytes }) => packing === 'stored' && payloadBytes === 8 * 65_536),
  ).toBe(true);
  expect(encode([...text.slice(0, 4), ...noise.slice(0, 4)], 3).packing).toBe('zstd');
});
