/**
 * Where disks come to lie at their destination, as an operator says it: `vda=/dev/vg0/web-7,vdb=file` for one migration, and for a host
 * a template such as `/dev/vg0/{vm}-{disk}`. Text to places only; whether the host lets them be is the host's own to say.
 */
import { z } from 'zod';
import { imageIdSchema } from './ids';
import { listOf } from './option-text';
import { ownValue } from './own-value';

/** In the host's own image folder. */
export const OWN_FOLDER = 'file';

/**
 * @returns a path, or OWN_FOLDER, by image id
 * @throws RangeError that says which entry cannot be read, and what one looks like
 */
export function parseDiskMap(text: string): ReadonlyMap<string, string> {
  const places = new Map<string, string>();
  for (const entry of listOf(text)) {
    const at = entry.indexOf('=');
    const [imageId, place] = [entry.slice(0, Math.max(0, at)), entry.slice(at + 1)];
    if (!imageIdSchema.safeParse(imageId).success || !(place === OWN_FOLDER || isPlain(place)))
      throw new RangeError(
        `diskMap: an entry is such as vda=/dev/vg0/web or vda=${OWN_FOLDER}, a path without "..", not "${entry}"`,
      );
    if (places.has(imageId)) throw new RangeError(`diskMap: ${imageId} is named twice`);
    if (place !== OWN_FOLDER && [...places.values()].includes(place))
      throw new RangeError(`diskMap: two disks are put on ${place}`);
    places.set(imageId, place);
  }
  return places;
}

/** As text that can be read. */
export const diskMapSchema = z
  .string()
  .max(4096)
  .refine((text) => {
    try {
      parseDiskMap(text);
      return true;
    } catch {
      return false;
    }
  }, 'a disk map is such as vda=/dev/vg0/web');

/** Written so that it says itself where it leads. */
function isPlain(path: string): boolean {
  // oxlint-disable-next-line no-control-regex -- these are what is looked for
  return path.startsWith('/') && !/\/\/|\/\.{1,2}(\/|$)|\/$|[\u0000-\u001f\u007f]/.test(path) && path.length <= 1024;
}

/** A disk's place by a host's template. @throws RangeError where the template is none */
export function placeByTemplate(template: string, vmId: string, imageId: string): string {
  const place = template.replaceAll(/\{(\w*)\}/g, (written, name: string) => {
    const value = ownValue<string>({ vm: vmId, disk: imageId }, name);
    if (value === undefined) throw new RangeError(`diskPlaces: {vm} and {disk} can be filled in, not ${written}`);
    return value;
  });
  if (!isPlain(place)) throw new RangeError(`diskPlaces: ${place} is no absolute path without ".."`);
  if (!template.includes('{vm}')) throw new RangeError('diskPlaces: without {vm} all VMs come to lie in one place');
  return place;
}
