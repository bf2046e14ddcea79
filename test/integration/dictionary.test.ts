/**
 * Dictionaries by VM type: trained on real pages, kept only where they gain, active on both sides before a frame is packed
 * with one, and never in the way of an equal image. The receiver that has lost its dictionary is forced by a stub: the real
 * one is handed every dictionary before it may be used.
 */
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { MockActivityEnvironment } from '@temporalio/testing';
import { createDictionaryActivities } from '../../activities';
import { type DictionaryKey, DictionaryStore } from '../../src/store/dictionaries';
import { CodecPool } from '../../src/sync/codec/codec-pool';
import { WorkingImage } from '../../src/sync/destination/working-image';
import { type TrainingReport, trainDictionary } from '../../src/sync/upkeep/train-dictionary';
import { randomBlock, sha256, temporaryFolder, writeImage } from '../helpers/data';
import { startHost, type TestHost } from '../helpers/hosts';
import { moveVm } from '../helpers/moves';
import { describeWhere, needsProgram } from '../helpers/needs';

const WEB: DictionaryKey = { of: 'tenants', name: 'acme', vmType: 'web' };
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
    const first = await trainDictionary(WEB, pages(600, recordPage), store, pool);
    expect([first.kept, first.version?.version, first.gain > 0.05]).toEqual([true, 1, true]);
    const again = await trainDictionary(WEB, Buffer.alloc(0), store, pool);
    expect([again.kept, (await store.list())[0]?.version]).toEqual([false, 1]);
    expect((await store.current(WEB))?.dictionary.hash).toBe(first.version?.hash);
  }, 60_000);

  it('is not kept where it gains nothing, nor made of too little', async () => {
    const store = new DictionaryStore(temporaryFolder());
    const noise = await trainDictionary(
      { ...WEB, vmType: 'noise' },
      pages(600, (seed) => randomBlock(seed, 0, PAGE)),
      store,
      pool,
    ).catch((error: unknown) => error as { code: string });
    // zstd itself may refuse to make one of noise.
    if ('code' in noise) expect(noise.code).toBe('ENCODER_FAILED');
    else expect([noise.kept, noise.reason]).toEqual([false, expect.stringContaining('less than 3 %')]);
    expect(await trainDictionary({ ...WEB, vmType: 'few' }, pages(10, recordPage), store, pool)).toMatchObject({
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
        tenant: 'acme',
      });
      await moveVm('m1', 'vm', a, b);
      await trainDictionary(WEB, pages(600, recordPage), b.source.dictionaries, pool);
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
      const { dictionary } = (await b.source.dictionaries.current(WEB))!;
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

    it.each([
      ['of another tenant', { tenant: 'other' }],
      ['of no tenant', { tenant: '' }],
    ])('is not used for a VM %s: it has pages of others in it', async (_, look) => {
      await b.registry.put({ ...(await b.registry.get('vm')), ...look });
      const [back] = await moveVm('m2', 'vm', b, a);
      expect(back!.counts.account.packings.dictionary).toBe(0);
      expect(existsSync(join(a.dataDir, 'dictionaries', 'received'))).toBe(false);
    });

    it('is trained for each tenant from its own VMs, and for a VM without one from that VM', async () => {
      const secrets = { first: 'of the first tenant', second: 'of the second one', alone: 'of nobody else' };
      const folder = temporaryFolder();
      const host = await startHost('c', join(folder, 'c'));
      for (const [vmId, secret] of Object.entries(secrets)) {
        const path = join(folder, `${vmId}.img`);
        const marked = pages(600, (seed) =>
          Buffer.from(recordPage(seed).toString('latin1').replaceAll('invoice', secret)).subarray(0, PAGE),
        );
        writeFileSync(path, marked);
        await host.registry.put({
          vmId,
          vmType: 'web',
          ...(vmId !== 'alone' && { tenant: vmId }),
          images: [{ imageId: 'vda', kind: 'disk', path }],
          presence: 'here',
          generation: 0,
        });
      }
      const { refreshDictionary } = createDictionaryActivities({
        judge: undefined,
        registry: host.registry,
        store: host.store,
        dictionaries: host.source.dictionaries,
        pool,
      });
      const reports: readonly TrainingReport[] = await new MockActivityEnvironment().run(refreshDictionary, {
        vmType: 'web',
      });
      const { uuid } = await host.registry.get('alone');
      expect(reports.map(({ of, name }) => `${of}/${name}`).sort()).toEqual([
        'tenants/first',
        'tenants/second',
        `vms/${uuid}`,
      ]);
      for (const [of, name, own] of [
        ['tenants', 'first', secrets.first],
        ['tenants', 'second', secrets.second],
        ['vms', uuid!, secrets.alone],
      ] as const) {
        const key = { of, name, vmType: 'web' };
        const samples = host.source.dictionaries.samplesFolder(key);
        const kept = (await host.source.dictionaries.current(key))?.dictionary.bytes ?? Buffer.alloc(0);
        const held = Buffer.concat([kept, ...readdirSync(samples).map((file) => readFileSync(join(samples, file)))]);
        expect(Object.values(secrets).filter((secret) => held.includes(secret))).toEqual([own]);
      }
    }, 60_000);

    it('is left alone where enableDictionary is off', async () => {
      const [back] = await moveVm('m2', 'vm', b, a, { enableDictionary: false });
      expect(back!.counts.account.packings.dictionary).toBe(0);
    });
  });
});
