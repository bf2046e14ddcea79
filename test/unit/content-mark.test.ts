/** The mark of a file: equal where both hosts have the same, another where what is looked at differs, and of a large file little is read. */
import { randomBytes } from 'node:crypto';
import {
  closeSync,
  copyFileSync,
  openSync,
  readSync,
  truncateSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import * as fc from 'fast-check';
import { BLOCK_SIZE_BYTES, blockCount } from '../../src/model/image';
import { MIB } from '../../src/model/units';
import { CodecPool } from '../../src/sync/codec/codec-pool';
import { contentMark, MARKED_WHOLE_BYTES, markedBlocks } from '../../src/sync/codec/content-mark';
import { temporaryFolder } from '../helpers/data';

const KEY = Buffer.alloc(32, 7);
const pool = new CodecPool(1);
afterAll(() => pool.close());

function writeAt(path: string, at: number, text: string): void {
  const fd = openSync(path, 'r+');
  writeSync(fd, text, at);
  closeSync(fd);
}

test.each([0, 1, 4096, BLOCK_SIZE_BYTES, 5 * MIB + 1])(
  'a copy of %i bytes has the same, any other content not',
  async (size) => {
    const folder = temporaryFolder();
    const [file, copy] = [join(folder, 'file'), join(folder, 'copy')];
    writeFileSync(file, randomBytes(size));
    copyFileSync(file, copy);
    utimesSync(copy, 1, 1);
    const mark = await contentMark(file, KEY, pool);
    expect(mark).toMatchObject({ sizeBytes: size });
    expect(await contentMark(copy, KEY, pool)).toEqual(mark);
    expect((await contentMark(copy, randomBytes(32), pool))?.mark).not.toBe(mark?.mark);
    for (const at of [...new Set([0, Math.floor(size / 2), size - 1])].filter((each) => each >= 0 && each < size)) {
      copyFileSync(file, copy);
      const fd = openSync(copy, 'r+');
      const byte = Buffer.alloc(1, 0xff);
      writeSync(fd, byte, 0, 1, at);
      closeSync(fd);
      const same = (await contentMark(copy, KEY, pool))?.mark === mark?.mark;
      const unchanged = (await contentMark(file, KEY, pool))?.mark === mark?.mark;
      expect([same, unchanged]).toEqual([byteAt(file, at) === 0xff, true]);
    }
    truncateSync(copy, size + 1);
    expect((await contentMark(copy, KEY, pool))?.mark).not.toBe(mark?.mark);
  },
);

function byteAt(path: string, at: number): number {
  const fd = openSync(path, 'r');
  const byte = Buffer.alloc(1);
  readSync(fd, byte, 0, 1, at);
  closeSync(fd);
  return byte[0]!;
}

test('of terabytes a few megabytes are read, and its ends are seen', async () => {
  const file = join(temporaryFolder(), 'thin');
  writeFileSync(file, '');
  truncateSync(file, 4 * 2 ** 40);
  const empty = await contentMark(file, KEY, pool);
  for (const at of [0, 4 * MIB - 1, 4 * 2 ** 40 - 4 * MIB, 4 * 2 ** 40 - 1]) {
    writeAt(file, at, 'x');
    const other = await contentMark(file, KEY, pool);
    expect(other?.mark).not.toBe(empty?.mark);
    writeAt(file, at, '\0');
    expect(await contentMark(file, KEY, pool)).toEqual(empty);
  }
});

test('which blocks are looked at: all of a small file, few of a large one, everywhere in it, others with another key', () => {
  const small = fc.integer({ min: 0, max: MARKED_WHOLE_BYTES });
  fc.assert(fc.property(small, (size) => markedBlocks(size, KEY).length === blockCount(size)));
  const large = fc.tuple(
    fc.integer({ min: MARKED_WHOLE_BYTES + 1, max: 2 ** 45 }),
    fc.uint8Array({ minLength: 32, maxLength: 32 }),
  );
  fc.assert(
    fc.property(large, ([size, key]) => {
      const blocks = markedBlocks(size, Buffer.from(key));
      const count = blockCount(size);
      expect(blocks.length).toBeLessThanOrEqual(256);
      expect(blocks).toEqual([...new Set(blocks)].sort((a, b) => a - b));
      expect([blocks[0], blocks.at(-1)]).toEqual([0, count - 1]);
      for (let stretch = 0; stretch < 128; stretch += 1) {
        const [first, end] = [stretch, stretch + 1].map((each) => Math.floor((each * count) / 128)) as [number, number];
        expect(blocks.some((block) => block >= first && block < end)).toBe(true);
      }
    }),
  );
  expect(markedBlocks(2 ** 40, KEY)).not.toEqual(markedBlocks(2 ** 40, Buffer.alloc(32, 8)));
});

test('what is no ordinary file has none', async () => {
  expect(await contentMark(join(temporaryFolder(), 'none'), KEY, pool)).toBeUndefined();
  await expect(contentMark('/dev/zero', KEY, pool)).rejects.toThrow('no ordinary file');
  await expect(contentMark(temporaryFolder(), KEY, pool)).rejects.toThrow('no ordinary file');
});
