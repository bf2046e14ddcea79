/**
 * The driver for stopped VMs that are plain image files: disks and a saved memory image. Nobody runs them, so holding
 * means making sure of that: a file that some process holds locked for writing (as QEMU does) is refused. A
 * writer without locks is found by the sync, which watches the file's times.
 */
import { DwcpError, toDwcpError } from '../model/errors';
import type { VmImage } from '../model/image';
import { openImage } from '../system/image-roots';
import type { HypervisorDriver, InspectedImage } from './contract';
import { lockHolder } from './file-locks';

async function inspectImage({ imageId, kind, path }: VmImage): Promise<InspectedImage> {
  try {
    const handle = await openImage(path);
    try {
      const { size } = await handle.stat();
      if (size === 0) throw new DwcpError('IMAGE_UNREADABLE', `${path} is empty`, { side: 'source' });
      return { imageId, kind, path, sizeBytes: size };
    } finally {
      await handle.close();
    }
  } catch (error) {
    throw toDwcpError(error, 'IMAGE_UNREADABLE', { side: 'source' });
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
