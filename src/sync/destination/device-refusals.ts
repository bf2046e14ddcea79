/** Why an image is not put where it was to lie, in one line with the mend. Who looks: disk-places.ts ahead, device-image.ts when it opens it. */
import { DwcpError } from '../../model/errors';
import { BLOCK_SIZE_BYTES } from '../../model/image';
import { formatBytes } from '../../model/units';

export function placeRefused(reason: string, hint?: string): DwcpError {
  return new DwcpError('PLACE_REFUSED', reason, { side: 'destination', ...(hint !== undefined && { hint }) });
}

export function inUse(path: string): DwcpError {
  return placeRefused(
    `${path} is in use on this host: mounted, or part of another device`,
    'Look at what holds it (lsblk), or name another place with --disk-map',
  );
}

export function tooSmall(path: string, size: number, wanted: number): DwcpError {
  return placeRefused(
    `${path} has ${size} bytes, and the image has ${wanted}`,
    `Make it as large (lvextend -L ${wanted}b), or name another place with --disk-map`,
  );
}

/** @param otherBlocks as far as it has been looked at */
export function holdsOther(path: string, vmId: string, imageId: string, otherBlocks: number): DwcpError {
  const bytes = formatBytes(otherBlocks * BLOCK_SIZE_BYTES);
  return placeRefused(
    `${path} holds something, ${bytes} of it at least, that is no earlier copy of ${imageId} of ${vmId}: it is not overwritten`,
    'Is it the right device? Then --overwrite-disks says so, or blkdiscard empties it; else name another place with --disk-map',
  );
}
