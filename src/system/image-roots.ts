/**
 * The folders that images of VMs lie in, and opening one there: below a root by the kernel's own rule. An image that lies in none, as an
 * operator has defined it where no roots are named, is opened as it is named. Whether it may lie there at all is the registry's.
 */
import { constants, openSync } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { isDevicePath, openDevice } from './block-device';
import { isWithin, openBeneath, openBeneathSync, realOf } from './open-beneath';

/** As they are written. */
const roots = new Set<string>();

/** From now on, for this process. */
export function addImageRoots(folders: readonly string[]): void {
  for (const folder of folders) roots.add(resolve(folder));
}

export function openImage(path: string, flags: number = constants.O_RDONLY, mode = 0o600): Promise<FileHandle> {
  if (isDevicePath(path)) return openDevice(path, flags);
  const place = placeOf(path);
  return place ? openBeneath(place.root, place.path, flags, mode) : open(path, flags, mode);
}

export function openImageSync(path: string, flags: number, mode = 0o600): number {
  const place = placeOf(path);
  return place ? openBeneathSync(place.root, place.path, flags, mode) : openSync(path, flags, mode);
}

/** @throws Error where it should lie below a root, and its folder leads elsewhere */
function placeOf(path: string): { readonly root: string; readonly path: string } | undefined {
  if (roots.size === 0) return undefined;
  const real = join(realOf(dirname(resolve(path))), basename(path));
  const [root] = [...roots]
    .map(realOf)
    .filter((each) => isWithin(real, each))
    .sort((a, b) => b.length - a.length);
  if (root !== undefined) return { root, path: real };
  if (![...roots].some((each) => isWithin(resolve(path), each))) return undefined;
  throw new Error(`${path} lies in ${dirname(real)}, outside of this host’s image folders; name that in imageRoots`);
}
