/**
 * QEMUs that a script has started from its own folder, with short names: adopted, they are known by paths of their host, and looked at
 * and read as any other. Where nobody can say which file a name means, it is refused.
 */
import { execFileSync, spawn } from 'node:child_process';
import { mkdirSync, readFileSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { adoptGuest } from '../../src/cli/commands/guests';
import { createOutput } from '../../src/cli/output';
import { HostDriver } from '../../src/hypervisor/host-driver';
import { connectSoon } from '../../src/hypervisor/qemu/guest-process';
import { findListener, killGuestsNaming } from '../../src/hypervisor/qemu/process-table';
import { PROCESS_OPTIONS, withDefaults } from '../../src/model/options';
import { MIB } from '../../src/model/units';
import { type VmRecord, VmRegistry } from '../../src/store/vm-registry';
import { temporaryFolder } from '../helpers/data';
import { AS_OWN } from '../helpers/guest-lab';
import { describeWhere, needsRoot } from '../helpers/needs';
import { needsQemu } from '../helpers/qemu';
import { until } from '../helpers/waiting';

const PLAIN = '-accel tcg -m 16 -display none -vga none -nic none -no-shutdown';

let folder = '';
let dataDir = '';
beforeEach(() => {
  folder = temporaryFolder();
  dataDir = temporaryFolder();
  mkdirSync(join(folder, 'sub'));
  for (const name of ['a.img', 'sub/b.img', 'c d.img']) writeFileSync(join(folder, name), Buffer.alloc(MIB, 7));
  writeFileSync(join(folder, 'seed.iso'), Buffer.alloc(MIB, 9));
});
// What it was started with names no folder: the script does.
afterEach(() => {
  const pid = findListener(join(folder, 'a.qmp'))?.pid;
  if (pid !== undefined) process.kill(pid, 'SIGKILL');
  killGuestsNaming([folder]);
});

/** Every argument as a shell has read it. */
async function started(script: string): Promise<void> {
  spawn('sh', ['-c', `cd ${folder} && ${script}`], { stdio: 'inherit', detached: true }).unref();
  await until(20_000, 'its monitor', () => findListener(join(folder, 'a.qmp')) !== undefined);
  (await connectSoon(join(folder, 'a.qmp'))).close();
}

async function adopted(): Promise<VmRecord> {
  const options = withDefaults(PROCESS_OPTIONS, {});
  await adoptGuest({ dataDir, options, output: createOutput(true) }, 'vm', join(folder, 'a.qmp'));
  return new VmRegistry(dataDir).get('vm');
}

function inspect({ images, guest }: VmRecord): ReturnType<HostDriver['inspectGuest']> {
  return new HostDriver(() => join(dataDir, 'run'), AS_OWN.policy).inspectGuest('vm', guest!, images, false);
}

const EVERYTHING =
  `-drive file=a.img,format=raw,if=ide --drive 'file=c d.img,format=raw,if=virtio' ` +
  `-blockdev driver=file,node-name=f,filename=sub/b.img -blockdev driver=raw,node-name=r,file=f -device virtio-blk-pci,drive=r ` +
  '-cdrom seed.iso -serial file:serial.log -chardev socket,id=c,path=chr.sock,server=on,wait=off,logfile=c.log ' +
  '-device virtio-serial -device virtserialport,chardev=c -vnc unix:vnc.sock -pidfile a.pid -qmp unix:a.qmp,server=on,wait=off';

describeWhere([needsQemu()])('a guest that was started with short names', () => {
  test.each([
    ['', ''],
    [' in the background', '-daemonize'],
  ])(
    '%s is adopted with paths of its host, and its disks are found and read',
    async (_how, word) => {
      await started(`exec qemu-system-x86_64 ${PLAIN} ${EVERYTHING} ${word}`);
      const record = await adopted();
      const paths = ['a.img', 'c d.img', 'sub/b.img'].map((name) => join(folder, name));
      expect(record.images.map(({ path }) => path).sort()).toEqual([...paths].sort());
      const words = JSON.stringify(record.guest?.command);
      for (const name of ['a.img', 'c d.img', 'sub/b.img', 'seed.iso', 'serial.log', 'chr.sock', 'c.log', 'vnc.sock']) {
        expect(words).toContain(join(folder, name));
        expect(words.replaceAll(join(folder, name), '')).not.toContain(name);
      }
      expect(record.guest?.qmpPath).toBe(join(folder, 'a.qmp'));
      const driver = new HostDriver(() => join(dataDir, 'run'), AS_OWN.policy);
      expect(driver.isGuestUp(record.guest!)).toBe(true);
      const { spec, disks, files } = await inspect(record);
      expect(Object.values(spec.diskPaths).sort()).toEqual([...paths].sort());
      expect(disks.map(({ sizeBytes }) => sizeBytes)).toEqual([MIB, MIB, MIB]);
      expect(files).toEqual([{ path: join(folder, 'seed.iso'), use: 'drive' }]);
      expect(spec.sharedFiles).toEqual([{ path: join(folder, 'seed.iso'), sizeBytes: MIB }]);
      const port = await driver.connectGuest('vm', record.guest!, async (letRunOn) => {
        await letRunOn();
        return true;
      });
      const readers = await port.watchDisks(record.images);
      const bytes = Buffer.alloc(4096);
      await readers.get('vda')!.read(0, bytes);
      expect(bytes.equals(Buffer.alloc(4096, 7))).toBe(true);
      await port.runOn();
      port.close();
    },
    60_000,
  );

  test('with a dot before them, as scripts do', async () => {
    await started(
      `exec qemu-system-x86_64 ${PLAIN} -drive file=./a.img,format=raw -qmp unix:./a.qmp,server=on,wait=off`,
    );
    expect((await adopted()).images.map(({ path }) => path)).toEqual([join(folder, 'a.img')]);
    expect((await inspect(await adopted())).disks).toHaveLength(1);
  }, 60_000);

  test('by a way through a link and up again: the file that it has open, not the one that the words lead to', async () => {
    mkdirSync(join(folder, 'far', 'away'), { recursive: true });
    writeFileSync(join(folder, 'far', 'a.img'), Buffer.alloc(MIB, 3));
    symlinkSync(join(folder, 'far', 'away'), join(folder, 'link'));
    await started(
      `exec qemu-system-x86_64 ${PLAIN} -drive file=link/../a.img,format=raw -qmp unix:a.qmp,server=on,wait=off`,
    );
    expect((await adopted()).images.map(({ path }) => path)).toEqual([join(folder, 'far', 'a.img')]);
  }, 60_000);

  test('in the background, and nobody knows its folder: what it has open is found, what it has read is refused by name', async () => {
    writeFileSync(join(folder, 'k'), Buffer.alloc(4096));
    const script = (more: string): string =>
      `PWD=/nowhere; export PWD; exec qemu-system-x86_64 ${PLAIN} -drive file=a.img,format=raw ${more} -daemonize ` +
      `-qmp unix:${folder}/a.qmp,server=on,wait=off`;
    await started(script(''));
    const record = await adopted();
    expect(record.images.map(({ path }) => path)).toEqual([join(folder, 'a.img')]);
    process.kill(findListener(join(folder, 'a.qmp'))!.pid, 'SIGKILL');
    await until(5_000, 'its end', () => findListener(join(folder, 'a.qmp')) === undefined);
    await started(script('-vnc unix:v.sock'));
    await expect(adopted()).rejects.toMatchObject({
      code: 'GUEST_REFUSED',
      message: expect.stringContaining(
        '-vnc "v.sock" is no absolute path; name the file by its absolute path',
      ) as string,
    });
  }, 60_000);

  test('a disk that was exchanged since is not adopted as the one that it has open', async () => {
    await started(`exec qemu-system-x86_64 ${PLAIN} -drive file=a.img,format=raw -qmp unix:a.qmp,server=on,wait=off`);
    renameSync(join(folder, 'sub/b.img'), join(folder, 'new.img'));
    const record = await adopted();
    rmSync(join(folder, 'a.img'));
    renameSync(join(folder, 'new.img'), join(folder, 'a.img'));
    await expect(inspect(record)).rejects.toMatchObject({
      code: 'GUEST_REFUSED',
      message: expect.stringContaining(join(folder, 'a.img')) as string,
    });
    expect(readFileSync(join(folder, 'a.img')).equals(Buffer.alloc(MIB, 7))).toBe(true);
  }, 60_000);
});

describeWhere([needsRoot(), needsQemu()])('a guest below a root of its own', () => {
  test('is adopted by paths of its host', async () => {
    // Its root is another directory with the same programs in it.
    const jail = join(folder, 'jail');
    mkdirSync(jail);
    execFileSync('mount', ['--rbind', '/', jail]);
    try {
      execFileSync('mount', ['--make-rslave', jail]);
      await started(
        `exec chroot ${jail} sh -c "cd ${folder} && exec qemu-system-x86_64 ${PLAIN} -drive file=a.img,format=raw ` +
          `-drive file=${folder}/sub/b.img,format=raw -qmp unix:a.qmp,server=on,wait=off"`,
      );
      const record = await adopted();
      expect(record.images.map(({ path }) => path.replace(jail, ''))).toEqual(
        ['a.img', 'sub/b.img'].map((name) => join(folder, name)),
      );
      expect((await inspect(record)).disks).toHaveLength(2);
    } finally {
      const pid = findListener(join(folder, 'a.qmp'))?.pid;
      if (pid !== undefined) process.kill(pid, 'SIGKILL');
      await until(5_000, 'its end', () => findListener(join(folder, 'a.qmp')) === undefined);
      execFileSync('umount', ['-l', jail]);
    }
  }, 60_000);
});
