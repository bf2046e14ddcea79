/**
 * Room at the destination by what images hold and not by how large they are: a thin disk of terabytes comes where there is room for what
 * is in it; a full one is refused before anything is sent, saying what it takes.
 */
import { execFileSync } from 'node:child_process';
import { closeSync, ftruncateSync, mkdirSync, openSync, statfsSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { MockActivityEnvironment } from '@temporalio/testing';
import { DefaultLogger } from '@temporalio/worker';
import { createDestinationActivities } from '../../activities/destination-host';
import type { ActivityInput } from '../../src/model/activity-inputs';
import { MIB } from '../../src/model/units';
import { heldBytesOf } from '../../src/store/held-bytes';
import { temporaryFolder } from '../helpers/data';
import { startHost, type TestHost } from '../helpers/hosts';
import { describeWhere, needsRoot } from '../helpers/needs';

const QUIET = new DefaultLogger('ERROR');
const TIB = 2 ** 40;

function thin(path: string, sizeBytes: number, heldBytes: number): void {
  const fd = openSync(path, 'w');
  ftruncateSync(fd, sizeBytes);
  for (let at = 0; at < heldBytes; at += MIB) writeSync(fd, Buffer.alloc(MIB, 5), 0, MIB, at * 7);
  closeSync(fd);
}

function preparing({ hostId, dataDir, key, advertised, hub, registry, store, source, guestPolicy }: TestHost) {
  const { prepareDestination } = createDestinationActivities({
    ...{ hostId, dataDir, key, advertised, hub, registry, store, pool: source.pool, guestPolicy },
    ...{ keepBaselineCopy: 'never', storeLimit: 0, diskPlaces: '', judge: undefined, say: undefined },
    settle: () => Promise.resolve(),
  });
  const input: ActivityInput<'prepareDestination'> = {
    ...{ migrationId: 'm-1', vmId: 'vm', mode: 'migrate', fence: 1, generation: 0, sourceHost: 'a', force: false },
    images: [{ imageId: 'vda', kind: 'disk', sizeBytes: 65_536 }],
  };
  return (given: Partial<typeof input>): Promise<unknown> =>
    new MockActivityEnvironment({}, { logger: QUIET }).run(prepareDestination, { ...input, ...given });
}

async function codeOf(work: Promise<unknown>): Promise<unknown> {
  const error = await work.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  const { details, message } = (error ?? {}) as { details?: readonly { code?: string }[]; message?: string };
  return [details?.[0]?.code, message];
}

test('the source says what an image holds: not its holes, nor what is set aside and not written', async () => {
  const folder = temporaryFolder();
  const host = await startHost('a', join(folder, 'a'));
  const [two, set] = [join(folder, 'two.img'), join(folder, 'set.img')];
  thin(two, 2 * TIB, 8 * MIB);
  writeFileSync(set, '');
  execFileSync('fallocate', ['-l', String(64 * MIB), set]);
  await host.registry.put({
    ...{ vmId: 'vm', presence: 'here', generation: 0 },
    images: [
      { imageId: 'vda', kind: 'disk', path: two },
      { imageId: 'vdb', kind: 'disk', path: set },
    ],
  });
  const { images } = await host.sourceOwnership.inspect('vm');
  expect(images).toMatchObject([
    { imageId: 'vda', sizeBytes: 2 * TIB, allocatedBytes: 8 * MIB },
    { imageId: 'vdb', sizeBytes: 64 * MIB },
  ]);
  // Where the file system tells the two apart.
  expect([0, 64 * MIB]).toContain(images[1]!.allocatedBytes);
  expect(await heldBytesOf(join(folder, 'none'))).toBeUndefined();
});

test('a thin disk of more than there is room for comes by what it holds', async () => {
  const folder = temporaryFolder();
  const prepare = preparing(await startHost('b', join(folder, 'b')));
  const { bavail, bsize } = statfsSync(folder);
  const images = Array.from({ length: 40 }, (_, index) => ({
    imageId: `vd${index}`,
    kind: 'disk' as const,
    sizeBytes: 8 * TIB,
  }));
  const each = (bytes: number): Record<string, number> =>
    Object.fromEntries(images.map(({ imageId }) => [imageId, bytes]));
  const all = { ...each(0), vd0: Math.min(8 * TIB, bavail * bsize) };
  const full = await codeOf(prepare({ images, allocatedBytes: all }));
  expect(full).toEqual(['DISK_FULL', expect.stringMatching(/The images of vm take about .* and .* are free under \//)]);
  // Of which nothing is known: by a share of their size.
  expect(await codeOf(prepare({ images }))).toEqual(['DISK_FULL', expect.anything()]);
  await prepare({ images, allocatedBytes: each(MIB) });
  // What is promised is not asked again: what has arrived takes its room by then.
  await prepare({ images, allocatedBytes: all });
});

test('forced it is left to writing', async () => {
  const prepare = preparing(await startHost('b', join(temporaryFolder(), 'b')));
  const images = [{ imageId: 'vda', kind: 'disk' as const, sizeBytes: 8 * TIB }];
  await prepare({ images, allocatedBytes: { vda: 8 * TIB }, force: true });
});

describeWhere([needsRoot()])('on a small file system', () => {
  const mounted: string[] = [];
  afterAll(() => mounted.forEach((folder) => execFileSync('umount', ['-l', folder])));

  test('a reserve is kept, and images are looked at where they come to', async () => {
    const folder = temporaryFolder();
    const small = join(folder, 'small');
    mkdirSync(small);
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=32m', 'tmpfs', small]);
    mounted.push(small);
    const host = await startHost('b', join(folder, 'b'));
    const prepare = preparing(host);
    // It has been here, and has its own places.
    await host.registry.put({
      ...{ vmId: 'vm', presence: 'away', generation: 1, movedTo: 'a' },
      images: [{ imageId: 'vda', kind: 'disk', path: join(small, 'vda.img') }],
    });
    const images = [{ imageId: 'vda', kind: 'disk' as const, sizeBytes: 64 * MIB }];
    const refused = ['DISK_FULL', expect.stringContaining(`are free under ${small}`)];
    expect(await codeOf(prepare({ images, allocatedBytes: { vda: 40 * MIB }, generation: 1 }))).toEqual(refused);
    expect(await codeOf(prepare({ images, allocatedBytes: { vda: 24 * MIB }, generation: 1 }))).toEqual(refused);
    await prepare({ images, allocatedBytes: { vda: 8 * MIB }, generation: 1 });
  });
});
