/** The adapter: an image straight to an agent, and nothing left at it that would be in a later migration's way. */
import { readFileSync, utimesSync } from 'node:fs';
import { join } from 'node:path';
import { type AdapterDestination, createMigrationAdapter, type MigrationAdapter } from '../../src/control/adapter';
import { endIdleDirect, endOldDirect } from '../../src/sync/destination/direct-sessions';
import { sha256, temporaryFolder, writeImage } from '../helpers/data';
import { startHost, type TestHost } from '../helpers/hosts';
import { sharedTrust } from '../helpers/identities';
import { until } from '../helpers/waiting';

const SIZE = 12 * 1024 * 1024;
let adapter: MigrationAdapter;
let host: TestHost;
let image: string;
let destination: AdapterDestination;

beforeEach(async () => {
  const folder = temporaryFolder();
  image = join(folder, 'image');
  writeImage(image, SIZE, 1);
  host = await startHost('b', join(folder, 'b'));
  adapter = createMigrationAdapter({
    dwcp: { bandwidthLimit: 0 },
    dataDir: join(folder, 'adapter'),
    trustDir: sharedTrust().path,
    explain: () => {
      throw new Error('the caller’s own affair');
    },
  });
  const { address, port } = host.destinationFor('any', 'any');
  destination = { hostId: host.hostId, address, port, agentKey: host.key };
});

afterEach(() => adapter.close());

const place = (kind: string): string => join(host.dataDir, 'images', 'vm', `${kind}.img`);

it('brings a disk and a memory image to their places at once and forgets both, whatever a caller’s functions throw', async () => {
  const failing = (): void => {
    throw new Error('the caller’s own affair');
  };
  await Promise.all([
    adapter.migrateVmDisk('vm', image, destination, failing),
    adapter.migrateVmMemory('vm', readFileSync(image), destination, failing),
  ]);
  expect([sha256(place('disk')), sha256(place('memory'))]).toEqual([sha256(image), sha256(image)]);
  expect(await host.hub.incoming.list()).toEqual([]);
});

async function breakOff(sessionId?: string): Promise<void> {
  const abort = new AbortController();
  const slow = createMigrationAdapter({ dwcp: { bandwidthLimit: 8_000_000 }, trustDir: sharedTrust().path });
  const sending = slow.migrateVmDisk(
    'vm',
    image,
    { ...destination, ...(sessionId !== undefined && { sessionId }) },
    ({ linkBytes }) => linkBytes > 500_000 && abort.abort(),
    abort.signal,
  );
  await expect(sending).rejects.toMatchObject({ code: 'CANCELLED' });
  await slow.close();
}

it('a transfer that nobody can go on with leaves a baseline and no record', async () => {
  await breakOff();
  // What was on the way may end the session before its answer has come: it is carried out all the same.
  await until(10_000, 'the record is gone', async () => (await host.hub.incoming.list()).length === 0);
});

it('one with a session id goes on where it was', async () => {
  await breakOff('mine');
  expect(await host.hub.incoming.list()).toEqual(['mine']);
  const sent = await adapter.migrateVmDisk('vm', image, { ...destination, sessionId: 'mine' });
  expect(sha256(place('disk'))).toBe(sha256(image));
  expect(sent.began).toBe('resumed');
});

it('one that nobody goes on with gives way to a migration of the VM, and is ended after a day', async () => {
  await breakOff('left');
  await until(10_000, 'the session has ended', () => host.hub.sessionCount === 0);
  await endIdleDirect(host.hub, 'another');
  expect(await endOldDirect(host.hub, (await host.hub.incoming.find('left'))!)).toBe(false);
  expect(await host.hub.incoming.list()).toEqual(['left']);
  const dayBefore = new Date(Date.now() - 25 * 3_600_000);
  utimesSync(join(host.dataDir, 'incoming', 'left', 'record.json'), dayBefore, dayBefore);
  expect(await endOldDirect(host.hub, (await host.hub.incoming.find('left'))!)).toBe(true);
  expect(await host.hub.incoming.list()).toEqual([]);
  await breakOff('again');
  await until(10_000, 'the session has ended', () => host.hub.sessionCount === 0);
  await endIdleDirect(host.hub, 'vm');
  expect(await host.hub.incoming.list()).toEqual([]);
});

it('refuses a VM whose images another migration has in its hands', async () => {
  await host.hub.incoming.prepare({
    migrationId: 'other',
    vmId: 'vm',
    mode: 'warm',
    fence: 1,
    generation: 1,
    sourceHost: 'a',
    workflowId: 'w',
    images: [{ imageId: 'vda', kind: 'disk', sizeBytes: SIZE, path: place('vda') }],
  });
  await expect(adapter.migrateVmDisk('vm', image, destination)).rejects.toMatchObject({ code: 'VM_BUSY' });
});
