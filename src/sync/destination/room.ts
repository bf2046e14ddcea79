/**
 * Refuses early what a full disk would refuse late: by what the images hold at their source, on the file systems that they come to. It
 * is a forecast, which writing decides: zeros that take room there take none here. `--force` leaves it out.
 */
import { stat, statfs } from 'node:fs/promises';
import { dirname } from 'node:path';
import { DwcpError } from '../../model/errors';
import type { AllocatedBytes, ImageSpec, VmImage } from '../../model/image';
import { formatBytes, MIB } from '../../model/units';
import type { BaselineListing } from '../../store/baselines';

/** Journals and logs go on where images come to. */
const RESERVE_BYTES = 16 * MIB;
/** Of an image of which it is not known, a guest's memory among them: what is certain to be needed. */
const ASSUMED_SHARE = 0.05;

interface FileSystem {
  readonly folder: string;
  readonly freeBytes: number;
  neededBytes: number;
}

/**
 * @param images at their places here
 * @param allocated at the source
 * @param held by this host, of which the VM's own give their room to it
 * @throws DISK_FULL
 */
export async function assertRoom(
  images: readonly (VmImage & ImageSpec)[],
  allocated: AllocatedBytes,
  held: readonly BaselineListing[],
  vmId: string,
): Promise<void> {
  const systems = new Map<number, FileSystem>();
  for (const { imageId, path, sizeBytes } of images) {
    const { device, folder, freeBytes } = await fileSystemOf(path);
    const system = systems.get(device) ?? { folder, freeBytes, neededBytes: 0 };
    const known = Object.hasOwn(allocated, imageId) ? allocated[imageId] : undefined;
    const given = held.find((record) => record.vmId === vmId && record.imageId === imageId)?.allocatedBytes ?? 0;
    system.neededBytes += Math.max(0, Math.min(sizeBytes, known ?? sizeBytes * ASSUMED_SHARE) - given);
    systems.set(device, system);
  }
  for (const { folder, freeBytes, neededBytes } of systems.values())
    if (neededBytes > 0 && neededBytes + RESERVE_BYTES > freeBytes)
      throw new DwcpError(
        'DISK_FULL',
        `The images of ${vmId} take about ${formatBytes(neededBytes)} and ${formatBytes(freeBytes)} are free under ${folder}`,
        {
          side: 'destination',
          hint: 'Free space (`dwcp baseline prune` helps), then `dwcp retry`; where much of it is zeros, migrate with --force',
        },
      );
}

/** Of the nearest folder that is there. */
async function fileSystemOf(
  path: string,
): Promise<{ readonly device: number; readonly folder: string; readonly freeBytes: number }> {
  for (let folder = dirname(path); ; folder = dirname(folder)) {
    const found = await stat(folder).catch(() => undefined);
    if (!found && folder !== dirname(folder)) continue;
    const { bavail, bsize } = await statfs(folder);
    return { device: found?.dev ?? 0, folder, freeBytes: bavail * bsize };
  }
}
