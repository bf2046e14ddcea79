/**
 * Programs in a folder that this process may run: only root, or whoever this process runs as, can have put them there. Anybody else who
 * could write one, or a folder on the way to it, would choose what runs with this process's rights.
 */
import { lstat, readdir, realpath, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { errnoOf } from '../model/errors';

const ROOT = 0;
const STICKY = 0o1000;
const EXECUTE = 0o111;
/** Of editors, packagers and for people to read. */
const NO_PROGRAM = /^\.|~$|\.(bak|orig|rej|swp|disabled|md|json)$|\.dpkg-\w+$/;

export interface OwnProgram {
  readonly name: string;
  readonly path: string;
  /** Why it may not be run, with the mend; undefined where it may. */
  readonly distrust: string | undefined;
}

/** Its programs, by name; none where there is no such folder. What cannot be executed is none. */
export async function ownPrograms(folder: string): Promise<OwnProgram[]> {
  const found: OwnProgram[] = [];
  for (const name of (await namesIn(folder)).filter((each) => !NO_PROGRAM.test(each)).sort()) {
    const path = join(folder, name);
    const file = await stat(path).catch(() => undefined);
    if (!file?.isFile() || (file.mode & EXECUTE) === 0) continue;
    found.push({ name, path, distrust: await distrustOf(path) });
  }
  return found;
}

/** Of the file, of a link to it, and of every folder on both ways there. */
async function distrustOf(path: string): Promise<string | undefined> {
  const real = await realpath(path);
  const folders = [dirname(real), await realpath(dirname(path))].flatMap(upwards);
  for (const each of [real, ...new Set(folders)]) {
    const { uid, gid, mode } = await lstat(each);
    const us = process.getuid?.() ?? ROOT;
    if (uid !== ROOT && uid !== us) return `${each} belongs to user ${uid} (chown root)`;
    const othersWrite = (mode & 0o002) !== 0 || ((mode & 0o020) !== 0 && gid !== ROOT);
    // Where nobody removes what is another's, its owner says enough.
    if (othersWrite && (each === real || (mode & STICKY) === 0)) return `others may write ${each} (chmod go-w)`;
  }
  return undefined;
}

function upwards(folder: string): string[] {
  return dirname(folder) === folder ? [folder] : [folder, ...upwards(dirname(folder))];
}

async function namesIn(folder: string): Promise<string[]> {
  try {
    return await readdir(folder);
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return [];
    throw error;
  }
}
