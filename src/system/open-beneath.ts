/**
 * Opening a file below a folder so that the kernel keeps the way inside it: no link, whoever puts it there and when, leads out
 * (openat2(2), RESOLVE_BENEATH), and what is no ordinary file is not waited for. Without openat2 (Linux before 5.6, some sandboxes, no
 * koffi) the way is looked at first, which holds against all but a link that is put there at that moment.
 */
import { closeSync, constants, fstatSync, openSync, realpathSync } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { constants as osConstants } from 'node:os';
import { basename, dirname, join, relative, resolve, sep } from 'node:path';
import { getSystemErrorName } from 'node:util';
import { lastErrno, libcFunction } from './libc';

/** Linux: one number on every processor. */
const OPENAT2 = 437;
const RESOLVE_NO_MAGICLINKS = 2;
const RESOLVE_BENEATH = 8;
const HOW_BYTES = 24;
const O_CLOEXEC = 0o2000000;
const O_PATH = 0o10000000;
const { ENOSYS, EPERM, EAGAIN, EXDEV } = osConstants.errno;
/** The kernel says EAGAIN where something above was renamed meanwhile. */
const TRIES = 8;
const ONLY_ONCE = constants.O_CREAT | constants.O_EXCL | constants.O_TRUNC | constants.O_NOFOLLOW;

const syscall = libcFunction(
  'int64_t syscall(int64_t number, int folder, const char *path, void *how, size_t size)',
) as () => ((number: number, folder: number, path: string, how: Buffer, size: number) => number) | undefined;

/** Whether a path lies below one of the folders, as it is written and as it leads; what is not there yet by what is. */
export function liesBelow(path: string, folders: readonly string[]): boolean {
  if (!folders.some((folder) => isWithin(resolve(path), resolve(folder)))) return false;
  const real = realOf(path);
  return folders.some((folder) => isWithin(real, realOf(folder)));
}

/** A path with every link of it followed that is there. */
export function realOf(path: string): string {
  try {
    return realpathSync(path);
  } catch {
    const above = dirname(resolve(path));
    return above === resolve(path) ? above : join(realOf(above), basename(path));
  }
}

export function isWithin(path: string, folder: string): boolean {
  return path.startsWith(folder.endsWith(sep) ? folder : `${folder}${sep}`);
}

/**
 * @param path of a file below `root`; both as they lead
 * @returns a descriptor of an ordinary file @throws as openSync(); EXDEV where a link leads out
 */
export function openBeneathSync(root: string, path: string, flags: number, mode = 0o600): number {
  const fd = openInside(root, path, flags | constants.O_NONBLOCK, mode);
  if (fstatSync(fd).isFile()) return fd;
  closeSync(fd);
  throw new Error(`${path} is no ordinary file`);
}

/** As openBeneathSync(), as a handle. */
export async function openBeneath(root: string, path: string, flags: number, mode = 0o600): Promise<FileHandle> {
  const fd = openBeneathSync(root, path, flags, mode);
  try {
    return await open(`/proc/self/fd/${fd}`, flags & ~ONLY_ONCE);
  } finally {
    closeSync(fd);
  }
}

function openInside(root: string, path: string, flags: number, mode: number): number {
  const call = syscall();
  if (!call) return openLookedAt(root, path, flags, mode);
  const how = Buffer.alloc(HOW_BYTES);
  how.writeBigUInt64LE(BigInt(flags | O_CLOEXEC), 0);
  how.writeBigUInt64LE(BigInt((flags & constants.O_CREAT) === 0 ? 0 : mode), 8);
  how.writeBigUInt64LE(BigInt(RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS), 16);
  const folder = openSync(root, O_PATH | constants.O_DIRECTORY);
  try {
    for (let tries = 1; ; tries += 1) {
      const fd = call(OPENAT2, folder, relative(root, path), how, HOW_BYTES);
      if (fd >= 0) return fd;
      const errno = lastErrno();
      if (errno === ENOSYS || errno === EPERM) return openLookedAt(root, path, flags, mode);
      if (errno !== EAGAIN || tries >= TRIES) throw failure(errno, path);
    }
  } finally {
    closeSync(folder);
  }
}

function openLookedAt(root: string, path: string, flags: number, mode: number): number {
  if (!isWithin(join(realOf(dirname(path)), basename(path)), realOf(root))) throw failure(EXDEV, path);
  return openSync(path, flags | constants.O_NOFOLLOW, mode);
}

function failure(errno: number, path: string): NodeJS.ErrnoException {
  const code = getSystemErrorName(-errno);
  const why = errno === EXDEV ? ': a link leads out of the folder that it should lie in' : '';
  return Object.assign(new Error(`${code}: open '${path}'${why}`), { code, errno: -errno, syscall: 'openat2', path });
}
