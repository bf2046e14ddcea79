/** What a peer with a grant may make a destination do, and what not: everything else is refused with a code, and nothing has happened. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { MAX_IMAGE_BYTES, MAX_IMAGES } from '../../src/model/image';
import { destinationRecordSchema } from '../../src/sync/destination/destination-record';
import { temporaryFolder } from '../helpers/data';
import { startHost, type TestHost } from '../helpers/hosts';
import { writeLine } from '../helpers/moves';
import { connectPeer } from '../helpers/peer';

let folder: string;
let host: TestHost;

beforeEach(async () => {
  folder = temporaryFolder();
  host = await startHost('b', join(folder, 'b'));
});

const SIZE = 65_536;
/** The state of what a migration of `vm` from host a has promised here. */
async function promised(mode: 'migrate' | 'warm' = 'migrate'): Promise<void> {
  if (mode === 'migrate') await writeLine(host, 'vm', 'promised', 'm', 3);
  await host.hub.incoming.prepare({
    migrationId: 'm',
    vmId: 'vm',
    mode,
    fence: mode === 'migrate' ? 3 : 0,
    generation: 1,
    sourceHost: 'a',
    workflowId: 'w',
    images: [{ imageId: 'vda', kind: 'disk', sizeBytes: SIZE, path: host.registry.imagePath(undefined, 'vm', 'vda') }],
  });
}

const refused = { code: 'PROTOCOL_VIOLATION' };

test.each(['constructor', 'toString', 'hasOwnProperty', '__defineGetter__', '__lookupGetter__', 'valueOf'])(
  'a request %s is unknown, as any other that no table names',
  async (method) => {
    await promised();
    const peer = await connectPeer(host, 'm');
    await expect(peer.ask(method)).rejects.toMatchObject({
      ...refused,
      message: expect.stringContaining('Unknown request') as string,
    });
  },
);

describe('a grant that was seen on its way', () => {
  test('is worth nothing to another host', async () => {
    await promised();
    for (const said of [
      { sourceHost: 'c', holder: 'a' },
      { sourceHost: 'c', holder: 'c' },
    ])
      await expect(connectPeer(host, 'm', said).then((peer) => peer.ask('open_image', {}))).rejects.toMatchObject({
        code: said.holder === 'a' ? 'GRANT_INVALID' : 'PROTOCOL_VIOLATION',
      });
  });

  test('is worth nothing to a host that speaks in the name of its holder', async () => {
    await promised();
    await expect(connectPeer(host, 'm', { proven: 'c' })).rejects.toMatchObject({ code: 'PEER_UNTRUSTED' });
  });
});

describe('a session that a peer makes itself', () => {
  const disk = { imageId: 'vda', kind: 'disk', sizeBytes: 65_536 };
  const memory = { imageId: 'memory', kind: 'memory', sizeBytes: 65_536 };
  const record = { migrationId: 'm', vmId: 'vm', mode: 'direct', fence: 0, generation: 0, sourceHost: 'a' };

  test('starts no program', async () => {
    const trace = join(folder, 'was-here');
    const guest = {
      command: ['/bin/sh', '-c', `touch ${trace}`],
      ramBlocks: [{ id: 'ram', usedBytes: 65_536 }],
      qmpPath: join(folder, 'qmp'),
      sharedFiles: [],
    };
    const peer = await connectPeer(host, 'm');
    const images = [{ ...memory, path: '/x' }];
    await expect(peer.ask('prepare', { record: { ...record, images, guest } })).rejects.toMatchObject(refused);
    await peer.ask('open_image', { imageId: 'memory', useBaseline: false }).catch(() => undefined);
    await peer.ask('guest_begin', { sectionId: 1 }, Buffer.alloc(64)).catch(() => undefined);
    await new Promise((resolve) => setTimeout(resolve, 500));
    expect(existsSync(trace)).toBe(false);
    expect(await host.hub.incoming.list()).toEqual([]);
  });

  test.each([
    ['a definition', { definition: { command: ['/bin/true'], qmpPath: '/x' } }],
    ['a tenant', { tenant: 'other' }],
    ['a type', { vmType: 'web' }],
    ['a workflow', { workflowId: 'w' }],
    ['a place', { images: [{ ...disk, path: '/etc/shadow' }] }],
    ['a fence', { fence: 7 }],
    ['a generation', { generation: 7 }],
    ['the mode of a migration', { mode: 'migrate' }],
    ['two images of one name', { images: [disk, disk] }],
    ['more images than a VM has', { images: Array.from({ length: 65 }, (_, at) => ({ ...disk, imageId: `d${at}` })) }],
  ])('names no %s', async (_what, more) => {
    const peer = await connectPeer(host, 'm');
    await expect(peer.ask('prepare', { record: { ...record, images: [disk], ...more } })).rejects.toMatchObject(
      refused,
    );
    expect(await host.hub.incoming.list()).toEqual([]);
  });

  test.each(['guest_ready', 'guest_begin', 'guest_left', 'guest_load', 'keep'])('has no %s', async (method) => {
    const peer = await connectPeer(host, 'm');
    await peer.ask('prepare', { record: { ...record, images: [disk] } });
    const body = { sectionId: 1, commandBytes: 1, totalBytes: 64 * 1024 * 1024 };
    await expect(peer.ask(method, body)).rejects.toMatchObject({
      ...refused,
      message: expect.stringContaining(`no ${method}`) as string,
    });
  });
});

