/** The driver for image files under the driver contract. */
import { spawn } from 'node:child_process';
import { statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { lockHolder } from '../../src/hypervisor/file-locks';
import { ImageFilesDriver } from '../../src/hypervisor/image-files';
import { temporaryFolder } from '../helpers/data';
import { SmallDisk } from '../helpers/host-disks';
import { describeWhere, needsRoot } from '../helpers/needs';
import { hypervisorDriverSuite } from './hypervisor-driver.suite';

let count = 0;

async function lock(path: string): Promise<() => Promise<void>> {
  // A process that locks the file, as QEMU does with its images.
  const child = spawn('flock', ['--exclusive', path, 'sh', '-c', 'echo locked; sleep 60'], {
    stdio: ['ignore', 'pipe', 'ignore'],
    detached: true,
  });
  await new Promise((resolve) => child.stdout.once('data', resolve));
  return async () => {
    const ended = new Promise((resolve) => child.once('close', resolve));
    process.kill(-child.pid!, 'SIGTERM');
    await ended;
  };
}

hypervisorDriverSuite('image files', () => ({
  driver: new ImageFilesDriver(),
  makeVm: () => {
    const folder = temporaryFolder();
    const disk = join(folder, `disk-${count++}.img`);
    const memory = join(folder, 'memory.img');
    writeFileSync(disk, Buffer.alloc(100_000, 1));
    writeFileSync(memory, Buffer.alloc(70_000, 2));
    return Promise.resolve([
      { imageId: 'vda', kind: 'disk' as const, path: disk },
      { imageId: 'memory', kind: 'memory' as const, path: memory },
    ]);
  },
  makeRun: (images) => lock(images[0]!.path),
}));

describeWhere([needsRoot()])('on two disks', () => {
  test('a locked file is not taken for the one of the same inode number on the other disk', async () => {
    const disks = [new SmallDisk('1m'), new SmallDisk('1m')];
    const [locked, free] = disks.map(({ folder }) => join(folder, 'disk.img')) as [string, string];
    for (const path of [locked, free]) writeFileSync(path, Buffer.alloc(4096, 1));
    expect(statSync(locked).ino).toBe(statSync(free).ino);
    const unlock = await lock(locked);
    expect(await lockHolder(locked)).toBeGreaterThan(0);
    expect(await lockHolder(free)).toBeUndefined();
    await unlock();
    for (const disk of disks) await disk.remove();
  });
});
