/**
 * A real Linux guest with a balloon device that hints at free pages: what it has freed is not in the first pass of its memory, also
 * where the guest has been looked at before, and how much that is can be told. (Without KVM, Linux' clearing of what it hints at counts
 * as written, and comes later, as zeros.)
 */
import { copyFileSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { Children } from '../../src/cli/demo/children';
import { cpioOf } from '../../src/cli/demo/cpio';
import { guestPackages, initramfs, MODULES, serialLine } from '../../src/cli/demo/linux-guest';
import type { MemoryStart } from '../../src/hypervisor/contract';
import { HostDriver } from '../../src/hypervisor/host-driver';
import { startGuestProcess } from '../../src/hypervisor/qemu/guest-process';
import { type RamBlock, RamLayout } from '../../src/model/guest';
import { blockCount, PAGE_SIZE_BYTES } from '../../src/model/image';
import { MIB } from '../../src/model/units';
import { temporaryFolder } from '../helpers/data';
import { AS_OWN, rememberFolder } from '../helpers/guest-lab';
import { HEARS_NOTHING } from '../helpers/heard-memory';
import { describeWhere } from '../helpers/needs';
import { needsQemu } from '../helpers/qemu';
import { until } from '../helpers/waiting';

const MEMORY_MIB = 256;
const FREED_MIB = 96;
const TRIES = 5;

/** Random bytes, freed again. */
const INIT = `#!/bin/sh
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev 2>/dev/null; mount -t tmpfs tmpfs /run
for m in ${[...MODULES, 'virtio_balloon'].join(' ')}; do insmod /modules/$m.ko; done
dd if=/dev/urandom of=/run/freed bs=1M count=${FREED_MIB} 2>/dev/null
busybox rm /run/freed
echo ready > /dev/ttyS0
while true; do sleep 1; done
`;

describeWhere([needsQemu()])('the memory of a guest that hints at free pages', () => {
  test('comes without what it has freed', async () => {
    const { driver, definition } = await started();
    const { spec } = await driver.inspectGuest('vm', definition, [], false);
    // A guest that hardly gets a processor may say it too late for one stream.
    for (let tries = 1; ; tries += 1) {
      const port = await driver.connectGuest('vm', definition, async (letRunOn) => {
        await letRunOn();
        return true;
      });
      try {
        await port.startMemory(memoryOf(spec.ramBlocks));
        await until(60_000, 'a first pass is through', async () => (await port.info()).rounds > 1);
        if (port.leftOutBytes === 0 && tries < TRIES) continue;
        expect(port.leftOutBytes).toBeGreaterThan(4 * MIB);
        expect(port.leftOutBytes).toBeLessThan(MEMORY_MIB * MIB);
        return;
      } finally {
        await port.runOn();
        port.close();
      }
    }
  }, 200_000);
});

function memoryOf(ramBlocks: readonly RamBlock[]): MemoryStart {
  const { sizeBytes } = new RamLayout(ramBlocks);
  return {
    path: join(temporaryFolder(), 'memory.img'),
    ramBlocks,
    blankPages: () => new Uint8Array(sizeBytes / PAGE_SIZE_BYTES),
    settled: new Uint8Array(blockCount(sizeBytes)),
    autoConverge: false,
    events: HEARS_NOTHING,
  };
}

async function started() {
  const folder = temporaryFolder();
  rememberFolder(folder);
  const parts = await guestPackages(new Children(join(folder, 'logs')), () => undefined);
  const [kernel, initrd, serial, run] = ['vmlinuz', 'initrd', 'serial', 'run'].map((name) => join(folder, name)) as [
    string,
    string,
    string,
    string,
  ];
  mkdirSync(run);
  copyFileSync(parts.kernel, kernel);
  writeFileSync(initrd, gzipSync(cpioOf(initramfs(parts, INIT, ['virtio_balloon'])), { level: 1 }));
  const command = [
    ...['qemu-system-x86_64', '-accel', 'tcg', '-M', 'q35', '-m', String(MEMORY_MIB), '-display', 'none'],
    ...['-vga', 'none', '-nic', 'none', '-serial', `file:${serial}`, '-kernel', kernel, '-initrd', initrd],
    ...['-append', 'console=ttyS0 quiet panic=1', '-object', 'iothread,id=io0'],
    ...['-device', 'virtio-balloon-pci,free-page-hint=on,iothread=io0'],
  ];
  const { qmp, places } = await startGuestProcess(command, run, AS_OWN);
  qmp.close();
  await serialLine(serial, /^ready$/, 120_000);
  return { driver: new HostDriver(() => run, AS_OWN.policy), definition: { command, qmpPath: places.qmpPath } };
}