test.each([
  ['migrate', 'install_image'],
  ['migrate', 'keep'],
  ['warm', 'install_image'],
] as const)('a migration of mode %s has no %s', async (mode, method) => {
  await promised(mode);
  const peer = await connectPeer(host, 'm');
  await expect(peer.ask(method, { imageId: 'vda' })).rejects.toMatchObject({
    ...refused,
    message: expect.stringContaining(`no ${method}`) as string,
  });
});

describe('a session speaks for its own migration', () => {
  test('in no other source’s name, whatever its role, also where the record is read again', async () => {
    await promised();
    await expect(connectPeer(host, 'm', { sourceHost: 'other' })).rejects.toMatchObject(refused);
    await expect(connectPeer(host, 'm', { sourceHost: 'other', role: 'settle' })).rejects.toMatchObject(refused);
    await host.close();
    host = await startHost('b', join(folder, 'b'));
    for (const [role, method] of [
      ['control', 'open_image'],
      ['settle', 'abandon'],
    ] as const) {
      const body = { imageId: 'vda', useBaseline: false, vmId: 'vm', fence: 3 };
      const asking = connectPeer(host, 'm', { sourceHost: 'other', role }).then((peer) => peer.ask(method, body));
      await expect(asking).rejects.toMatchObject(refused);
    }
    expect((await host.ownership.last('vm', 'm'))?.state).toBe('promised');
  });

  test('of no other VM, for no older claim, and raises no fence', async () => {
    await promised();
    await writeLine(host, 'other', 'promised', 'm2', 1);
    const peer = await connectPeer(host, 'm', { role: 'settle' });
    for (const body of [
      { vmId: 'other', fence: 3 },
      { vmId: 'vm', fence: 2 },
    ])
      await expect(peer.ask('abandon', body)).rejects.toMatchObject(refused);
    await expect(peer.ask('take_over', { vmId: 'other', roots: {} })).rejects.toMatchObject(refused);
    expect([await host.ownership.fence('vm'), await host.ownership.fence('other')]).toEqual([3, 1]);
    expect(await host.ownership.last('other')).toMatchObject({ migrationId: 'm2', state: 'promised' });
    await peer.ask('abandon', { vmId: 'vm', fence: 2 ** 50 });
    expect(await host.ownership.last('vm', 'm')).toMatchObject({ state: 'abandoned', fence: 3 });
  });

  test('without a record: one VM gets a promise, which raises no fence', async () => {
    await writeLine(host, 'vm', 'promised', 'before', 2);
    await writeLine(host, 'vm', 'installed', 'before', 2);
    const peer = await connectPeer(host, 'm', { role: 'settle' });
    await peer.ask('abandon', { vmId: 'vm', fence: 2 ** 50 });
    await peer.ask('abandon', { vmId: 'vm', fence: 3 });
    expect(await host.ownership.last('vm', 'm')).toMatchObject({ state: 'abandoned', fence: 2 });
    expect(await host.ownership.last('vm')).toMatchObject({ migrationId: 'before', state: 'installed' });
    expect(await host.ownership.fence('vm')).toBe(2);
    await expect(peer.ask('abandon', { vmId: 'another', fence: 3 })).rejects.toMatchObject(refused);
    expect(await host.ownership.entries('another')).toEqual([]);
  });

  test('a promise whose record is gone is taken back with its own fence', async () => {
    await writeLine(host, 'vm', 'promised', 'm', 3);
    const peer = await connectPeer(host, 'm', { role: 'settle' });
    await peer.ask('abandon', { vmId: 'vm', fence: 2 ** 50 });
    expect(await host.ownership.last('vm', 'm')).toMatchObject({ state: 'abandoned', fence: 3 });
    expect(await host.ownership.fence('vm')).toBe(3);
  });

  test('with an attempt’s number that leaves room for others', async () => {
    await promised();
    await expect(connectPeer(host, 'm', { epoch: Number.MAX_SAFE_INTEGER })).rejects.toMatchObject(refused);
    await connectPeer(host, 'm', { epoch: 2 ** 33 });
  });

  test('and prepares itself in its own name', async () => {
    const record = { migrationId: 'm', vmId: 'vm', mode: 'direct', fence: 0, generation: 0, sourceHost: 'other' };
    const images = [{ imageId: 'vda', kind: 'disk', sizeBytes: SIZE }];
    const peer = await connectPeer(host, 'm');
    await expect(peer.ask('prepare', { record: { ...record, images } })).rejects.toMatchObject(refused);
    await peer.ask('prepare', { record: { ...record, images, sourceHost: 'a' } });
  });
});

