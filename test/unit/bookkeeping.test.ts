/** Memory for what sources bring: asked for before it is taken, bounded over all images, given back once. And nothing holds the event loop. */
import { blockCount, MAX_IMAGE_BYTES } from '../../src/model/image';
import { fillInSlices, inSlices } from '../../src/store/in-slices';
import { Bookkeeping, bookkeepingBytes } from '../../src/sync/destination/bookkeeping';

const image = (sizeBytes: number) => ({ imageId: 'vda', kind: 'disk' as const, sizeBytes });

test('is bounded over all, and given back once', () => {
  const memory = new Bookkeeping(100);
  const giveBack = memory.take(60, 'one');
  expect(() => memory.take(41, 'another')).toThrow(expect.objectContaining({ code: 'MEMORY_LIMIT' }) as Error);
  const other = memory.take(40, 'another');
  giveBack();
  giveBack();
  expect(memory.takenBytes).toBe(40);
  memory.take(60, 'a third');
  other();
  expect(() => memory.take(101, 'a giant')).toThrow(expect.objectContaining({ code: 'HOST_TOO_SMALL' }) as Error);
});

test('is counted by the block: 17 bytes, and 4 more where blocks come again', () => {
  expect(bookkeepingBytes(image(65_536), false)).toBe(17);
  expect(bookkeepingBytes(image(MAX_IMAGE_BYTES), true)).toBe(blockCount(MAX_IMAGE_BYTES) * 21);
});

test('stretches cover all, in order', async () => {
  const seen: number[][] = [];
  await inSlices(10, 4, (first, end) => seen.push([first, end]));
  expect(seen).toEqual([
    [0, 4],
    [4, 8],
    [8, 10],
  ]);
});

test('a loop over the marks of an image of 8 TiB lets others have their turn in between', async () => {
  const marks = new Uint8Array(new SharedArrayBuffer(blockCount(MAX_IMAGE_BYTES)));
  let turns = 0;
  const timer = setInterval(() => (turns += 1), 1);
  await fillInSlices(marks, 1);
  clearInterval(timer);
  expect([marks[0], marks.at(-1), turns > 3]).toEqual([1, 1, true]);
});
