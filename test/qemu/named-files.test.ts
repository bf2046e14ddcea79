/**
 * The files that a guest reads and that stay where they are: what its source says of them, from a real QEMU that has them open, and what
 * the destination makes of it when it has another file there.
 */
import { execFileSync } from 'node:child_process';
import {
  copyFileSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { MockActivityEnvironment } from '@temporalio/testing';
import { DefaultLogger } from '@temporalio/worker';
import { createDestinationActivities } from '../../activities/destination-host';
import { startGuestProcess } from '../../src/hypervisor/qemu/guest-process';
import type { ActivityInput } from '../../src/model/activity-inputs';
import type { GuestSpec, StoppedGuest } from '../../src/model/guest';
import { MIB } from '../../src/model/units';
import { temporaryFolder } from '../helpers/data';
import { AS_OWN, rememberFolder } from '../helpers/guest-lab';
import { startHost } from '../helpers/hosts';
import { describeWhere } from '../helpers/needs';
import { needsQemu } from '../helpers/qemu';

const COMMAND = 'qemu-system-x86_64 -accel tcg -m 64 -display none -nodefaults'.split(' ');
const QUIET = new DefaultLogger('ERROR');
/** What of a file no piece of it would show that is at its ends. */
const MIDDLE = 5 * MIB + 123;

const NODES = [
  '-blockdev',
  'driver=file,node-name=f,read-only=on,filename=FILE',
  '-blockdev',
  'driver=raw,node-name=n,read-only=on,file=f',
];
const DRIVES: readonly (readonly [string, readonly string[]])[] = [
  ['an ISO', ['-drive', 'file=FILE,media=cdrom,format=raw']],
  ['a base that many start from', ['-drive', 'file=FILE,readonly=on,format=raw,if=virtio']],
  ['a node', [...NODES, '-device', 'virtio-blk-pci,drive=n']],
];
/** Large enough for a kernel to be looked at, and no kernel: its QEMU has to start. */
const AT_START: readonly (readonly [string, readonly string[]])[] = [['a kernel', ['-kernel', 'FILE']]];

describeWhere([needsQemu()])('a file that a guest reads', () => {
  async function started(args: readonly string[], made: (file: string) => void = () => undefined) {
    const folder = temporaryFolder();
    rememberFolder(folder);
    const guests = join(folder, 'guests');
    mkdirSync(guests);
    const file = join(guests, 'file');
    writeFileSync(file, pcKernel(10 * MIB));
    made(file);
    const host = await startHost('a', join(folder, 'a'));
    const command = [...COMMAND, ...args.map((word) => word.replace('FILE', file))];
    const { qmp, places, process: qemu } = await startGuestProcess(command, host.registry.runFolder('vm'), AS_OWN);
    qmp.close();
    const record = {
      vmId: 'vm',
      images: [],
      presence: 'here',
      generation: 0,
      guest: { command, qmpPath: places.qmpPath },
    } as const;
    await host.registry.put({ ...record, images: [...record.images] });
    const look = async (force = false): Promise<GuestSpec> => (await host.sourceOwnership.inspect('vm', force)).guest!;
    const there = await startHost('b', join(folder, 'b'), { guestFolders: guests });
    const { hostId, dataDir, key, advertised, hub, registry, store, source, guestPolicy } = there;
    const { prepareDestination } = createDestinationActivities({
      ...{ hostId, dataDir, key, advertised, hub, registry, store, pool: source.pool, guestPolicy },
      ...{ keepBaselineCopy: 'never', storeLimit: 0, diskPlaces: '', judge: undefined, say: undefined },
      settle: () => Promise.resolve(),
    });
    let count = 0;
    const prepare = (given: { guest: GuestSpec } | { stoppedGuest: StoppedGuest }, force = false): Promise<unknown> => {
      count += 1;
      const input: ActivityInput<'prepareDestination'> = {
        ...{
          migrationId: `m-${count}`,
          vmId: `vm-${count}`,
          mode: 'migrate',
          fence: 1,
          generation: 0,
          sourceHost: 'a',
          force,
        },
        images: [{ imageId: 'vda', kind: 'disk', sizeBytes: 65_536 }],
        ...given,
      };
      return new MockActivityEnvironment({}, { logger: QUIET }).run(prepareDestination, input);
    };
    return { look, prepare, file, command, qemu, host };
  }

  /** As the destination has it: the same path, other content. */
  function change(path: string, at: number): void {
    const bytes = readFileSync(path);
    bytes[at] = (bytes[at] ?? 0) ^ 1;
    writeFileSync(path, bytes);
  }

  const refused = (...words: readonly string[]) => ({
    message: expect.stringMatching(
      new RegExp(words.map((word) => word.replace(/[()\\/.]/g, '\\$&')).join('.*')),
    ) as string,
  });

  test.each([...DRIVES, ...AT_START])(
    '%s: the same there goes, other content and another size are refused with the mend',
    async (_what, args) => {
      const { look, prepare, file } = await started(args);
      const spec = await look();
      expect(spec.needsFiles).toMatchObject([{ path: file, sizeBytes: 10 * MIB }]);
      await prepare({ guest: spec });
      // A copy has another time.
      utimesSync(file, 1, 1);
      await prepare({ guest: spec });
      change(file, MIDDLE);
      await expect(prepare({ guest: spec })).rejects.toMatchObject(
        refused(
          'needs',
          file,
          'this host has another file there',
          `both have ${10 * MIB} bytes, and other content`,
          'put the source’s here',
        ),
      );
      change(file, MIDDLE);
      await prepare({ guest: spec });
      truncateSync(file, 9 * MIB);
      await expect(prepare({ guest: spec })).rejects.toMatchObject(
        refused(`${9 * MIB} bytes here, ${10 * MIB} at the source`, 'put the source’s here'),
      );
    },
    60_000,
  );

  test('what a read-only drive builds on is asked for too', async () => {
    const { look, prepare, file } = await started(
      ['-drive', 'file=FILE.top,readonly=on,format=qcow2,if=virtio'],
      (at) => execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', '-b', at, '-F', 'raw', `${at}.top`]),
    );
    const spec = await look();
    expect(spec.needsFiles.map(({ path }) => path).sort()).toEqual([file, `${file}.top`]);
    await prepare({ guest: spec });
    change(file, MIDDLE);
    await expect(prepare({ guest: spec })).rejects.toMatchObject(refused('needs', file, 'another file there'));
  }, 60_000);

  test.each([
    ['a drive is read while it runs: not forced', DRIVES[0]![1], false],
    ['a kernel is read when it begins anew: forced', AT_START[0]![1], true],
  ])(
    '%s',
    async (_what, args, isForced) => {
      const { look, prepare, file } = await started(args);
      const spec = await look();
      change(file, MIDDLE);
      const forced = prepare({ guest: spec }, true);
      await (isForced ? forced : expect(forced).rejects.toMatchObject(refused('another file there', 'eject it there')));
    },
    60_000,
  );

  test('a guest that does not run is asked for the same, and forced with either', async () => {
    const { look, prepare, file, qemu, host } = await started(DRIVES[0]![1]);
    expect(await look()).toBeDefined();
    process.kill(qemu.pid, 'SIGKILL');
    const disk = join(host.dataDir, 'disk.img');
    writeFileSync(disk, Buffer.alloc(65_536));
    const { guest, ...record } = await host.registry.get('vm');
    await host.registry.put({
      ...record,
      images: [{ imageId: 'vda', kind: 'disk', path: disk }],
      guest: { ...guest!, command: [...guest!.command, '-drive', `file=${disk},format=raw`] },
    });
    const { stoppedGuest } = await host.sourceOwnership.inspect('vm');
    await prepare({ stoppedGuest: stoppedGuest! });
    change(file, MIDDLE);
    await expect(prepare({ stoppedGuest: stoppedGuest! })).rejects.toMatchObject(refused('another file there'));
    await prepare({ stoppedGuest: stoppedGuest! }, true);
  }, 60_000);

  test.each([
    ['as a drive', ['-drive', 'file=FIRMWARE,if=pflash,format=raw,readonly=on']],
    ['as nodes', [...NODES.map((word) => word.replace('FILE', 'FIRMWARE')), '-machine', 'pc,pflash0=n']],
    ['-bios', ['-bios', 'FIRMWARE']],
  ])(
    'firmware is each host’s own: %s',
    async (_what, args) => {
      const { look } = await started(args.map((word) => word.replace('FIRMWARE', '/usr/share/seabios/bios-256k.bin')));
      expect((await look()).needsFiles).toEqual([]);
    },
    60_000,
  );

  test.each(DRIVES)(
    '%s that was taken away since, or exchanged, is refused by name, forced or not; put back it goes',
    async (_what, args) => {
      const { look, file } = await started(args);
      renameSync(file, `${file}.away`);
      for (const force of [false, true])
        await expect(look(force)).rejects.toMatchObject(
          refused('it reads', file, 'gone since it was started: eject it', 'or put it back'),
        );
      renameSync(`${file}.away`, file);
      expect((await look()).needsFiles).toHaveLength(1);
      copyFileSync(file, `${file}.copy`);
      rmSync(file);
      await expect(look()).rejects.toMatchObject(refused('eject it'));
      renameSync(`${file}.copy`, file);
      expect((await look()).needsFiles).toHaveLength(1);
      change(file, MIDDLE);
      for (const force of [false, true])
        await expect(look(force)).rejects.toMatchObject(
          refused('it reads what was', file, 'another file lies there now', 'eject it'),
        );
    },
    60_000,
  );

  test('a kernel that is gone since is refused, and forced not asked for', async () => {
    const { look, file } = await started(AT_START[0]![1]);
    rmSync(file);
    await expect(look()).rejects.toMatchObject(refused('it was started with', file, 'put that back', '--force'));
    expect((await look(true)).needsFiles).toEqual([]);
  }, 60_000);
});

/** What QEMU takes for a kernel (Linux boot protocol 2.06) of that size; it does nothing. */
function pcKernel(sizeBytes: number): Buffer {
  const kernel = Buffer.alloc(sizeBytes);
  kernel.writeUInt8(1, 0x1f1);
  kernel.write('HdrS', 0x202, 'latin1');
  kernel.writeUInt16LE(0x0206, 0x206);
  kernel.writeUInt8(1, 0x211);
  kernel.writeUInt32LE(0x37ffffff, 0x22c);
  for (let at = 1024; at < sizeBytes; at += 4096) kernel.writeUInt32LE(at, at);
  return kernel;
}
