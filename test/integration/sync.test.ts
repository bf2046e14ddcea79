/**
 * The sync between two hosts over real sockets and real files: what arrives is what was sent, what is held is not sent
 * again, what is torn or tampered with is found.
 */
import { closeSync, existsSync, openSync, readdirSync, readFileSync, statSync, truncateSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { namedBlocks } from '../../src/encoder/batch-format';
import { WorkingImage } from '../../src/sync/destination/working-image';
import { keepBaselineCopy } from '../../src/sync/upkeep/baseline-copy';
import { changeImage, randomBlock, sha256, temporaryFolder } from '../helpers/data';
import { BLOCK, diskLab, expectDeltasOnTheWayBack, type Lab, none, onB, SIZE } from '../helpers/disk-lab';
import { startHost } from '../helpers/hosts';
import { handOver, type Move, moveVm, prepareMove, sendImage } from '../helpers/moves';

/** One byte in each block of an image. */
function changeEveryBlock(path: string): void {
  const file = openSync(path, 'r+');
  for (let at = 100; at < SIZE; at += BLOCK) writeSync(file, Buffer.from([1 + (at % 251)]), 0, 1, at);
  closeSync(file);
}

describe('sync', () => {
  it('refuses to start a host whose migrations are to go out from an address that it does not have', async () => {
    const starting = startHost('a', join(temporaryFolder(), 'a'), { sourceAddresses: '127.0.0.1, 192.0.2.7' });
    await expect(starting).rejects.toMatchObject({
      code: 'CONFIG_INVALID',
      message: expect.stringContaining('192.0.2.7') as string,
    });
  });

  it('makes the destination’s image equal, sparse where the source is, with no working file left', async () => {
    const here = await diskLab();
    const before = sha256(here.disk);
    const [sent] = await moveVm('m1', 'vm', here.a, here.b);
    expect(sha256(onB(here))).toBe(before);
    expect(statSync(onB(here)).blocks * 512).toBeLessThan(SIZE * 0.8);
    expect(sent!.linkBytes).toBeLessThan(SIZE * 0.5);
    expect(sent!.counts.zeroBlocks).toBeGreaterThan(0);
    expect(readdirSync(join(here.b.dataDir, 'images', 'vm'))).toEqual(['vda.img']);
    expect(existsSync(here.disk)).toBe(false);
    expect(existsSync(`${here.disk}.dwcp-baseline`)).toBe(true);
  });

  it('shows nothing at the image’s own place before it is complete and verified', async () => {
    const here = await diskLab();
    const move = await prepareMove('m1', 'vm', here.a, here.b);
    await sendImage(move, 'vda');
    expect(existsSync(onB(here))).toBe(false);
    expect(existsSync(`${onB(here)}.dwcp-work`)).toBe(true);
  });

  it('sends an unchanged image back for next to nothing', async () => {
    const here = await diskLab();
    await moveVm('m1', 'vm', here.a, here.b);
    const [back] = await moveVm('m2', 'vm', here.b, here.a);
    expect(back!.linkBytes).toBeLessThan(SIZE / 1000);
    expect(back!.counts.verifiedBlocks).toBe(0);
    expect(sha256(here.disk)).toBe(sha256(`${onB(here)}.dwcp-baseline`));
  });

  it('sends only what changed back onto the baseline, pages of blocks that changed in part', async () => {
    const here = await diskLab();
    await moveVm('m1', 'vm', here.a, here.b);
    changeImage(onB(here), SIZE, 3);
    const changed = sha256(onB(here));
    const [back] = await moveVm('m2', 'vm', here.b, here.a);
    expect(sha256(here.disk)).toBe(changed);
    expect(back!.counts.account.blocks.pages).toBeGreaterThan(0);
    expect(back!.counts.unchangedBlocks).toBeGreaterThan(200);
    expect(SIZE / back!.linkBytes).toBeGreaterThan(10);
  });

  it('sends deltas against the copy that was kept beside the VM', async () => {
    await expectDeltasOnTheWayBack(await diskLab());
  });

  it('finds a copy that does not hold what its record says, and makes no delta against it', async () => {
    const here = await diskLab();
    await moveVm('m1', 'vm', here.a, here.b);
    await keepBaselineCopy(
      { vmId: 'vm', imageId: 'vda', imagePath: onB(here) },
      'auto',
      here.b.store,
      here.b.source.pool,
      none,
    );
    // The copy claims the old content and has some of the new: deltas against it leave out what the destination lacks.
    changeImage(`${onB(here)}.dwcp-baseline`, SIZE, 3);
    changeImage(onB(here), SIZE, 3);
    changeEveryBlock(onB(here));
    const changed = sha256(onB(here));
    const [back] = await moveVm('m2', 'vm', here.b, here.a);
    expect(sha256(here.disk)).toBe(changed);
    expect(back!.counts.refusedBlocks).toBe(0);
    expect(back!.counts.account.blocks.pages).toBeGreaterThan(0);
  });

  it('finds a baseline that was tampered with, and mends it', async () => {
    const here = await diskLab();
    await moveVm('m1', 'vm', here.a, here.b);
    const baseline = openSync(`${here.disk}.dwcp-baseline`, 'r+');
    writeSync(baseline, Buffer.from('tampered'), 0, 8, 5 * BLOCK + 77);
    closeSync(baseline);
    await moveVm('m2', 'vm', here.b, here.a);
    expect(sha256(here.disk)).toBe(sha256(`${onB(here)}.dwcp-baseline`));
  });

  it('takes nothing from the baseline where enableDeltaSync is off', async () => {
    const here = await diskLab();
    await moveVm('m1', 'vm', here.a, here.b);
    const [back] = await moveVm('m2', 'vm', here.b, here.a, { enableDeltaSync: false });
    expect(back!.began).toBe('empty');
    expect(back!.counts.unchangedBlocks).toBe(0);
    expect(sha256(here.disk)).toBe(sha256(`${onB(here)}.dwcp-baseline`));
  });

  it('follows an image that has grown or shrunk since the baseline', async () => {
    const here = await diskLab();
    await moveVm('m1', 'vm', here.a, here.b);
    for (const [id, size] of [
      ['m2', SIZE + 5 * BLOCK + 9],
      ['m3', SIZE - 7 * BLOCK],
    ] as const) {
      const from = id === 'm2' ? onB(here) : here.disk;
      truncateSync(from, size);
      const content = sha256(from);
      await (id === 'm2' ? moveVm(id, 'vm', here.b, here.a) : moveVm(id, 'vm', here.a, here.b));
      expect(sha256(id === 'm2' ? here.disk : onB(here))).toBe(content);
    }
  });

  it('refuses an image that is written to while it is read, and moves it once that has stopped', async () => {
    const here = await diskLab();
    const move = await prepareMove('m1', 'vm', here.a, here.b);
    const sending = sendImage(move, 'vda', { bandwidthLimit: 10e6 });
    setTimeout(() => {
      const fd = openSync(here.disk, 'r+');
      writeSync(fd, randomBlock(9, 9), 0, BLOCK, 0);
      closeSync(fd);
    }, 150);
    await expect(sending).rejects.toMatchObject({ code: 'IMAGE_CHANGED', side: 'source' });
    const sent = await sendImage(move, 'vda');
    const content = sha256(here.disk);
    await handOver(move, [sent]);
    expect(sha256(onB(here))).toBe(content);
  });
});

/** Starts sending slowly and stops in the middle, as a source agent that goes away. */
async function interrupted(move: Move, afterMs: number): Promise<void> {
  const stopping = new AbortController();
  const sending = sendImage(move, 'vda', { bandwidthLimit: 4e6 }, stopping.signal);
  setTimeout(() => stopping.abort(new Error('stopped')), afterMs);
  await expect(sending).rejects.toThrow('stopped');
  await move.source.sources.close(move.migrationId);
}

const RECORD_BYTES = 24;
const journalOf = (here: Lab): string => join(here.b.dataDir, 'incoming', 'm1', 'vda.journal');

/** Blocks that the journal promises, in the order of its records. */
function journalled(here: Lab): number[] {
  const journal = readFileSync(journalOf(here));
  const start = 20 + journal.readUInt32BE(8);
  return Array.from({ length: Math.floor((journal.length - start) / RECORD_BYTES) }, (_, index) =>
    journal.readUInt32BE(start + index * RECORD_BYTES),
  );
}

/** What comes in from now on: blocks that were sent, and those of them that had been verified and written before. */
function watchBatches(): { readonly sent: Set<number>; readonly sentAgain: number[] } {
  const [sent, here, sentAgain] = [new Set<number>(), new Set<number>(), [] as number[]];
  const take = WorkingImage.prototype.take;
  jest.spyOn(WorkingImage.prototype, 'take').mockImplementation(async function (this: WorkingImage, frame) {
    const blocks = namedBlocks(frame.meta).map(({ block }) => block);
    for (const block of blocks) sent.add(block);
    sentAgain.push(...blocks.filter((block) => here.has(block)));
    const refused = await take.call(this, frame);
    for (const block of blocks) if (!refused.includes(block)) here.add(block);
    return refused;
  });
  return { sent, sentAgain };
}

afterEach(() => jest.restoreAllMocks());

describe('resume', () => {
  it('sends nothing again that is durable, after the destination has lost its memory', async () => {
    const here = await diskLab();
    const content = sha256(here.disk);
    const move = await prepareMove('m1', 'vm', here.a, here.b);
    await interrupted(move, 1500);
    await here.b.close();
    const durable = journalled(here);
    expect(durable.length).toBeGreaterThan(10);
    const b = await startHost('b', here.b.dataDir);
    const batches = watchBatches();
    const sent = await sendImage({ ...move, destination: b }, 'vda');
    expect(sent.began).toBe('resumed');
    expect(durable.filter((block) => batches.sent.has(block))).toEqual([]);
    expect(sent.counts.unchangedBlocks).toBeGreaterThanOrEqual(durable.length);
    expect(sent.counts.verifiedBlocks + sent.counts.unchangedBlocks + sent.counts.zeroBlocks).toBe(
      Math.ceil(SIZE / BLOCK),
    );
    await handOver({ ...move, destination: b }, [sent]);
    expect(sha256(onB(here))).toBe(content);
  });

  it('goes on over a cut of the link without sending verified blocks again', async () => {
    const here = await diskLab();
    const content = sha256(here.disk);
    const move = await prepareMove('m1', 'vm', here.a, here.b);
    const batches = watchBatches();
    const sending = sendImage(move, 'vda', { bandwidthLimit: 6e6 });
    const sentBefore: number[] = [];
    for (const at of [400, 900, 1300])
      setTimeout(() => {
        sentBefore.push(batches.sent.size);
        here.b.dropConnections();
      }, at);
    const sent = await sending;
    expect(sent.resumes).toBeGreaterThanOrEqual(1);
    expect(Math.max(...sentBefore)).toBeGreaterThan(10);
    expect(batches.sentAgain).toEqual([]);
    await handOver(move, [sent]);
    expect(sha256(onB(here))).toBe(content);
  });

  it('of blocks that had come and were not in the journal yet finds the torn one, and sends that again and not the others', async () => {
    const here = await diskLab();
    const content = sha256(here.disk);
    const move = await prepareMove('m1', 'vm', here.a, here.b);
    await interrupted(move, 1000);
    await here.b.close();
    const [torn, ...whole] = journalled(here).slice(-4);
    // As a crash leaves it: the last batch is in the file, but for half a block, and the journal does not say so.
    truncateSync(journalOf(here), statSync(journalOf(here)).size - 4 * RECORD_BYTES);
    const promised = journalled(here);
    expect(promised.length).toBeGreaterThan(10);
    const work = openSync(`${onB(here)}.dwcp-work`, 'r+');
    writeSync(work, Buffer.alloc(BLOCK / 2), 0, BLOCK / 2, (torn ?? 0) * BLOCK + BLOCK / 2);
    closeSync(work);
    const b = await startHost('b', here.b.dataDir);
    const batches = watchBatches();
    const sent = await sendImage({ ...move, destination: b }, 'vda');
    expect(sent.began).toBe('resumed');
    expect([torn, ...whole, ...promised].filter((block) => batches.sent.has(block ?? -1))).toEqual([torn]);
    await handOver({ ...move, destination: b }, [sent]);
    expect(sha256(onB(here))).toBe(content);
  });
});
