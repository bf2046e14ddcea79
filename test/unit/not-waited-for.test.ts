/**
 * Work that nobody waits for (timers, questions asked in passing, callbacks of others): a fault in it costs what it was for,
 * and never the agent's process, with all the migrations in it.
 */
import { MockActivityEnvironment } from '@temporalio/testing';
import { withHeartbeat } from '../../activities/heartbeat';
import type { DwcpError } from '../../src/model/errors';
import { BLOCK_SIZE_BYTES } from '../../src/model/image';
import { HEARTBEAT_TICK_MS } from '../../src/model/timing';
import { Manifest } from '../../src/store/manifest';
import { CodecPool } from '../../src/sync/codec/codec-pool';
import type { BlockFeed } from '../../src/sync/feeds/block-feed';
import { FeedLag } from '../../src/sync/guest/destination-lag';
import { noCounts } from '../../src/sync/source/batch-counts';
import { BatchSource } from '../../src/sync/source/batch-source';
import type { SendingSession } from '../../src/transport/sending-session';
import { Slab } from '../../src/transport/slab';

const unheard: unknown[] = [];
const hear = (error: unknown): void => void unheard.push(error);
beforeAll(() => process.on('unhandledRejection', hear).on('uncaughtException', hear));
afterAll(() => process.off('unhandledRejection', hear).off('uncaughtException', hear));

afterEach(async () => {
  await new Promise((resolve) => setTimeout(resolve, 20));
  expect(unheard.splice(0)).toEqual([]);
});

describe('how far the destination’s QEMU is behind', () => {
  const session = (request: () => Promise<unknown>): SendingSession =>
    ({ control: { request } }) as unknown as SendingSession;

  it.each([
    ['is not answered', (): Promise<unknown> => Promise.reject(new Error('gone'))],
    [
      'cannot even be asked',
      (): Promise<unknown> => {
        throw new Error('closed');
      },
    ],
    ['is answered with something else', (): Promise<unknown> => Promise.resolve({ body: { bytes: 'many' } })],
  ])('counts as far where it %s, and is asked again', async (_what, request) => {
    const lag = new FeedLag();
    lag.ask(session(request));
    await new Promise((resolve) => setTimeout(resolve, 5));
    expect(lag.isSmall).toBe(false);
    lag.ask(session(() => Promise.resolve({ body: { bytes: 0 } })));
    await new Promise((resolve) => setTimeout(resolve, 5));
    expect(lag.isSmall).toBe(true);
  });
});

describe('a heartbeat', () => {
  it('goes on with what was said last where what is to be said cannot be found out', async () => {
    const env = new MockActivityEnvironment();
    const beats: unknown[] = [];
    env.on('heartbeat', (details: unknown) => beats.push(details));
    let asked = 0;
    const details = (): unknown => {
      asked += 1;
      if (asked > 1) throw new Error('no such image');
      return { done: 1 };
    };
    await env.run(() =>
      withHeartbeat(details, () => new Promise((resolve) => setTimeout(resolve, 1.5 * HEARTBEAT_TICK_MS))),
    );
    expect(beats).toEqual([{ done: 1 }, { done: 1 }]);
  });

  it('is given, and the work done, where nothing can be said from the beginning', async () => {
    const env = new MockActivityEnvironment();
    const beats: unknown[] = [];
    env.on('heartbeat', (given: unknown) => beats.push(given));
    const details = (): unknown => {
      throw new Error('no such image');
    };
    expect(await env.run(() => withHeartbeat(details, () => Promise.resolve('done')))).toBe('done');
    expect(beats).toEqual([{ doing: expect.stringContaining('no such image') as string }]);
  });
});

it('a feed that fails when it has more ends its transfer', async () => {
  const pool = new CodecPool(1);
  const manifest = new Manifest(BLOCK_SIZE_BYTES);
  let more: () => void = () => undefined;
  const feed: BlockFeed = {
    file: { fd: -1, sizeBytes: BLOCK_SIZE_BYTES },
    remaining: 1,
    open: true,
    restart: () => undefined,
    onMore: (handler) => (more = handler),
    next: () => {
      throw new Error('no bitmap');
    },
  };
  const source = new BatchSource(
    [{ imageNumber: 0, feed, source: manifest, held: manifest, counts: noCounts(), scanned: () => undefined }],
    {
      pool,
      slab: new Slab(2 ** 20),
      settings: () => ({ compress: false, level: 0, delta: false, deltaThreshold: 1 }),
      batchBlocks: () => 1,
      askPageHashes: () => Promise.resolve({ hashes: new Uint8Array(), key: new Uint8Array() }),
      encoded: () => undefined,
    },
    1,
  );
  const failed = new Promise<DwcpError>((resolve) => source.onFailure(resolve));
  more();
  await expect(failed).resolves.toMatchObject({ code: 'INTERNAL', message: 'no bitmap' });
  await pool.close();
});
