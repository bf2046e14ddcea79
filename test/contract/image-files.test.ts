/** The driver for image files under the driver contract. */
import { spawn } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { ImageFilesDriver } from '../../src/hypervisor/image-files';
import { temporaryFolder } from '../helpers/data';
import { hypervisorDriverSuite } from './hypervisor-driver.suite';

let count = 0;

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
  makeRun: async (images) => {
    // A process that locks the file, as QEMU does with its images.
    const child = spawn('flock', ['--exclusive', images[0]!.path, 'sh', '-c', 'echo locked; sleep 60'], {
      stdio: ['ignore', 'pipe', 'ignore'],
      detached: true,
    });
    await new Promise((resolve) => child.stdout.once('data', resolve));
    return async () => {
      const ended = new Promise((resolve) => child.once('close', resolve));
      process.kill(-child.pid!, 'SIGTERM');
      await ended;
    };
  },
}));
