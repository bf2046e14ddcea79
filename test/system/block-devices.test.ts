/**
 * Running guests whose disks are block devices or files of odd sizes, through the whole system: from a device into a file and back,
 * from a file onto a device and back, by DWCP and by QEMU itself. Loop devices stand for LVM volumes.
 */
import { execFileSync } from 'node:child_process';
import { appendFileSync, copyFileSync, mkdirSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { startGuestProcess } from '../../src/hypervisor/qemu/guest-process';
import { runPlaces } from '../../src/hypervisor/qemu/run-places';
import { VmRegistry } from '../../src/store/vm-registry';
import { AS_OWN, ask, countingCommand, expectCounting, isRunning, rememberFolder } from '../helpers/guest-lab';
import { type Lab, type LabHost, sharedLab } from '../helpers/lab';
import { LoopDevice, needsLoopDevices } from '../helpers/loop-device';
import { describeWhere } from '../helpers/needs';
import { buildCountingGuest, type CountingGuest, needsAssembler, needsQemu } from '../helpers/qemu';

const PAGES = 512;
const DISK_BYTES = 8 * 1024 * 1024;

describeWhere([needsQemu(), needsAssembler(), needsLoopDevices()])('a running guest’s disk', () => {
  let guest: CountingGuest;
  let deviceOnB: LoopDevice;
  let largerOnB: LoopDevice;
  let stillOnB: LoopDevice;
  let lab: Lab;
  beforeAll(async () => {
    guest = buildCountingGuest(PAGES, { pagesPerTick: 8 }, DISK_BYTES);
    deviceOnB = new LoopDevice(DISK_BYTES);
    [largerOnB, stillOnB] = [new LoopDevice(DISK_BYTES + 1024 * 1024), new LoopDevice(DISK_BYTES + 4096)];
    lab = await sharedLab({
      own: true,
      bArgs: ['--image-roots', [deviceOnB, largerOnB, stillOnB].map(({ path }) => path).join()],
    })();
  }, 60_000);

  async function start(vmId: string, path: string, command: readonly string[]): Promise<void> {
    rememberFolder(lab.folder, lab.a.dataDir, lab.b.dataDir);
    const registry = new VmRegistry(lab.a.dataDir);
    const { qmp, places } = await startGuestProcess(command, registry.runFolder(vmId), AS_OWN);
    qmp.close();
    await registry.put({
      vmId,
      images: [{ imageId: 'vda', kind: 'disk', path }],
      presence: 'here',
      generation: 0,
      guest: { command: [...command], qmpPath: places.qmpPath },
    });
    await new Promise((resolve) => setTimeout(resolve, 2_000));
  }

  const pathAt = async (host: LabHost, vmId: string): Promise<string> =>
    (await new VmRegistry(host.dataDir).get(vmId)).images[0]!.path;
  const sizeSeen = (host: LabHost, vmId: string): Promise<number | undefined> =>
    ask(host, vmId, async (qmp) => (await qmp.execute('query-block'))[0]?.inserted?.image['virtual-size']);
  /** Bit by bit, as far as the disk goes. */
  const expectEqual = (one: string, other: string): void => {
    execFileSync('cmp', ['-n', String(DISK_BYTES), one, other]);
  };
  const expectNoFilesIn = (folder: string): void =>
    expect(readdirSync(folder).filter((name) => name.includes('dwcp'))).toEqual([]);

  test.each([
    ['a drive', (path: string) => countingCommand(path)],
    [
      'nodes of libvirt’s kind',
      (path: string) => [
        ...countingCommand(path).slice(0, -2),
        '-blockdev',
        JSON.stringify({ driver: 'host_device', filename: path, 'node-name': 's', 'auto-read-only': true }),
        '-blockdev',
        JSON.stringify({ driver: 'raw', file: 's', 'node-name': 'd', 'read-only': false }),
        '-device',
        'ide-hd,drive=d',
      ],
    ],
  ])(
    'moves from a device into a file and back, described as %s',
    async (name, commandOf) => {
      const device = new LoopDevice(DISK_BYTES);
      device.fill(guest.image);
      const vmId = name.startsWith('a') ? 'drive' : 'nodes';
      await start(vmId, device.path, commandOf(device.path));
      const before = await expectCounting(lab.a, vmId, PAGES, 1);
      const there = await lab.result(await lab.migrate(vmId));
      expect(there).toMatchObject({ path: 'dwcp', guest: { responds: true } });
      expect([await isRunning(lab.a, vmId), await isRunning(lab.b, vmId)]).toEqual([false, true]);
      device.expectThere();
      expectEqual(device.path, await pathAt(lab.b, vmId));
      expect(await sizeSeen(lab.b, vmId)).toBe(DISK_BYTES);
      const counted = await expectCounting(lab.b, vmId, PAGES, before);
      const back = await lab.result(await lab.orchestrator.migrateVm(vmId, lab.b.hostId, lab.a.hostId));
      expect(await pathAt(lab.a, vmId)).toBe(device.path);
      expect(await isRunning(lab.a, vmId)).toBe(true);
      await expectCounting(lab.a, vmId, PAGES, counted);
      expect(back.images.find(({ kind }) => kind === 'disk')).toMatchObject({ began: 'baseline' });
      expect(back.images.find(({ kind }) => kind === 'disk')!.deltaHitRate).toBeGreaterThanOrEqual(0.97);
      device.expectThere();
      expectNoFilesIn('/dev');
      await lab.untilClean();
    },
    120_000,
  );

  test('moves from a file onto a larger device, sees no difference, and back', async () => {
    const folder = lab.vmFolder('onto');
    mkdirSync(folder, { recursive: true });
    const disk = join(folder, 'disk.img');
    copyFileSync(guest.image, disk);
    await start('onto', disk, countingCommand(disk));
    const before = await expectCounting(lab.a, 'onto', PAGES, 1);
    await lab.result(await lab.migrate('onto', { diskMap: `vda=${largerOnB.path}` }));
    expect(await pathAt(lab.b, 'onto')).toBe(largerOnB.path);
    expect(await sizeSeen(lab.b, 'onto')).toBe(DISK_BYTES);
    expectEqual(largerOnB.path, `${disk}.dwcp-baseline`);
    const counted = await expectCounting(lab.b, 'onto', PAGES, before);
    const back = await lab.result(await lab.orchestrator.migrateVm('onto', lab.b.hostId, lab.a.hostId));
    await expectCounting(lab.a, 'onto', PAGES, counted);
    expect(back.images.find(({ kind }) => kind === 'disk')!.deltaHitRate).toBeGreaterThanOrEqual(0.97);
    // And there once more, by itself, onto what it has left.
    const again = await lab.result(await lab.migrate('onto'));
    expect(await pathAt(lab.b, 'onto')).toBe(largerOnB.path);
    expect(again.images.find(({ kind }) => kind === 'disk')).toMatchObject({ began: 'baseline' });
    largerOnB.expectThere();
    expectNoFilesIn('/dev');
    await lab.untilClean();
  }, 120_000);

  test('that does not run moves onto a larger device, starts there, and back', async () => {
    const folder = lab.vmFolder('still');
    mkdirSync(folder, { recursive: true });
    const disk = join(folder, 'disk.img');
    copyFileSync(guest.image, disk);
    const device = stillOnB.path;
    const command = countingCommand(disk);
    const registry = new VmRegistry(lab.a.dataDir);
    await registry.put({
      vmId: 'still',
      images: [{ imageId: 'vda', kind: 'disk', path: disk }],
      presence: 'here',
      generation: 0,
      guest: { command, qmpPath: runPlaces(registry.runFolder('still')).qmpPath },
    });
    await lab.result(await lab.migrate('still', { diskMap: `vda=${device}` }));
    expectEqual(device, `${disk}.dwcp-baseline`);
    rememberFolder(lab.folder, lab.a.dataDir, lab.b.dataDir);
    const onB = new VmRegistry(lab.b.dataDir);
    const { guest: there } = await onB.get('still');
    const { qmp } = await startGuestProcess(there!.command, onB.runFolder('still'), AS_OWN);
    const [seen] = await qmp.execute('query-block');
    expect(seen?.inserted?.image['virtual-size']).toBe(DISK_BYTES);
    await qmp.execute('quit').catch(() => undefined);
    qmp.close();
    const back = await lab.result(await lab.orchestrator.migrateVm('still', lab.b.hostId, lab.a.hostId));
    expect(back.images).toMatchObject([{ imageId: 'vda', totalBytes: DISK_BYTES, began: 'baseline' }]);
    expect(back.images[0]!.deltaHitRate).toBeGreaterThanOrEqual(0.97);
    expectEqual(disk, device);
    await lab.untilClean();
  }, 240_000);

  test('moves onto a device by QEMU itself', async () => {
    const folder = lab.vmFolder('mirrored');
    mkdirSync(folder, { recursive: true });
    const disk = join(folder, 'disk.img');
    copyFileSync(guest.image, disk);
    await start('mirrored', disk, countingCommand(disk));
    const before = await expectCounting(lab.a, 'mirrored', PAGES, 1);
    const options = { enableDwcp: false, maxDowntimeMs: 5_000 };
    await lab.result(await lab.migrate('mirrored', { ...options, diskMap: `vda=${deviceOnB.path}` }));
    expect(await isRunning(lab.b, 'mirrored')).toBe(true);
    expectEqual(deviceOnB.path, `${disk}.dwcp-baseline`);
    const counted = await expectCounting(lab.b, 'mirrored', PAGES, before);
    await lab.result(await lab.orchestrator.migrateVm('mirrored', lab.b.hostId, lab.a.hostId, options));
    await expectCounting(lab.a, 'mirrored', PAGES, counted);
    deviceOnB.expectThere();
    await lab.untilClean();
  }, 120_000);

  test('a device that the destination does not name is refused, and the guest has not stood still', async () => {
    const folder = lab.vmFolder('refused');
    mkdirSync(folder, { recursive: true });
    const disk = join(folder, 'disk.img');
    copyFileSync(guest.image, disk);
    await start('refused', disk, countingCommand(disk));
    const elsewhere = new LoopDevice(DISK_BYTES);
    const id = await lab.migrate('refused', { diskMap: `vda=${elsewhere.path}`, overwriteDisks: true });
    await expect(lab.result(id)).rejects.toMatchObject({ code: 'PLACE_REFUSED' });
    expect(await isRunning(lab.a, 'refused')).toBe(true);
    await lab.untilClean();
  }, 60_000);

  test.each([1, 511, 12_345])(
    'of an odd size, %i bytes behind a whole sector, moves as its guest sees it, and back',
    async (bytes) => {
      const vmId = `odd-${bytes}`;
      const folder = lab.vmFolder(vmId);
      mkdirSync(folder, { recursive: true });
      const [disk, original] = [join(folder, 'disk.img'), join(folder, 'original')];
      copyFileSync(guest.image, disk);
      appendFileSync(disk, Buffer.alloc(bytes, 7));
      copyFileSync(disk, original);
      const seen = Math.ceil(statSync(disk).size / 512) * 512;
      await start(vmId, disk, countingCommand(disk));
      const before = await expectCounting(lab.a, vmId, PAGES, 1);
      await lab.result(await lab.migrate(vmId));
      const arrived = await pathAt(lab.b, vmId);
      expect(statSync(arrived).size).toBe(seen);
      execFileSync('qemu-img', ['compare', '-U', '-f', 'raw', '-F', 'raw', arrived, original]);
      const counted = await expectCounting(lab.b, vmId, PAGES, before);
      const back = await lab.result(await lab.orchestrator.migrateVm(vmId, lab.b.hostId, lab.a.hostId));
      expect(back.images.find(({ kind }) => kind === 'disk')!.deltaHitRate).toBeGreaterThanOrEqual(0.97);
      execFileSync('qemu-img', ['compare', '-U', '-f', 'raw', '-F', 'raw', disk, original]);
      await expectCounting(lab.a, vmId, PAGES, counted);
      await lab.untilClean();
    },
    120_000,
  );
});