describe('memory', () => {
  const giant = { imageId: 'vda', kind: 'disk', sizeBytes: 2 ** 40 };
  const record = { migrationId: 'm', vmId: 'vm', mode: 'direct', fence: 0, generation: 0, sourceHost: 'a' };
  const openIt = { imageId: 'vda', useBaseline: false };

  test('for images of a peer’s choice is bounded over all of them, and given back', async () => {
    await host.close();
    host = await startHost('b', join(folder, 'b'), { bookkeepingMemory: 300 * 1024 * 1024 });
    const one = await connectPeer(host, 'm');
    await one.ask('prepare', { record: { ...record, images: [giant] } });
    await one.ask('open_image', openIt);
    const other = await connectPeer(host, 'm2');
    await other.ask('prepare', { record: { ...record, migrationId: 'm2', vmId: 'vm2', images: [giant] } });
    await expect(other.ask('open_image', openIt)).rejects.toMatchObject({ code: 'MEMORY_LIMIT' });
    await one.ask('abandon', { vmId: 'vm', fence: 0 });
    await other.ask('open_image', openIt);
    const third = await connectPeer(host, 'm3');
    const images = [{ ...giant, sizeBytes: 2 ** 43 }];
    await third.ask('prepare', { record: { ...record, migrationId: 'm3', vmId: 'vm3', images } });
    await expect(third.ask('open_image', openIt)).rejects.toMatchObject({ code: 'HOST_TOO_SMALL' });
  });

  test('for a device state is not taken before the record says that a guest comes', async () => {
    await promised();
    const peer = await connectPeer(host, 'm');
    const before = process.memoryUsage().external;
    const asked = Array.from({ length: 40 }, () =>
      peer.ask('guest_load', { commandBytes: 1, totalBytes: 64 * 1024 * 1024 }).catch((error: unknown) => error),
    );
    for (const error of await Promise.all(asked))
      expect(error).toMatchObject({ ...refused, message: expect.stringContaining('no guest_load') as string });
    expect(process.memoryUsage().external - before).toBeLessThan(64 * 1024 * 1024);
  });
});

test('a record has the disks that a VM may have and a running guest’s memory, and no more', () => {
  const { images } = destinationRecordSchema.shape;
  const of = (disks: number): unknown[] => [
    ...Array.from({ length: disks }, (_, at) => ({
      imageId: `d${at}`,
      kind: 'disk',
      sizeBytes: SIZE,
      path: `/d${at}`,
    })),
    { imageId: 'memory', kind: 'memory', sizeBytes: SIZE, path: '/memory' },
  ];
  expect(images.safeParse(of(MAX_IMAGES)).success).toBe(true);
  expect(images.safeParse(of(MAX_IMAGES + 1)).success).toBe(false);
});

test('a record’s RAM is bounded', () => {
  const { guest } = destinationRecordSchema.shape;
  const record = { command: ['/bin/true'], qmpPath: '/x', sharedFiles: [] };
  const block = { id: 'ram', usedBytes: MAX_IMAGE_BYTES };
  expect(guest.safeParse({ ...record, ramBlocks: [block] }).success).toBe(true);
  expect(guest.safeParse({ ...record, ramBlocks: [block, { id: 'more', usedBytes: 4096 }] }).success).toBe(false);
  const many = Array.from({ length: 1025 }, (_, at) => ({ id: `ram-${at}`, usedBytes: 4096 }));
  expect(guest.safeParse({ ...record, ramBlocks: many }).success).toBe(false);
});
