/**
 * Where an id becomes a name in a folder: the one place, for VMs, images, migrations, bases and dictionaries alike. An id that is
 * no name (src/model/ids.ts) becomes no path, whoever has sent it and whatever lies on disk, so nothing is read, written or
 * removed outside the folder that it was meant for.
 */
import { basename, dirname, join } from 'node:path';
import { DwcpError } from '../model/errors';
import { nameSchema } from '../model/ids';
import { namesIn } from './durable-file';

/** @param suffix of the file, as `.json` @throws INVALID_INPUT where the id is no name */
export function idPath(folder: string, id: string, suffix = ''): string {
  const path = join(folder, `${id}${suffix}`);
  // The second look holds by itself, also where the alphabet of names should once grow.
  if (nameSchema.safeParse(id).success && dirname(path) === join(folder) && basename(path) === `${id}${suffix}`)
    return path;
  throw new DwcpError('INVALID_INPUT', `"${id.slice(0, 60)}" is no name, and becomes no path`);
}

/** The ids that files of a folder are named by; what else lies there is passed over. */
export async function idsIn(folder: string, suffix = ''): Promise<string[]> {
  return (await namesIn(folder))
    .filter((name) => name.endsWith(suffix))
    .map((name) => name.slice(0, name.length - suffix.length))
    .filter((id) => nameSchema.safeParse(id).success);
}

/** What was read back is what was asked for. @throws JOURNAL_CORRUPT where a file says that it is another's */
export function assertSameId(path: string, asked: string, found: string): void {
  if (asked === found) return;
  throw new DwcpError('JOURNAL_CORRUPT', `${path} says that it is of "${found.slice(0, 60)}", not of ${asked}`);
}
