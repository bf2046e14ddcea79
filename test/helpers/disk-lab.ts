/** Two hosts, and at one of them a VM with one disk: what tests of the sync begin with. */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import type { ProcessOptions } from '../../src/model/options';
import { keepBaselineCopy } from '../../src/sync/upkeep/baseline-copy';
import { changeImage, sha256, temporaryFolder, writeImage } from './data';
import { startHost, type TestHost } from './hosts';
import { moveVm } from './moves';

export const SIZE = 24 * 1024 * 1024 + 12_345;
export const BLOCK = 65_536;
export const none: AbortSignal = new AbortController().signal;

export interface Lab {
  a: TestHost;
  b: TestHost;
  disk: string;
  folder: string;
}

/** @param onA options of the host where the VM is, @param onB of the other */
export async function diskLab({
  folder = temporaryFolder(),
  onA = {},
  onB: other = {},
}: {
  folder?: string;
  onA?: Partial<ProcessOptions>;
  onB?: Partial<ProcessOptions>;
} = {}): Promise<Lab> {
  const disk = join(folder, 'vm', 'disk.img');
  const a = await startHost('a', join(folder, 'a'), onA);
  const b = await startHost('b', join(folder, 'b'), other);
  mkdirSync(join(folder, 'vm'));
  writeImage(disk, SIZE, 1);
  await a.registry.put({
    vmId: 'vm',
    images: [{ imageId: 'vda', kind: 'disk', path: disk }],
    presence: 'here',
    generation: 0,
  });
  return { a, b, disk, folder };
}

/** The disk's place at the other host. */
export const onB = ({ b }: Pick<Lab, 'b'>): string => join(b.dataDir, 'images', 'vm', 'vda.img');

/**
 * Moves the VM there, keeps a copy, and back again with changes: they travel as deltas against the copy.
 * @param between what happens to the copy
 */
export async function expectDeltasOnTheWayBack(
  here: Lab,
  between: () => Promise<void> = () => Promise.resolve(),
): Promise<void> {
  await moveVm('m1', 'vm', here.a, here.b);
  const kept = await keepBaselineCopy(
    { vmId: 'vm', imageId: 'vda', imagePath: onB(here) },
    'auto',
    here.b.store,
    here.b.source.pool,
    none,
  );
  expect(kept.kept).not.toBe('no');
  await between();
  changeImage(onB(here), SIZE, 3);
  const changed = sha256(onB(here));
  const [back] = await moveVm('m2', 'vm', here.b, here.a);
  expect(sha256(here.disk)).toBe(changed);
  expect(back!.counts.account.blocks.runDelta).toBeGreaterThan(0);
  expect(back!.counts.refusedBlocks).toBe(0);
}
