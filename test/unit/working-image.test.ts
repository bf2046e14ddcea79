/**
 * The working image of a destination over crashes of its agent: what it says it holds is what its file holds, whatever was
 * written and not journalled yet. A crash is played by copying its folder while it is open.
 */
import { execFileSync } from 'node:child_process';
import { closeSync, cpSync, openSync, readFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { blockHash } from '../../src/encoder/hash';
import { DwcpError } from '../../src/model/errors';
import { BLOCK_SIZE_BYTES, type ImageSpec } from '../../src/model/image';
import { BaselineStore, baselinePathOf, workPathOf } from '../../src/store/baselines';
import { BlockJournal, STRETCH_BLOCKS } from '../../src/store/block-journal';
import { CodecPool } from '../../src/sync/codec/codec-pool';
import { ImageMode } from '../../src/sync/destination/image-mode';
import { WorkingImage } from '../../src/sync/destination/working-image';
import { batchOf } from '../helpers/batches';
import { randomBlock, temporaryFolder } from '../helpers/data';

const OWNER = { tenant: 'acme', uuid: '6a2f41a3-c54c-4ce8-92b1-3d1b1e0f3a10' };

const DISK: ImageSpec = { imageId: 'vda', kind: 'disk', sizeBytes: (STRETCH_BLOCKS + 8) * BLOCK_SIZE_BYTES };
const [X, Y, Z] = [randomBlock(1, 1), randomBlock(1, 2), randomBlock(1, 3)];
const pool = new CodecPool(1);

afterAll(() => pool.close());

const open = new Set<WorkingImage>();

async function opened(folder: string, live = true): Promise<WorkingImage> {
  const image = await WorkingImage.open(
    {
      migrationId: 'm1',
      vmId: 'vm',
      image: DISK,
      imagePath: join(folder, 'disk.img'),
      journalPath: join(folder, 'vda.journal'),
      startFrom: 'baseline',
      owner: OWNER,
      live,
    },
    new BaselineStore(folder),
    pool,
  );
  open.add(image);
  return image;
}

afterEach(async () => {
  for (const image of open) await image.close();
  open.clear();
});

/** As if the agent had been killed just now: what it had not written stays unwritten. */
function crashed(folder: string): string {
  const copy = temporaryFolder();
  execFileSync('cp', ['-a', '--sparse=always', `${folder}/.`, copy]);
  return copy;
}

/** Blocks that the journal in a folder promises just now. */
async function promised(folder: string): Promise<number[]> {
  const blocks: number[] = [];
  const copy = join(temporaryFolder(), 'journal');
  cpSync(join(folder, 'vda.journal'), copy);
  await (await BlockJournal.open(copy, ({ block }) => blocks.push(block)))?.close();
  return blocks;
}

async function untilPromised(folder: string, count: number): Promise<void> {
  for (const deadline = Date.now() + 10_000; (await promised(folder)).length < count; ) {
    if (Date.now() > deadline) throw new Error('never journalled');
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

const contentOf = (folder: string, block: number): Buffer =>
  readFileSync(workPathOf(join(folder, 'disk.img'))).subarray(block * BLOCK_SIZE_BYTES, (block + 1) * BLOCK_SIZE_BYTES);

describe('after a crash of the agent', () => {
  it.each([
    ['a running guest', true],
    ['a stopped one', false],
  ])(
    'a block of %s that was overwritten and not journalled again is what the file holds, not what the journal had said',
    async (_whose, live) => {
      const folder = temporaryFolder();
      const image = await opened(folder, live);
      await image.take(batchOf(1, { 0: X, 1: X }));
      await untilPromised(folder, 2);
      await image.take(batchOf(2, { 0: Y }));
      const after = crashed(folder);
      expect(contentOf(after, 0).equals(Y)).toBe(true);
      const again = await opened(after, live);
      expect([
        again.state,
        again.held.hashOf(0).equals(blockHash(Y)),
        again.held.hashOf(1).equals(blockHash(X)),
      ]).toEqual(['resumed', true, true]);
    },
  );

  it('what was written once is still known without reading it, also while the guest rewrites other stretches', async () => {
    const folder = temporaryFolder();
    const image = await opened(folder);
    await image.take(batchOf(1, { 0: X, [STRETCH_BLOCKS]: X }));
    await untilPromised(folder, 2);
    await image.take(batchOf(2, { 0: Y }));
    expect(await promised(folder)).toEqual([STRETCH_BLOCKS]);
  });

  it('and a second crash changes nothing of that', async () => {
    const folder = temporaryFolder();
    const image = await opened(folder);
    await image.take(batchOf(1, { 0: X }));
    await untilPromised(folder, 1);
    await image.take(batchOf(2, { 0: Y }));
    const after = crashed(folder);
    const again = await opened(after);
    await again.take(batchOf(1, { 0: Z }));
    expect((await opened(crashed(after))).held.hashOf(0).equals(blockHash(Z))).toBe(true);
  });

  it('a journal whose working file has become the baseline promises nothing of what has become of that', async () => {
    const folder = temporaryFolder();
    const [content, journal] = [baselinePathOf(join(folder, 'disk.img')), join(folder, 'vda.journal')];
    const first = await opened(folder);
    await first.keepAsBaseline(1);
    const second = await opened(folder);
    await second.take(batchOf(1, { 0: X }));
    await second.finish(second.held.root());
    cpSync(journal, `${journal}.kept`);
    await second.keepAsBaseline(2);
    // As it lay there before: the crash came first. The content has been sealed since, or written to.
    cpSync(`${journal}.kept`, journal);
    const file = openSync(content, 'r+');
    writeSync(file, Y, 0, Y.length, 0);
    closeSync(file);
    expect((await opened(folder)).held.hashOf(0).equals(blockHash(Y))).toBe(true);
  });

  it('a block that comes twice with the same content stays promised', async () => {
    const folder = temporaryFolder();
    const image = await opened(folder, false);
    await image.take(batchOf(1, { 0: X }));
    await untilPromised(folder, 1);
    await image.take(batchOf(2, { 0: X }));
    expect(new Set(await promised(folder))).toEqual(new Set([0]));
  });
});

describe('a batch that comes late', () => {
  it('is as good as taken in where all of it is here, and is refused where it is not, once the image is complete', async () => {
    const image = await opened(temporaryFolder(), false);
    await image.take(batchOf(1, { 0: X, 1: Y }));
    await image.finish(image.held.root());
    expect(await image.take(batchOf(2, { 0: X }))).toEqual([]);
    await expect(image.take(batchOf(3, { 0: X, 1: Z }))).rejects.toMatchObject({ code: 'SUPERSEDED' });
  });

  it('likewise once it is closed; of a running guest also where a newer version is here', async () => {
    const image = await opened(temporaryFolder());
    await image.take(batchOf(5, { 0: X }));
    await image.close();
    expect(await image.take(batchOf(6, { 0: X }))).toEqual([]);
    expect(await image.take(batchOf(4, { 0: Y }))).toEqual([]);
    await expect(image.take(batchOf(7, { 0: Y }))).rejects.toMatchObject({ code: 'SUPERSEDED' });
    await expect(image.finish('f'.repeat(64))).rejects.toMatchObject({ code: 'SUPERSEDED' });
  });

  it('is not late any more when the source has begun anew: then it is written, and the image has to be compared again', async () => {
    const folder = temporaryFolder();
    const image = await opened(folder, false);
    await image.take(batchOf(1, { 0: X }));
    await image.finish(image.held.root());
    await image.beginPass();
    await image.take(batchOf(2, { 0: Z }));
    expect([image.verifiedRoot, contentOf(folder, 0).equals(Z)]).toEqual([undefined, true]);
  });
});

describe('what a working image is at', () => {
  const differs = (): Promise<void> => Promise.reject(new Error('other root'));
  const isEqual = (): Promise<void> => Promise.resolve();

  it('goes from one step to those that may follow, and throws for any other', async () => {
    const mode = new ImageMode('vda');
    await expect(mode.comparing('r1', differs)).rejects.toThrow('other root');
    expect([mode.step, mode.verifiedRoot]).toEqual(['receiving', undefined]);
    await mode.comparing('r1', isEqual);
    expect([mode.step, mode.verifiedRoot]).toEqual(['verified', 'r1']);
    expect(() => mode.verified('r1')).toThrow('image vda cannot go from "verified" to "verified"');
    await expect(mode.comparing('r2', differs)).rejects.toThrow('other root');
    expect([mode.step, mode.verifiedRoot]).toEqual(['verified', 'r1']);
    expect([mode.receiveAgain(), mode.receiveAgain()]).toEqual([true, false]);
    await mode.comparing('r3', isEqual);
    expect([await mode.close(), await mode.close(), mode.verifiedRoot]).toEqual([true, false, 'r3']);
    await expect(mode.comparing('r3', isEqual)).rejects.toMatchObject({ code: 'SUPERSEDED' });
    expect(() => mode.verified('r3')).toThrow('from "closed"');
  });

  it('is not verified behind a failure, whatever the hashes say, and closed only when nothing compares', async () => {
    const failed = new ImageMode('vda');
    failed.fail(new DwcpError('DISK_FULL', 'no room'));
    await expect(failed.comparing('r1', isEqual)).rejects.toMatchObject({ code: 'DISK_FULL' });
    expect(() => failed.verified('r1')).toThrow('from "failed"');

    const mode = new ImageMode('vda');
    let end = (): void => undefined;
    const comparing = mode.comparing('r1', () => new Promise((resolve) => (end = resolve)));
    const closed = mode.close();
    expect(mode.step).toBe('comparing');
    end();
    await Promise.all([comparing, closed]);
    expect([mode.step, mode.verifiedRoot]).toEqual(['closed', 'r1']);
  });
});
