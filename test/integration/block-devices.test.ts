/**
 * Disks that are block devices, at either end of a move: they arrive as they were, bit by bit, go on from there when they move back,
 * and are never made, renamed, removed or overwritten without a word. Loop devices stand for LVM volumes and zvols.
 */
import { execFileSync } from 'node:child_process';
import { closeSync, existsSync, fsyncSync, openSync, readdirSync, rmSync, symlinkSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { ScanFeed } from '../../src/sync/feeds/block-feed';
import { deltaHitRate } from '../../src/sync/source/image-results';
import { keepBaselineCopy } from '../../src/sync/upkeep/baseline-copy';
import { randomBlock, sha256, temporaryFolder, writeImage } from '../helpers/data';
import { startHost, type TestHost } from '../helpers/hosts';
import { LoopDevice, needsLoopDevices } from '../helpers/loop-device';
import { handOver, moveVm, type Placing, prepareMove, sendImage } from '../helpers/moves';
import { describeWhere } from '../helpers/needs';
import { until } from '../helpers/waiting';

const BLOCK = 65_536;
const SIZE = 128 * BLOCK;
const MISSING = '/dev/dwcp-test-none';

describeWhere([needsLoopDevices()])('a disk that is a block device', () => {
  interface Lab {
    readonly folder: string;
    readonly a: TestHost;
    readonly b: TestHost;
    /** At host b, whose configuration lets disks be put on it. */
    readonly device: LoopDevice;
  }

  async function lab({ deviceBytes = SIZE }: { readonly deviceBytes?: number } = {}): Promise<Lab> {
    const folder = temporaryFolder();
    const device = new LoopDevice(deviceBytes);
    const a = await startHost('a', join(folder, 'a'));
    const b = await startHost('b', join(folder, 'b'), { imageRoots: `${device.path},${MISSING}` });
    return { folder, a, b, device };
  }

  async function define(host: TestHost, path: string): Promise<void> {
    await host.registry.put({
      vmId: 'vm',
      images: [{ imageId: 'vda', kind: 'disk', path }],
      presence: 'here',
      generation: 0,
    });
  }

  async function withFile(
    size = SIZE,
    deviceBytes = SIZE,
  ): Promise<Lab & { readonly disk: string; readonly map: Placing }> {
    const here = await lab({ deviceBytes });
    const disk = join(here.folder, 'disk.img');
    writeImage(disk, size, 1);
    await define(here.a, disk);
    return { ...here, disk, map: { diskMap: `vda=${here.device.path}` } };
  }

  const onB = ({ b }: Pick<Lab, 'b'>): string => b.registry.ownPlace('vm', 'vda');

  async function keepCopy(host: TestHost): Promise<string> {
    const [image] = (await host.registry.get('vm')).images;
    const { kept } = await keepBaselineCopy(
      { vmId: 'vm', imageId: 'vda', imagePath: image!.path, besidePath: host.registry.copyPlace('vm', image!) },
      'auto',
      host.store,
      host.source.pool,
      new AbortController().signal,
    );
    return kept;
  }

  /** As a guest does: a few bytes in every eighth block. */
  function edit(path: string, seed: number): void {
    const fd = openSync(path, 'r+');
    for (let at = seed * 4096; at < SIZE; at += 8 * BLOCK) writeSync(fd, Buffer.from(`edit ${seed} ${at}`), 0, 10, at);
    fsyncSync(fd);
    closeSync(fd);
  }

  function expectNothingBeside(device: LoopDevice): void {
    device.expectThere();
    expect(readdirSync('/dev').filter((name) => name.includes('dwcp'))).toEqual([]);
  }

  test('moves into a file, and back onto itself: equal both times, and hits on the way back', async () => {
    const here = await lab();
    const { a, b } = here;
    const source = new LoopDevice(SIZE);
    const image = join(here.folder, 'content');
    writeImage(image, SIZE, 1);
    source.fill(image);
    await define(a, source.path);
    await moveVm('m1', 'vm', a, b);
    expect(sha256(onB(here))).toBe(sha256(image));
    expectNothingBeside(source);
    expect(source.sha256(SIZE)).toBe(sha256(image));
    expect(await keepCopy(b)).not.toBe('no');
    edit(onB(here), 3);
    const changed = sha256(onB(here));
    const [back] = await moveVm('m2', 'vm', b, a);
    expect(source.sha256(SIZE)).toBe(changed);
    expectNothingBeside(source);
    expect(back!.began).toBe('baseline');
    expect(deltaHitRate(back!.counts)).toBeGreaterThanOrEqual(0.97);
    expect(back!.counts.account.blocks.runDelta).toBeGreaterThan(0);
  });

  test.each([
    ['as large', SIZE],
    ['larger', SIZE + 5 * BLOCK],
  ])('takes a file’s content, the device %s, and gives it back', async (_, deviceBytes) => {
    const here = await withFile(SIZE, deviceBytes);
    const { a, b, device, disk, map } = here;
    const content = sha256(disk);
    await moveVm('m1', 'vm', a, b, map);
    expect(device.sha256(SIZE)).toBe(content);
    expect((await b.registry.get('vm')).images).toEqual([
      { imageId: 'vda', kind: 'disk', path: device.path, sizeBytes: SIZE },
    ]);
    expect(existsSync(onB(here))).toBe(false);
    expect(await keepCopy(b)).toBe('copy');
    edit(device.path, 4);
    const changed = device.sha256(SIZE);
    const [back] = await moveVm('m2', 'vm', b, a);
    expect(sha256(disk)).toBe(changed);
    expect(deltaHitRate(back!.counts)).toBeGreaterThanOrEqual(0.97);
    expect(back!.counts.account.blocks.runDelta).toBeGreaterThan(0);
    // There again, without a map: it has its place, and what it has left there is an earlier copy of its own.
    edit(disk, 5);
    const again = sha256(disk);
    const [there] = await moveVm('m3', 'vm', a, b);
    expect(device.sha256(SIZE)).toBe(again);
    expect(there!.began).toBe('baseline');
    expect(deltaHitRate(there!.counts)).toBeGreaterThanOrEqual(0.97);
    expectNothingBeside(device);
  });

  describe('is refused before anything is promised', () => {
    const refusal = async (here: Lab, placing: Placing): Promise<unknown> =>
      prepareMove('m1', 'vm', here.a, here.b, placing).then(
        () => 'nothing refused',
        (error: unknown) => error,
      );

    test('where the host’s configuration does not name it, whatever it is', async () => {
      const here = await withFile();
      const other = new LoopDevice(SIZE);
      for (const path of [other.path, '/dev/null', `${here.device.path}p1`, '/etc/passwd', `${here.folder}/x.img`])
        expect(await refusal(here, { diskMap: `vda=${path}`, overwriteDisks: true })).toMatchObject({
          code: 'PLACE_REFUSED',
          message: expect.stringMatching(/imageRoots/) as string,
        });
    });

    test('where it holds something, until that is given up by a word; then nothing of it is left', async () => {
      const here = await withFile();
      const { device, map, a, b, disk } = here;
      device.write(0, Buffer.alloc(SIZE, randomBlock(9, 0)));
      const before = device.sha256(SIZE);
      expect(await refusal(here, map)).toMatchObject({
        code: 'PLACE_REFUSED',
        message: expect.stringMatching(/no earlier copy.*not overwritten/) as string,
      });
      expect(device.sha256(SIZE)).toBe(before);
      const content = sha256(disk);
      const move = await prepareMove('m1', 'vm', a, b, { ...map, overwriteDisks: true });
      // Of what is going to be written over nobody learns the hashes.
      const { held, isBlank } = await (await b.hub.incoming.get('m1')).images.image('vda');
      expect([isBlank, held.hashes.every((byte) => byte === 0xff)]).toEqual([false, true]);
      await handOver(move, [await sendImage(move, 'vda')]);
      expect(device.sha256(SIZE)).toBe(content);
    });

    test('where it is in use, not there, or another VM’s', async () => {
      const here = await withFile();
      const { device, map, b } = here;
      execFileSync('mkfs.ext4', ['-q', '-F', device.path]);
      const at = temporaryFolder();
      execFileSync('mount', [device.path, at]);
      try {
        expect(await refusal(here, { ...map, overwriteDisks: true })).toMatchObject({
          code: 'PLACE_REFUSED',
          message: expect.stringContaining('in use') as string,
        });
      } finally {
        execFileSync('umount', [at]);
      }
      // By another name.
      const link = '/dev/dwcp-test-link';
      symlinkSync(device.path, link);
      try {
        await b.registry.put({
          vmId: 'other',
          images: [{ imageId: 'vda', kind: 'disk', path: link }],
          presence: 'here',
          generation: 0,
        });
        expect(await refusal(here, { ...map, overwriteDisks: true })).toMatchObject({
          code: 'PLACE_REFUSED',
          message: expect.stringContaining('VM other') as string,
        });
      } finally {
        rmSync(link);
      }
      await b.registry.remove('other');
      expect(await refusal(here, { diskMap: `vda=${MISSING}` })).toMatchObject({
        code: 'PLACE_REFUSED',
        message: expect.stringContaining('no block device') as string,
        hint: expect.stringContaining(String(SIZE)) as string,
      });
    });

    test('where it is too small', async () => {
      const small = await withFile(SIZE, SIZE - BLOCK);
      expect(await refusal(small, small.map)).toMatchObject({
        code: 'PLACE_REFUSED',
        message: expect.stringContaining(String(SIZE)) as string,
      });
    });

    test('where the map names no disk of the VM', async () => {
      const here = await withFile();
      expect(await refusal(here, { diskMap: `vdb=${here.device.path}` })).toMatchObject({
        code: 'INVALID_INPUT',
        message: expect.stringContaining('vda') as string,
      });
    });
  });

  test('what a look does not find is found before a byte is written', async () => {
    const here = await withFile(4 * SIZE, 4 * SIZE);
    const { a, b, device, map } = here;
    // In none of the blocks that are looked at ahead.
    const hidden = randomBlock(8, 1, 512);
    device.write(301 * BLOCK + 4096, hidden);
    const before = device.sha256(4 * SIZE);
    const move = await prepareMove('m1', 'vm', a, b, map);
    await expect(sendImage(move, 'vda')).rejects.toMatchObject({ code: 'PLACE_REFUSED' });
    expect(device.sha256(4 * SIZE)).toBe(before);
    await b.hub.abandon('m1', 'vm', move.fence);
    expect(device.sha256(4 * SIZE)).toBe(before);
    expect(await b.store.list()).toEqual([]);
  });

  test('a transfer that is broken off goes on, through a restart; given up, the next needs no word and sends the rest', async () => {
    const here = await withFile(4 * SIZE, 4 * SIZE);
    const { a, device, disk, map } = here;
    const content = sha256(disk);
    const stop = new AbortController();
    const move = await prepareMove('m1', 'vm', a, here.b, map);
    const sending = sendImage(move, 'vda', { bandwidthLimit: 1_000_000 }, stop.signal);
    sending.catch(() => undefined);
    const nothing = new LoopDevice(4 * SIZE).sha256(4 * SIZE);
    await until(60_000, 'something on the device', () => device.sha256(4 * SIZE) !== nothing);
    stop.abort(new Error('enough'));
    await expect(sending).rejects.toBeDefined();
    await a.sources.close('m1');
    await here.b.close();
    const b = await startHost('b', here.b.dataDir, { port: here.b.options.port, imageRoots: device.path });
    const resumed = await sendImage({ ...move, destination: b }, 'vda', {}, AbortSignal.timeout(60_000));
    expect(resumed.began).toBe('resumed');
    expect(resumed.counts.unchangedBlocks).toBeGreaterThan(0);
    expect(device.sha256(4 * SIZE)).toBe(content);
    await b.hub.abandon('m1', 'vm', move.fence);
    await a.sourceOwnership.rollBack('vm', 'm1', { destinationAbandoned: true });
    expect(await b.store.list()).toEqual([expect.objectContaining({ inPlace: device.path })]);
    const [next] = await moveVm('m2', 'vm', a, b, map);
    expect(next!.began).toBe('baseline');
    expect(next!.counts.unchangedBlocks).toBeGreaterThan(0);
    expect(device.sha256(4 * SIZE)).toBe(content);
  });

  test('what the VM has left is not overwritten any more once somebody else has used the device', async () => {
    const here = await lab();
    const source = new LoopDevice(SIZE);
    const image = join(here.folder, 'content');
    writeImage(image, SIZE, 1);
    source.fill(image);
    await define(here.a, source.path);
    await moveVm('m1', 'vm', here.a, here.b);
    source.write(0, randomBlock(7, 0));
    await expect(prepareMove('m2', 'vm', here.b, here.a)).rejects.toMatchObject({ code: 'PLACE_REFUSED' });
    await here.b.sourceOwnership.rollBack('vm', 'm2');
    await moveVm('m3', 'vm', here.b, here.a, { diskMap: 'vda=file' });
    expect(sha256(here.a.registry.ownPlace('vm', 'vda'))).toBe(sha256(image));
  });

  test('a source that is mounted, or written to while it is read, is not taken for one state', async () => {
    const here = await lab();
    const source = new LoopDevice(SIZE);
    execFileSync('mkfs.ext4', ['-q', '-F', source.path]);
    await define(here.a, source.path);
    const at = temporaryFolder();
    execFileSync('mount', [source.path, at]);
    try {
      await expect(here.a.sourceOwnership.claim('vm', 'm1')).rejects.toMatchObject({
        code: 'VM_RUNNING',
        message: expect.stringContaining('mounted') as string,
      });
    } finally {
      execFileSync('umount', [at]);
    }
    source.write(0, Buffer.alloc(SIZE, randomBlock(6, 0)));
    const { path, sizeBytes } = (await here.a.sourceOwnership.claim('vm', 'm1')).images[0]!;
    const feed = await ScanFeed.open(path, sizeBytes);
    feed.assertUnchanged();
    source.sha256(SIZE);
    feed.assertUnchanged();
    source.write(SIZE - BLOCK, randomBlock(6, 1));
    expect(() => feed.assertUnchanged()).toThrow(/was written to while it was being read/);
    await feed.close();
  });
});
