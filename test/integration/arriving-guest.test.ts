/**
 * A guest that another host describes, as its agent may have been made to: the activity that makes room for it refuses what would
 * run, open or write anything of this host, before anything here has changed.
 */
import { existsSync, mkdirSync, readdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { MockActivityEnvironment } from '@temporalio/testing';
import { DefaultLogger } from '@temporalio/worker';
import { createDestinationActivities } from '../../activities/destination-host';
import { defineGuest } from '../../src/cli/commands/guests';
import { createOutput } from '../../src/cli/output';
import type { ActivityInput } from '../../src/model/activity-inputs';
import type { GuestSpec, StoppedGuest } from '../../src/model/guest';
import { PROCESS_OPTIONS, type ProcessOptions, withDefaults } from '../../src/model/options';
import { temporaryFolder } from '../helpers/data';
import { NO_HARDWARE } from '../helpers/hardware';
import { startHost, type TestHost } from '../helpers/hosts';
import { describeWhere } from '../helpers/needs';
import { needsQemu } from '../helpers/qemu';

/** What is refused here is what is looked for. */
const QUIET = new DefaultLogger('ERROR');

const DISK = '/elsewhere/disk.img';
const COMMAND = ['qemu-system-x86_64', '-accel', 'tcg', '-M', 'pc-q35-10.0', '-m', '64', '-nic', 'none'];

async function destination(extra: Partial<ProcessOptions> = {}): Promise<{
  readonly host: TestHost;
  readonly folder: string;
  prepare(
    given: Partial<Pick<ActivityInput<'prepareDestination'>, 'guest' | 'stoppedGuest' | 'force' | 'fence'>>,
  ): Promise<unknown>;
}> {
  const folder = temporaryFolder();
  const host = await startHost('b', join(folder, 'b'), { guestFolders: join(folder, 'guests'), ...extra });
  const { hostId, dataDir, key, advertised, hub, registry, store, source, guestPolicy } = host;
  const activities = createDestinationActivities({
    ...{ hostId, dataDir, key, advertised, hub, registry, store, pool: source.pool, guestPolicy },
    keepBaselineCopy: 'never',
    storeLimit: 0,
    diskPlaces: '',
    judge: undefined,
    say: undefined,
    settle: () => Promise.resolve(),
  });
  const input: ActivityInput<'prepareDestination'> = {
    ...{ migrationId: 'm-1', vmId: 'vm', mode: 'migrate', fence: 1, generation: 0, sourceHost: 'a', force: false },
    images: [{ imageId: 'vda', kind: 'disk', sizeBytes: 65_536 }],
  };
  return {
    host,
    folder,
    prepare: (given) =>
      new MockActivityEnvironment({}, { logger: QUIET }).run(activities.prepareDestination, { ...input, ...given }),
  };
}

function running(command: readonly string[], extra: Partial<GuestSpec> = {}): GuestSpec {
  return {
    command: [...command],
    qemuVersion: '10.0.0',
    hardware: NO_HARDWARE,
    machine: 'pc-q35-10.0',
    needsFiles: [],
    ramBlocks: [{ id: 'pc.ram', usedBytes: 65_536 }],
    sharedFiles: [],
    diskPaths: { vda: DISK },
    ...extra,
  };
}

function stopped(command: readonly string[]): StoppedGuest {
  return { command: [...command], diskPaths: { vda: DISK }, rawDisks: ['vda'], needsFiles: [] };
}

async function refusalOf(work: Promise<unknown>, code = 'GUEST_REFUSED'): Promise<string> {
  const error = await work.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  const { details, message } = error as { details?: readonly { readonly code?: string }[]; message: string };
  expect(details?.[0]?.code).toBe(code);
  expect(message).not.toContain('\n');
  return message;
}

function expectUntouched({ dataDir }: TestHost): void {
  const there = (name: string): string[] => (existsSync(join(dataDir, name)) ? readdirSync(join(dataDir, name)) : []);
  expect([...there('incoming'), ...there('run'), ...there('images'), ...there('vms')]).toEqual([]);
}

describeWhere([needsQemu()])('the source claims the VM again for the same migration', () => {
  test('what was promised to the older claim gives way: the newer one’s record is what counts, and the older one is refused', async () => {
    const { host, prepare } = await destination();
    await prepare({ guest: running(COMMAND), fence: 1 });
    const older = await host.hub.incoming.get('m-1');
    await prepare({ stoppedGuest: stopped(COMMAND), fence: 2 });
    const newer = await host.hub.incoming.get('m-1');
    expect(newer.record).toMatchObject({ fence: 2, definition: { command: expect.anything() as unknown } });
    expect(newer.record.guest).toBeUndefined();
    await expect(older.assertTakesData()).rejects.toMatchObject({ code: 'ABANDONED' });
    await newer.assertTakesData();
    await refusalOf(prepare({ guest: running(COMMAND), fence: 1 }), 'FENCED');
    expect(await host.hub.incoming.get('m-1')).toBe(newer);
  });

  test('given up before it has asked for a promise: what the older claim was promised is given up with it', async () => {
    const { host, prepare } = await destination();
    await prepare({ guest: running(COMMAND), fence: 1 });
    await host.hub.abandon('m-1', 'vm', 2);
    expect(await host.ownership.last('vm', 'm-1')).toMatchObject({ state: 'abandoned', fence: 1 });
    expect(await host.hub.incoming.list()).toEqual([]);
    await refusalOf(prepare({ stoppedGuest: stopped(COMMAND), fence: 2 }), 'ABANDONED');
  });
});

test.each([true, false])('a program that is no QEMU is not executed, forced: %s', async (force) => {
  const { host, folder, prepare } = await destination();
  const made = join(folder, 'made');
  const program = join(folder, 'evil');
  writeFileSync(program, `#!/bin/sh\ntouch ${made}\n`, { mode: 0o755 });
  for (const command of [['/bin/sh', '-c', `touch ${made}`], [program], [program, ...COMMAND.slice(1)]]) {
    expect(await refusalOf(prepare({ guest: running(command), force }))).toContain('no QEMU');
    expect(await refusalOf(prepare({ stoppedGuest: stopped(command), force }))).toContain('no QEMU');
  }
  expect(existsSync(made)).toBe(false);
  expectUntouched(host);
});

describeWhere([needsQemu()])('a QEMU that is there', () => {
  test('is, where the other host names one by its place, this host’s own', async () => {
    const { folder, prepare } = await destination({ qemuFolder: '/usr/bin' });
    const made = join(folder, 'made');
    const program = join(folder, 'qemu-system-x86_64');
    writeFileSync(program, `#!/bin/sh\ntouch ${made}\n`, { mode: 0o755 });
    await prepare({ guest: running([program, ...COMMAND.slice(1)]) });
    expect(existsSync(made)).toBe(false);
  });
});

test.each([
  [['-netdev', 'tap,id=n,script=/tmp/evil,downscript=no,ifname=x'], 'script='],
  [['-drive', `file=${DISK},format=raw`, '-drive', 'file=/etc/shadow,format=raw'], '/etc/shadow'],
  [
    ['-drive', `file=${DISK}`, '-blockdev', '{"driver":"file","filename":"/etc/shadow","node-name":"x"}'],
    '/etc/shadow',
  ],
  [['-chardev', 'pipe,id=c,path=/tmp/x'], 'pipe'],
  [['-object', 'memory-backend-file,id=m,size=64M,mem-path=/tmp/x'], 'memory-backend-file'],
  [['-kernel', '/boot/vmlinuz'], 'guestFolders'],
  [['-cpu', '(a+)+$'], '-cpu'],
  [['-plugin', '/tmp/x.so'], '-plugin'],
])('%j is refused in one line, running or not, and forced too', async (args, names) => {
  const { host, prepare } = await destination();
  for (const force of [false, true]) {
    expect(await refusalOf(prepare({ guest: running([...COMMAND, ...args]), force }))).toContain(names);
    expect(await refusalOf(prepare({ stoppedGuest: stopped([...COMMAND, ...args]), force }))).toContain(names);
  }
  expectUntouched(host);
});

test.each([
  ['a machine that is a pattern', 'GUEST_REFUSED', { machine: '(a+)+$' }],
  ['a command that is none', 'INVALID_INPUT', { command: 'sh' as unknown as string[] }],
  ['a key that is not a description’s', 'INVALID_INPUT', { machine: 'pc-q35-10.0', evil: 1 }],
])('%s is refused', async (_what, code, extra) => {
  const { host, prepare } = await destination();
  await refusalOf(prepare({ guest: running(COMMAND, extra) }), code);
  expectUntouched(host);
});

test('what may run is taken: its disk raw and here, a kernel of this host’s folder, nothing to read that lies elsewhere', async () => {
  const { host, folder, prepare } = await destination();
  mkdirSync(join(folder, 'guests'));
  const kernel = join(folder, 'guests', 'vmlinuz');
  writeFileSync(kernel, '');
  await prepare({
    guest: running([...COMMAND, '-hda', DISK, '-kernel', kernel, '-serial', 'file:/var/log/x'], {
      sharedFiles: [
        { path: '/etc/passwd', sizeBytes: 1 },
        { path: kernel, sizeBytes: 1 },
      ],
    }),
    force: true,
  });
  const record = (await host.hub.incoming.find('m-1'))?.record;
  expect(record?.guest?.command).toEqual([
    ...COMMAND,
    ...['-drive', `file=${record?.images[0]?.path ?? ''},index=0,media=disk,format=raw`, '-kernel', kernel],
    ...['-serial', `file:${join(host.registry.runFolder('vm'), 'x')}`],
  ]);
  expect(record?.guest?.sharedFiles.map(({ path }) => path)).toEqual([kernel]);
});

test('no file of the data folder is read for a guest from elsewhere, also where guestFolders holds that folder', async () => {
  const around = temporaryFolder();
  const { host, prepare } = await destination({ dataDir: join(around, 'data'), guestFolders: around });
  symlinkSync(join(host.dataDir, 'agent.key'), join(around, 'link'));
  for (const path of [
    join(host.dataDir, 'agent.key'),
    join(host.dataDir, 'images', 'other', 'vda.img'),
    join(around, 'link'),
  ])
    for (const args of [
      ['-kernel', path],
      ['-drive', `file=${path},format=raw,readonly=on`],
    ]) {
      expect(await refusalOf(prepare({ guest: running([...COMMAND, ...args]), force: true }))).toContain(
        'guestFolders',
      );
      expect(await refusalOf(prepare({ stoppedGuest: stopped([...COMMAND, ...args]) }))).toContain('guestFolders');
    }
  expectUntouched(host);
});

test.each([
  [['/bin/sh', '-c', 'true'], 'no QEMU'],
  [['qemu-system-x86_64', '-netdev', 'tap,id=n,ifname=x,script=ifup'], 'script='],
  [['qemu-system-x86_64', '-drive', 'file=/vms/x.img'], 'format=raw'],
  [['qemu-system-x86_64', '-spice', 'tls-port=5900'], '-spice'],
])('%j is refused where its operator defines it', async (command, names) => {
  const dataDir = temporaryFolder();
  const options = withDefaults(PROCESS_OPTIONS, {});
  const place = { dataDir, options, output: createOutput(true) };
  await expect(defineGuest(place, 'vm', command, {})).rejects.toMatchObject({
    code: 'GUEST_REFUSED',
    message: expect.stringContaining(names) as unknown,
  });
  expect(existsSync(join(dataDir, 'vms'))).toBe(false);
});
