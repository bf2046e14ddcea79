/**
 * The driver for stopped VMs that are plain image files: disks and a saved memory image. Nobody runs them, so holding
 * means making sure of that: a file that some process holds locked for writing (as QEMU does) is refused. A
 * writer without locks is found by the sync, which watches the file's times.
 */
import { constants } from 'node:fs/promises';
import { DwcpError, errnoOf, toDwcpError } from '../model/errors';
import type { VmImage } from '../model/image';
import { deviceBytes, isBlockDevice, isDevicePath, openDevice } from '../system/block-device';
import { openImage } from '../system/image-roots';
import type { HypervisorDriver, InspectedImage } from './contract';
import { lockHolder } from './file-locks';

async function inspectImage({ imageId, kind, path, sizeBytes }: VmImage): Promise<InspectedImage> {
  try {
    const handle = await openImage(path);
    try {
      const isDevice = isDevicePath(path);
      const size = isDevice ? await deviceBytes(handle) : (await handle.stat()).size;
      assertNamedAsDevice(path);
      if (size === 0) throw new DwcpError('IMAGE_UNREADABLE', `${path} is empty`, { side: 'source' });
      // A file is as large as it is: what a QCOW2 file holds is not what it takes.
      if (!isDevice || sizeBytes === undefined) return { imageId, kind, path, sizeBytes: size };
      if (size < sizeBytes)
        throw new DwcpError('IMAGE_UNREADABLE', `${path} has ${size} bytes, and the image on it has ${sizeBytes}`, {
          side: 'source',
        });
      return { imageId, kind, path, sizeBytes };
    } finally {
      await handle.close();
    }
  } catch (error) {
    throw toDwcpError(error, 'IMAGE_UNREADABLE', { side: 'source' });
  }
}

/** What becomes of an image's file, and what of a device, is told by the path. @throws IMAGE_UNREADABLE */
export function assertNamedAsDevice(path: string): void {
  if (!isDevicePath(path) && isBlockDevice(path))
    throw new DwcpError('IMAGE_UNREADABLE', `${path} leads to a block device: name that by its path below /dev`, {
      side: 'source',
    });
}

/** @throws VM_RUNNING where a device is mounted, or part of another */
async function assertNotInUse(path: string): Promise<void> {
  try {
    await (await openDevice(path, constants.O_RDONLY | constants.O_EXCL)).close();
  } catch (error) {
    if (errnoOf(error) !== 'EBUSY') throw toDwcpError(error, 'IMAGE_UNREADABLE', { side: 'source' });
    throw new DwcpError('VM_RUNNING', `${path} is in use on this host: mounted, or part of another device`, {
      side: 'source',
      hint: 'Unmount it (lsblk shows what holds it), then migrate again',
    });
  }
}

export class ImageFilesDriver implements HypervisorDriver {
  readonly name = 'image-files';

  async inspect(images: readonly VmImage[]): Promise<readonly InspectedImage[]> {
    return Promise.all(images.map(inspectImage));
  }

  async hold(images: readonly VmImage[]): Promise<void> {
    await this.inspect(images);
    for (const { path } of images) {
      if (isDevicePath(path)) await assertNotInUse(path);
      const holder = await lockHolder(path);
      if (holder === undefined) continue;
      const who = holder > 0 ? `process ${holder}` : 'a process';
      throw new DwcpError('VM_RUNNING', `${path} is locked by ${who}: the VM seems to run`, { side: 'source' });
    }
  }

  resume(): Promise<void> {
    return Promise.resolve();
  }

  activate(images: readonly VmImage[]): Promise<void> {
    return this.inspect(images).then(() => undefined);
  }
}
