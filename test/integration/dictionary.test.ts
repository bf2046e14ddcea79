/**
 * Dictionaries by VM type: trained on real pages, kept only where they gain, active on both sides before a frame is packed
 * with one, and never in the way of an equal image. The receiver that has lost its dictionary is forced by a stub: the real
 * one is handed every dictionary before it may be used.
 */
import { closeSync, mkdirSync, openSync, readdirSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { DictionaryStore } from '../../src/store/dictionaries';
import { CodecPool } from '../../src/sync/codec/codec-pool';
import { WorkingImage } from '../../src/sync/destination/working-image';
import { trainDictionary } from '../../src/sync/upkeep/train-dictionary';
import { randomBlock, sha256, temporaryFolder, writeImage } from '../helpers/data';
import { startHost, type TestHost } from '../helpers/hosts';
import { moveVm } from '../helpers/moves';
import { describeWhere, needsProgram } from '../helpers/needs';

const PAGE = 4096;
const SIZE = 8 * 1024 * 1024;

/** A page of records as an application writes them: words in common, values of its own. */
function recordPage(seed: number): Buffer {
  const noise = randomBlock(seed, 1, 512).toString('hex');
  const lines = Array.from(
    { length: 40 },
    (_, line) =>
      `{"id":${seed * 40 + line},"customer":"${noise.slice(line * 12, line * 12 + 8)}` +
      `","delivery-address":"Bahnhofstrasse ${line}, 8001 Zurich","payment":"invoice","state":"shipped","note":"` +
      `${noise.slice(line * 7, line * 7 + 6)}"}\n`,
  );
  return Buffer.from(lines.join('')).subarray(0, PAGE);
}

const pages = (count: number, make: (seed: number) => Buffer): Buffer =>
  Buffer.concat(Array.from({ length: count }, (_, seed) => make(seed)));

describeWhere([needsProgram('zstd', 'zstd')])('a dictionary', () => {
  let pool: CodecPool;
  beforeAll(() => (pool = new CodecPool(1)));
  afterAll(() => pool.close());

  it('is kept where it makes held-out pages smaller, and replaced only by a better one', async () => {
    const store = new DictionaryStore(temporaryFolder());
    const first = await trainDictionary('web', pages(600, recordPage), store, pool);
    expect([first.kept, first.version?.version, first.gain > 0.05]).toEqual([true, 1, true]);
    const again = await trainDictionary('web', Buffer.alloc(0), store, pool);
    expect([again.kept, (await store.list())[0]?.version]).toEqual([false, 1]);
    expect((await store.current('web'))?.dictionary.hash).toBe(first.version?.hash);
  }, 60_000);

  it('is not kept where it gains nothing, nor made of too little', async () => {
    const store = new DictionaryStore(temporaryFolder());
    const noise = await trainDictionary(
      'noise',
      pages(600, (seed) => randomBlock(seed, 0, PAGE)),
      store,
      pool,
    ).catch((error: unknown) => error as { code: string });
    // zstd itself may refuse to make one of noise.
    if ('code' in noise) expect(noise.code).toBe('ENCODER_FAILED');
    else expect([noise.kept, noise.reason]).toEqual([false, expect.stringContaining('less than 3 %')]);
    expect(await trainDictionary('few', pages(10, recordPage), store, pool)).toMatchObject({
      kept: false,
      reason: '10 pages are too few to train on; 256 are needed',
    });
    expect(await store.list()).toEqual([]);
  }, 60_000);

  describe('between two hosts', () => {
    let a: TestHost;
    let b: TestHost;
    let disk: string;
    const onB = (): string => join(b.dataDir, 'images', 'vm', 'vda.img');

    beforeEach(async () => {
      const folder = temporaryFolder();
      [a, b] = [await startHost('a', join(folder, 'a')), await startHost('b', join(folder, 'b'))];
      mkdirSync(join(folder, 'vm'));
      disk = join(folder, 'vm', 'disk.img');
      writeImage(disk, SIZE, 3);
      await a.registry.put({
        vmId: 'vm',
        images: [{ imageId: 'vda', kind: 'disk', path: disk }],
        presence: 'here',
        generation: 0,
      });
      await moveVm('m1', 'vm', a, b);
      await trainDictionary('web', pages(600, recordPage), b.source.dictionaries, pool);
      await b.registry.put({ ...(await b.registry.get('vm')), vmType: 'web' });
      const file = openSync(onB(), 'r+');
      // Far apart: each frame has a single page.
      for (let at = 0; at < SIZE; at += SIZE / 2) writeSync(file, recordPage(5000 + at), 0, PAGE, at + 3 * PAGE);
      closeSync(file);
    });

    it('goes to the destination once, and serves small frames', async () => {
      const changed = sha256(onB());
      const [back] = await moveVm('m2', 'vm', b, a);
      expect(sha256(disk)).toBe(changed);
      expect(back!.counts.account.packings.dictionary).toBeGreaterThan(0);
      expect(back!.counts.refusedBlocks).toBe(0);
      expect(readdirSync(join(a.dataDir, 'dictionaries', 'received'))).toHaveLength(1);
    });

    it('that the destination holds damaged is sent anew', async () => {
      const { dictionary } = (await b.source.dictionaries.current('web'))!;
      mkdirSync(join(a.dataDir, 'dictionaries', 'received'), { recursive: true });
      writeFileSync(
        join(a.dataDir, 'dictionaries', 'received', `${dictionary.hash}.dict`),
        Buffer.concat([dictionary.bytes.subarray(1), Buffer.from([1])]),
      );
      const changed = sha256(onB());
      const [back] = await moveVm('m2', 'vm', b, a);
      expect([sha256(disk), back!.counts.refusedBlocks]).toEqual([changed, 0]);
      expect(back!.counts.account.packings.dictionary).toBeGreaterThan(0);
    });

    it('that the destination lacks costs a plain resend, counted', async () => {
      const stub = jest.spyOn(WorkingImage.prototype, 'unpacksWith').mockImplementation(() => undefined);
      try {
        const changed = sha256(onB());
        const [back] = await moveVm('m2', 'vm', b, a);
        expect(sha256(disk)).toBe(changed);
        expect(back!.counts.refusedBlocks).toBeGreaterThan(0);
      } finally {
        stub.mockRestore();
      }
    });

    it('is left alone where enableDictionary is off', async () => {
      const [back] = await moveVm('m2', 'vm', b, a, { enableDictionary: false });
      expect(back!.counts.account.packings.dictionary).toBe(0);
    });
  });
});
