/** The last round of a running guest's disk, when what it waits for will never come. */
import type { DiskPort } from '../../src/hypervisor/contract';
import { DwcpError } from '../../src/model/errors';
import { BLOCK_SIZE_BYTES } from '../../src/model/image';
import { LiveDisk } from '../../src/sync/guest/live-disk';

const BLOCKS = 1024;
const HOLES = [{ offset: 8 * BLOCK_SIZE_BYTES, length: (BLOCKS - 8) * BLOCK_SIZE_BYTES }];
const disk = (port: Partial<DiskPort>): LiveDisk =>
  new LiveDisk(
    { imageId: 'vda', kind: 'disk', path: '/vda', sizeBytes: BLOCKS * BLOCK_SIZE_BYTES },
    {
      read: () => Promise.resolve(),
      holes: () => Promise.resolve([]),
      nextRound: () => Promise.resolve([]),
      dirtyBytes: () => Promise.resolve(0),
      limitWrites: () => Promise.resolve(false),
      ...port,
    },
  );

test('ends with the reason when nothing is sent any more, though much is left that nobody has taken', async () => {
  const live = disk({});
  await live.beginScan(() => false);
  const sending = new AbortController();
  const last = live.lastRound(sending.signal);
  const broken = new DwcpError('SUPERSEDED', 'broken off');
  sending.abort(broken);
  await expect(last).rejects.toBe(broken);
});

test('ends with the reason behind a read that never comes back', async () => {
  const live = disk({ read: () => new Promise(() => undefined), holes: () => Promise.resolve(HOLES) });
  await live.beginScan(() => true);
  const sending = new AbortController();
  const last = live.lastRound(sending.signal);
  const broken = new DwcpError('SUPERSEDED', 'broken off');
  setTimeout(() => sending.abort(broken), 20);
  await expect(last).rejects.toBe(broken);
});

test('ends with what a read has failed with, since its transfer has ended with that', async () => {
  const live = disk({ read: () => Promise.reject(new DwcpError('IMAGE_UNREADABLE', 'the export is gone')) });
  await live.beginScan(() => false);
  const taken = live.feed.next(1)!;
  await expect(live.feed.load!(taken, Buffer.alloc(BLOCK_SIZE_BYTES))).rejects.toMatchObject({
    code: 'IMAGE_UNREADABLE',
  });
  await expect(live.lastRound()).rejects.toMatchObject({ code: 'IMAGE_UNREADABLE', message: 'the export is gone' });
});

test('reads all that is left and ends the feed where all goes well: the disk is not needed any more', async () => {
  const read: number[] = [];
  const live = disk({
    read: (offset, into) => Promise.resolve(void into.fill(1 + read.push(offset))),
    holes: () => Promise.resolve(HOLES),
  });
  await live.beginScan(() => true);
  await live.lastRound(new AbortController().signal);
  expect(live.feed.open).toBe(false);
  expect(read).toEqual(Array.from({ length: 8 }, (_, block) => block * BLOCK_SIZE_BYTES));
  const taken = live.feed.next(8)!;
  const bytes = Buffer.alloc(8 * BLOCK_SIZE_BYTES);
  await live.feed.load!(taken, bytes);
  expect(read).toHaveLength(8);
  for (let block = 0; block < 8; block += 1)
    expect(
      bytes
        .subarray(block * BLOCK_SIZE_BYTES)
        .subarray(0, BLOCK_SIZE_BYTES)
        .every((byte) => byte === block + 2),
    ).toBe(true);
});
