/** A source reads what its own registry and journal give a migration, whatever a workflow says: no path, and no VM without a claim. */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { MockActivityEnvironment } from '@temporalio/testing';
import { DefaultLogger } from '@temporalio/worker';
import { createSourceActivities } from '../../activities';
import { compileMigrationOptions } from '../../src/model/options';
import { selectLevelAndStreams } from '../../src/model/tiers';
import { sha256, writeImage } from '../helpers/data';
import { diskLab, type Lab, SIZE } from '../helpers/disk-lab';
import { prepareMove } from '../helpers/moves';

const options = compileMigrationOptions({ bandwidthLimit: 0 });
const measured = { rttMs: 0.2, bandwidthBytesPerSecond: 1e8 };
const start = selectLevelAndStreams(measured, options, true);
const image = { imageId: 'vda', kind: 'disk', sizeBytes: SIZE };

// What is refused is told by the environment, a page for each.
const logger = new DefaultLogger('ERROR');

type Asked = Readonly<Record<string, unknown>>;
type Ask = (name: string, input: Asked) => Promise<unknown>;

async function lab(): Promise<Lab & { readonly ask: Ask; readonly secret: string; readonly common: Asked }> {
  const here = await diskLab();
  const { a, b, folder } = here;
  const activities = createSourceActivities({
    hub: a.sources,
    ownership: a.sourceOwnership,
    journal: a.ownership,
    registry: a.registry,
    connectGuest: () => Promise.reject(new Error('no guest is connected here')),
    lookAtMemory: () => () => Promise.reject(new Error('no guest is looked at here')),
    serveStopped: () => Promise.resolve(undefined),
    report: () => undefined,
    observe: () => undefined,
    judge: undefined,
    say: undefined,
    settle: () => Promise.resolve(),
  }) as unknown as Readonly<Record<string, (input: unknown) => Promise<unknown>>>;
  const secret = join(folder, 'secret');
  writeImage(secret, SIZE, 99);
  return {
    ...here,
    secret,
    ask: (name, input) => new MockActivityEnvironment({}, { logger }).run(activities[name]!, input),
    common: { migrationId: 'm1', vmId: 'vm', destination: b.destinationFor('m1', 'a'), options },
  };
}

/** What arrived of the disk, wherever it was put. */
const arrived = ({ b }: Lab): string[] =>
  ['vda.img', 'vda.img.dwcp-work']
    .map((name) => join(b.dataDir, 'images', 'vm', name))
    .filter((path) => existsSync(path))
    .map(sha256);

const READS: [string, (secret: string) => Asked][] = [
  ['transferImage', (path) => ({ image: { ...image, path }, start, link: measured })],
  ['standardTransferImage', (path) => ({ image: { ...image, path } })],
  ['computePlan', (path) => ({ images: [{ ...image, path }], link: measured, level: 3 })],
];

describe.each(READS)('%s', (name, own) => {
  it('of a migration that has claimed the VM reads its image, whatever path is named', async () => {
    const here = await lab();
    const move = await prepareMove('m1', 'vm', here.a, here.b);
    await here.ask(name, { ...here.common, ...own(here.secret) });
    expect(arrived(here)).not.toContain(sha256(here.secret));
    if (name !== 'computePlan') expect(arrived(here)).toEqual([sha256(here.disk)]);
    expect(move.fence).toBe(1);
  });

  it('of one that has no claim, or none any more, reads nothing', async () => {
    const here = await lab();
    const { disk, secret, common } = here;
    for (const path of [secret, disk])
      await expect(here.ask(name, { ...common, ...own(path) })).rejects.toMatchObject({ type: 'ABANDONED' });
    await prepareMove('m1', 'vm', here.a, here.b);
    await here.a.sourceOwnership.rollBack('vm', 'm1');
    await expect(here.ask(name, { ...common, ...own(secret) })).rejects.toMatchObject({ type: 'ABANDONED' });
    expect(here.a.sources.migrations).toEqual([]);
    expect(arrived(here)).toEqual([]);
  });

  it('of an image that the VM does not have reads nothing', async () => {
    const here = await lab();
    await prepareMove('m1', 'vm', here.a, here.b);
    const other = (path: string): Asked => JSON.parse(JSON.stringify(own(path)).replace('"vda"', '"vdz"')) as Asked;
    await expect(here.ask(name, { ...here.common, ...other(here.secret) })).rejects.toMatchObject({
      type: 'INVALID_INPUT',
    });
    expect(arrived(here)).toEqual([]);
  });

  it('of a warm-up reads a VM of the registry, and of no other', async () => {
    const here = await lab();
    const input = { ...here.common, mode: 'warm', vmId: 'no-such-vm', ...own(here.secret) };
    await expect(here.ask(name, input)).rejects.toMatchObject({ type: 'VM_UNKNOWN' });
  });
});

it('keepWarm records nothing of an image that the VM does not have', async () => {
  const here = await lab();
  const images = [{ ...image, imageId: 'vdz', path: here.secret }];
  await expect(here.ask('keepWarm', { ...here.common, mode: 'warm', images })).rejects.toMatchObject({
    type: 'INVALID_INPUT',
  });
  expect(here.a.sources.migrations).toEqual([]);
});

it('guestRounds makes and reads no file that a workflow names', async () => {
  const here = await lab();
  const path = join(here.folder, 'made');
  writeFileSync(join(here.folder, 'shared'), 'shared');
  const memory = { imageId: 'memory', kind: 'memory', sizeBytes: 65_536, path };
  const guest = { sharedFiles: [{ path: join(here.folder, 'shared'), sizeBytes: 6 }] };
  await expect(
    here.ask('guestRounds', { ...here.common, images: [memory], guest, dwcp: { start, link: measured } }),
  ).rejects.toMatchObject({ type: 'ABANDONED' });
  expect(existsSync(path)).toBe(false);
  expect(readFileSync(join(here.folder, 'shared'), 'utf8')).toBe('shared');
});

it('what the source says of its images names no path', async () => {
  const here = await lab();
  const prepared = await here.ask('prepareSource', { migrationId: 'm1', vmId: 'vm', claim: true });
  expect(prepared).toMatchObject({ images: [image], fence: 1 });
  expect(JSON.stringify(prepared)).not.toContain(here.disk);
});
