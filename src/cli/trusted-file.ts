/**
 * Whether a file may speak for the user who runs a command: nobody but them, or root, has written it, or can. A dwcp.yaml that
 * somebody has left in a folder where this user happens to stand names addresses, keys and folders; root's command would do as it says.
 */
import { closeSync, fstatSync, lstatSync, openSync, readFileSync, type Stats, statSync } from 'node:fs';
import { dirname, resolve } from 'node:path';

const STICKY = 0o1000;

/** By others than its owner; a group of one's own (same number as the user's) is no other. */
function othersMayWrite({ mode, uid, gid }: Pick<Stats, 'mode' | 'uid' | 'gid'>): boolean {
  return (mode & 0o002) !== 0 || ((mode & 0o020) !== 0 && gid !== uid);
}

/** Why a file is not to be believed by a user, in words; undefined where it may be. */
export function distrustOf(
  file: Pick<Stats, 'mode' | 'uid' | 'gid'>,
  folder: Pick<Stats, 'mode' | 'uid' | 'gid'>,
  user: number,
): string | undefined {
  const isOurs = (uid: number): boolean => uid === user || uid === 0;
  if (!isOurs(file.uid)) return `it belongs to user ${file.uid}`;
  if (othersMayWrite(file)) return 'others may write it';
  if (!isOurs(folder.uid)) return `its folder belongs to user ${folder.uid}`;
  // In /tmp and its like nobody can replace a file that is another's: who owns it is enough to know.
  if (othersMayWrite(folder) && (folder.mode & STICKY) === 0) return 'others may write its folder';
  return undefined;
}

export interface ReadFile {
  readonly text: string;
  readonly distrust: string | undefined;
}

/** Reads what was looked at: the open file, whatever its name stands for a moment later. @throws what the system says */
export function readJudged(path: string): ReadFile {
  const fd = openSync(path, 'r');
  try {
    const user = process.getuid?.();
    const text = readFileSync(fd, 'utf8');
    if (user === undefined) return { text, distrust: undefined };
    const folder = statSync(dirname(resolve(path)));
    const name = lstatSync(path);
    // A link is as good as what it leads to, and as whoever has put it there.
    const linked = name.isSymbolicLink() ? distrustOf({ ...pick(name), mode: 0o600 }, folder, user) : undefined;
    return { text, distrust: linked ?? distrustOf(fstatSync(fd), folder, user) };
  } finally {
    closeSync(fd);
  }
}

function pick({ uid, gid }: Stats): { uid: number; gid: number } {
  return { uid, gid };
}
