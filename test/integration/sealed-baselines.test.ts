/**
 * Baselines under a key: what a host keeps of VMs that are away says nothing without it, and serves as before with it,
 * through crashes, lost keys and keys that were changed.
 */
import { chmodSync, existsSync, openSync, readFileSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { SealingKey } from '../../src/store/sealing-key';
import { sealBlocks } from '../../src/sync/upkeep/baseline-sealer';
import { verifyBaseline } from '../../src/sync/upkeep/verify-baseline';
import { sha256, temporaryFolder } from '../helpers/data';
import { BLOCK, diskLab, expectDeltasOnTheWayBack, type Lab, onB, SIZE } from '../helpers/disk-lab';
import { startHost, type TestHost } from '../helpers/hosts';
import { moveVm } from '../helpers/moves';

function keyFile(folder: string, name: string, fill: number): string {
  const path = join(folder, name);
  writeFileSync(path, Buffer.alloc(32, fill).toString('hex'), { mode: 0o600 });
  return path;
}

async function lab(): Promise<Lab & { readonly key: string }> {
  const folder = temporaryFolder();
  const key = keyFile(folder, 'key', 7);
  return { ...(await diskLab({ folder, onA: { baselineKeyFile: key }, onB: { baselineKeyFile: key } })), key };
}

async function whenSealed({ store }: TestHost): Promise<void> {
  for (let tries = 0; tries < 500; tries += 1) {
    if ((await store.open('vm', 'vda'))?.record.seal?.complete === true) return;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  throw new Error('the baseline was not sealed');
}

async function verdictOf({ store, source }: TestHost): Promise<string> {
  const baseline = await store.open('vm', 'vda');
  return baseline ? (await verifyBaseline(baseline, store.accessTo(baseline.record), source.pool)).state : 'none';
}

/** Blocks with content that a file holds as they are in another. */
function blocksInCommon(path: string, other: string): number {
  const [one, two] = [readFileSync(path), readFileSync(other)];
  let common = 0;
  for (let at = 0; at < one.length; at += BLOCK) {
    const block = one.subarray(at, at + BLOCK);
    if (block.some((byte) => byte !== 0) && block.equals(two.subarray(at, at + BLOCK))) common += 1;
  }
  return common;
}

describe('baselines under a key', () => {
  it('hold no block of the image as it was, stay sparse, and take the VM back for next to nothing', async () => {
    const here = await lab();
    await moveVm('m1', 'vm', here.a, here.b);
    await whenSealed(here.a);
    expect(blocksInCommon(`${here.disk}.dwcp-baseline`, onB(here))).toBe(0);
    const [record] = await here.a.store.list();
    expect(record!.allocatedBytes).toBeLessThan(SIZE * 0.8);
    expect(await verdictOf(here.a)).toBe('whole');
    const before = sha256(onB(here));
    const [back] = await moveVm('m2', 'vm', here.b, here.a);
    expect(back!.linkBytes).toBeLessThan(SIZE / 1000);
    expect(sha256(here.disk)).toBe(before);
  });

  it('serve as old bytes for deltas', async () => {
    const here = await lab();
    await expectDeltasOnTheWayBack(here, async () => {
      await whenSealed(here.b);
      expect(blocksInCommon(`${onB(here)}.dwcp-baseline`, onB(here))).toBe(0);
    });
  });

  it('are sealed to the end after a crash in the middle, and damage is still found', async () => {
    const here = await lab();
    const before = sha256(here.disk);
    await here.a.close();
    const plain = await startHost('a', join(here.folder, 'a'));
    await moveVm('m1', 'vm', plain, here.b);
    // As a crash leaves it: the record says sealed in part, and half of the blocks are.
    const { record, manifest } = (await plain.store.open('vm', 'vda'))!;
    const key = SealingKey.read(here.key)!;
    const seal = key.newSeal();
    const stop = new AbortController();
    const file = openSync(`${here.disk}.dwcp-baseline`, 'r+');
    const pool = {
      run: (job: Parameters<typeof plain.source.pool.run>[0]) => (stop.abort(), plain.source.pool.run(job)),
    };
    await sealBlocks(pool as never, file, manifest, { cipher: key.cipherOf(seal), into: 'sealed' }, stop.signal);
    await plain.store.setSeal(record, seal);
    await plain.close();
    expect(blocksInCommon(`${here.disk}.dwcp-baseline`, onB(here))).toBeGreaterThan(0);

    const a = await startHost('a', join(here.folder, 'a'), { baselineKeyFile: here.key });
    await whenSealed(a);
    expect(blocksInCommon(`${here.disk}.dwcp-baseline`, onB(here))).toBe(0);
    expect(await verdictOf(a)).toBe('whole');
    writeSync(file, Buffer.from('tampered'), 0, 8, 5 * BLOCK + 77);
    expect(await verdictOf(a)).toBe('damaged');
    const [back] = await moveVm('m2', 'vm', here.b, a);
    expect(sha256(here.disk)).toBe(before);
    expect(back!.counts.verifiedBlocks).toBeGreaterThan(0);
  });

  it.each([
    ['no key', undefined],
    ['another key', 9],
  ])('are of no use, and no harm, to a host that was given %s', async (_, fill) => {
    const here = await lab();
    const before = sha256(here.disk);
    await moveVm('m1', 'vm', here.a, here.b);
    await whenSealed(here.a);
    await here.a.close();
    const a = await startHost(
      'a',
      join(here.folder, 'a'),
      fill === undefined ? {} : { baselineKeyFile: keyFile(here.folder, 'other', fill) },
    );
    expect(await verdictOf(a)).toBe('locked');
    expect(existsSync(`${here.disk}.dwcp-baseline`)).toBe(true);
    const [back] = await moveVm('m2', 'vm', here.b, a);
    expect(sha256(here.disk)).toBe(before);
    expect(back!.counts.verifiedBlocks).toBeGreaterThan(50);
  });

  it('take no key that others may read, nor one of another length', async () => {
    const folder = temporaryFolder();
    const path = keyFile(folder, 'key', 7);
    chmodSync(path, 0o644);
    await expect(startHost('a', join(folder, 'a'), { baselineKeyFile: path })).rejects.toMatchObject({
      code: 'CONFIG_INVALID',
      message: expect.stringContaining('chmod 600') as string,
    });
    writeFileSync(path, 'too short');
    chmodSync(path, 0o600);
    await expect(startHost('a', join(folder, 'a'), { baselineKeyFile: path })).rejects.toMatchObject({
      code: 'CONFIG_INVALID',
      message: expect.stringContaining('openssl rand -hex 32') as string,
    });
    await expect(startHost('a', join(folder, 'a'), { baselineKeyFile: join(folder, 'none') })).rejects.toMatchObject({
      code: 'CONFIG_INVALID',
    });
  });
});
