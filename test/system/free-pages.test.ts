/**
 * A real Linux guest with a balloon device that hints at free pages: what the guest has freed before its move does not travel, the result
 * says how much that was, and the guest goes on with what it has; on the way back too, onto what is kept there.
 */
import { copyFileSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { cpioOf } from '../../src/cli/demo/cpio';
import { guestPackages, initramfs, MODULES, serialLine, ticksOf } from '../../src/cli/demo/linux-guest';
import { startGuestProcess } from '../../src/hypervisor/qemu/guest-process';
import { MIB } from '../../src/model/units';
import { VmRegistry } from '../../src/store/vm-registry';
import { AS_OWN, rememberFolder } from '../helpers/guest-lab';
import { type Lab, type LabHost, sharedLab } from '../helpers/lab';
import { describeWhere } from '../helpers/needs';
import { needsQemu } from '../helpers/qemu';
import { until } from '../helpers/waiting';

const MEMORY_MIB = 256;
const FREED_MIB = 96;
const KEPT_MIB = 8;

/** Random bytes, most of them freed again; what is kept is looked at again and again. */
const INIT = `#!/bin/sh
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev 2>/dev/null; mount -t tmpfs tmpfs /run
for m in ${[...MODULES, 'virtio_balloon'].join(' ')}; do insmod /modules/$m.ko; done
dd if=/dev/urandom of=/run/kept bs=1M count=${KEPT_MIB} 2>/dev/null
(cd /run && md5sum kept > /run/sums)
dd if=/dev/urandom of=/run/freed bs=1M count=${FREED_MIB} 2>/dev/null
busybox rm /run/freed
i=0
while true; do
  i=$((i+1)); bad=""
  (cd /run && md5sum -c sums >/dev/null 2>&1) || bad=" BAD kept"
  echo "tick $i$bad" > /dev/ttyS0
  sleep 0.3
done
`;

describeWhere([needsQemu()])('a guest that hints at free pages', () => {
  const shared = sharedLab({ own: true });

  test('moves without what it has freed, there and back, and goes on with what it has', async () => {
    const lab = await shared();
    rememberFolder(lab.folder, lab.a.dataDir, lab.b.dataDir);
    await startHinting(lab, 'hinting');
    await serialLine(serialOn(lab.a, 'hinting'), /^tick 5$/, 120_000);

    // Slow enough that the guest has said what is free before its memory has gone.
    const options = { bandwidthLimit: 4 * MIB };
    const there = await lab.result(await lab.migrate('hinting', options));
    expect(there).toMatchObject({ path: 'dwcp', guest: { responds: true } });
    expect(there.guest!.leftOutBytes).toBeGreaterThan((FREED_MIB / 2) * MIB);
    // Random bytes do not compress: they would be all there.
    expect(there.linkBytes).toBeLessThan((FREED_MIB / 2 + KEPT_MIB + 48) * MIB);
    await ticksOn(serialOn(lab.b, 'hinting'), ticksOf(serialOn(lab.a, 'hinting')).last + 10);

    const back = await lab.result(await lab.orchestrator.migrateVm('hinting', lab.b.hostId, lab.a.hostId, options));
    expect(back).toMatchObject({ path: 'dwcp', guest: { responds: true }, images: [{ began: 'baseline' }] });
    await ticksOn(serialOn(lab.a, 'hinting'), ticksOf(serialOn(lab.b, 'hinting')).last + 10);
    await lab.untilClean();
  }, 400_000);
});

async function startHinting(lab: Lab, vmId: string): Promise<void> {
  const parts = await guestPackages(lab.children, () => undefined);
  const folder = lab.vmFolder(vmId);
  mkdirSync(folder, { recursive: true });
  const [kernel, initrd] = [join(folder, 'vmlinuz'), join(folder, 'initrd')];
  copyFileSync(parts.kernel, kernel);
  writeFileSync(initrd, gzipSync(cpioOf(initramfs(parts, INIT, ['virtio_balloon'])), { level: 1 }));
  const registry = new VmRegistry(lab.a.dataDir);
  mkdirSync(registry.runFolder(vmId), { recursive: true });
  const command = [
    ...[
      'qemu-system-x86_64',
      '-accel',
      'tcg',
      '-M',
      'q35',
      '-m',
      String(MEMORY_MIB),
      '-display',
      'none',
      '-vga',
      'none',
    ],
    ...['-nic', 'none', '-serial', `file:${serialOn(lab.a, vmId)}`, '-kernel', kernel, '-initrd', initrd],
    ...['-append', 'console=ttyS0 quiet panic=1', '-object', 'iothread,id=io0'],
    ...['-device', 'virtio-balloon-pci,free-page-hint=on,free-page-reporting=off,iothread=io0'],
  ];
  const { qmp, places } = await startGuestProcess(command, registry.runFolder(vmId), AS_OWN);
  qmp.close();
  const guest = { command, qmpPath: places.qmpPath };
  await registry.put({ vmId, images: [], presence: 'here', generation: 0, guest });
}

function serialOn(host: LabHost, vmId: string): string {
  return join(new VmRegistry(host.dataDir).runFolder(vmId), 'serial.log');
}

async function ticksOn(serial: string, atLeast: number): Promise<void> {
  await until(90_000, `the guest ticks on to ${atLeast}`, () => ticksOf(serial).last >= atLeast);
  expect(ticksOf(serial).bad).toEqual([]);
}
