/**
 * Discs that were taken out or exchanged since a guest was started: what its QEMU says of its drives goes over, and not what its command
 * said. The destination's QEMU is the real one, started on the command that it would be given.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { HostDriver } from '../../src/hypervisor/host-driver';
import { startGuestProcess } from '../../src/hypervisor/qemu/guest-process';
import { hardwareDifference } from '../../src/hypervisor/qemu/hardware-difference';
import { relocate } from '../../src/hypervisor/qemu/relocate';
import { runPlaces } from '../../src/hypervisor/qemu/run-places';
import { hardwareOf } from '../../src/hypervisor/qemu/running-hardware';
import { MIB } from '../../src/model/units';
import { temporaryFolder } from '../helpers/data';
import { AS_OWN, rememberFolder } from '../helpers/guest-lab';
import { describeWhere } from '../helpers/needs';
import { needsQemu } from '../helpers/qemu';
import { sayTo } from '../helpers/raw-monitor';

const COMMAND = 'qemu-system-x86_64 -accel tcg -m 16 -display none -vga none -nic none -no-shutdown'.split(' ');
const NODES = [
  '-blockdev',
  'driver=file,node-name=f,read-only=on,filename=ISO',
  '-blockdev',
  'driver=raw,node-name=n,read-only=on,file=f',
];
const IN_JSON = JSON.stringify({ driver: 'ide-cd', bus: 'ide.1', drive: 'n', id: 'cd' });

type Ask = (command: string, parameters?: Readonly<Record<string, unknown>>) => Promise<unknown>;
type Done = (ask: Ask, other: string) => Promise<unknown>;
const takeOut =
  (drive: Readonly<Record<string, string>>): Done =>
  (ask) =>
    ask('eject', { ...drive, force: true });
const exchange =
  (drive: Readonly<Record<string, string>>): Done =>
  (ask, other) =>
    ask('blockdev-change-medium', {
      ...drive,
      filename: other,
      format: 'raw',
      force: true,
      'read-only-mode': 'read-only',
    });

describeWhere([needsQemu()])('a disc that is not in its drive any more', () => {
  async function started(args: readonly string[]) {
    const folder = temporaryFolder();
    rememberFolder(folder);
    const [run, iso, other] = [join(folder, 'run'), join(folder, 'seed.iso'), join(folder, 'other.iso')];
    for (const name of ['run', 'there']) mkdirSync(join(folder, name));
    for (const [at, fill] of [
      [iso, 1],
      [other, 2],
    ] as const)
      writeFileSync(at, Buffer.alloc(MIB, fill));
    const command = [...COMMAND, ...args.map((word) => word.replace('ISO', iso))];
    const { qmp, places } = await startGuestProcess(command, run, AS_OWN);
    const ask: Ask = (name, parameters) => sayTo(runPlaces(run).monitorPath, name, parameters);
    const hardware = await hardwareOf(qmp);
    qmp.close();
    const inspect = (force = false): ReturnType<HostDriver['inspectGuest']> =>
      new HostDriver(() => run, AS_OWN.policy).inspectGuest('vm', { command, qmpPath: places.qmpPath }, [], force);
    return { ask, inspect, iso, other, hardware, there: join(folder, 'there') };
  }

  /** What lies in the drives of a QEMU that is started on a command, each as it was before. */
  async function drivesThere(
    command: readonly string[],
    there: string,
  ): Promise<{ drives: string[]; hardware: Awaited<ReturnType<typeof hardwareOf>> }> {
    const { qmp } = await startGuestProcess(relocate(command, [], there), there, { ...AS_OWN, purpose: 'try' });
    const drives = (await qmp.execute('query-block')).map(({ inserted }) => inserted?.image.filename ?? 'empty');
    const hardware = await hardwareOf(qmp);
    qmp.close();
    return { drives, hardware };
  }

  const WAYS: readonly (readonly [string, readonly string[], Readonly<Record<string, string>>])[] = [
    ['-cdrom', ['-cdrom', 'ISO'], { device: 'ide1-cd0' }],
    ['-cdrom on q35', ['-M', 'q35', '-cdrom', 'ISO'], { device: 'ide2-cd0' }],
    [
      '-drive',
      ['-drive', 'file=ISO,format=raw,media=cdrom,cache=writeback,aio=threads,readonly=on'],
      { device: 'ide0-cd0' },
    ],
    [
      '-drive and -device',
      ['-drive', 'if=none,id=cd0,file=ISO,format=raw,media=cdrom', '-device', 'ide-cd,drive=cd0,id=cd'],
      { id: 'cd' },
    ],
    ['a node', [...NODES, '-device', 'ide-cd,drive=n,id=cd,bus=ide.1'], { id: 'cd' }],
    ['a node, its device as JSON', [...NODES, '-device', IN_JSON], { id: 'cd' }],
    ['a node on SCSI', ['-device', 'virtio-scsi-pci', ...NODES, '-device', 'scsi-cd,drive=n,id=cd'], { id: 'cd' }],
    ['a floppy', ['-drive', 'if=floppy,format=raw,readonly=on,file=ISO'], { device: 'floppy0' }],
  ];

  test.each(WAYS)(
    '%s: one that was taken out is not asked for, nor opened there',
    async (_way, args, drive) => {
      const { ask, inspect, iso, hardware, there } = await started(args);
      expect(JSON.stringify((await inspect()).spec.command)).toContain(iso);
      expect((await inspect()).files).toEqual([{ path: iso, use: 'drive' }]);
      await takeOut(drive)(ask, '');
      const { spec, files } = await inspect();
      expect(JSON.stringify(spec.command)).not.toContain(iso);
      expect([files, spec.sharedFiles]).toEqual([[], []]);
      const found = await drivesThere(spec.command, there);
      expect(found.drives.filter((name) => name !== 'empty')).toEqual([]);
      expect(hardwareDifference(hardware, found.hardware)).toBeUndefined();
    },
    60_000,
  );

  test.each(WAYS)(
    '%s: one that was exchanged: the one that is in it now',
    async (_way, args, drive) => {
      const { ask, inspect, iso, other, hardware, there } = await started(args);
      await exchange(drive)(ask, other);
      const { spec, files } = await inspect();
      expect(JSON.stringify(spec.command)).not.toContain(iso);
      expect(files).toEqual([{ path: other, use: 'drive' }]);
      const found = await drivesThere(spec.command, there);
      expect(found.drives.filter((name) => name !== 'empty')).toEqual([other]);
      expect(hardwareDifference(hardware, found.hardware)).toBeUndefined();
    },
    60_000,
  );

  test('one that was put into the drive that the machine has by itself goes over', async () => {
    const { ask, inspect, other, there } = await started([]);
    await exchange({ device: 'ide1-cd0' })(ask, other);
    const { spec, files } = await inspect();
    expect(files).toEqual([{ path: other, use: 'drive' }]);
    expect((await drivesThere(spec.command, there)).drives).toContain(other);
  }, 60_000);

  test('of two drives without names, exchanged discs are refused by name, with the mend', async () => {
    const { ask, inspect, other } = await started([
      ...['-drive', 'file=ISO,media=cdrom,index=2,format=raw', '-drive', 'media=cdrom,index=3'],
    ]);
    await exchange({ device: 'ide1-cd0' })(ask, other);
    for (const force of [false, true])
      await expect(inspect(force)).rejects.toMatchObject({
        code: 'GUEST_REFUSED',
        message: expect.stringContaining(
          `its drive ide1-cd0 holds ${other}, which its command line does not name: eject it`,
        ) as string,
      });
    await takeOut({ device: 'ide1-cd0' })(ask, '');
    expect((await inspect()).files).toEqual([]);
  }, 60_000);
});
