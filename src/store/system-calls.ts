/**
 * What Node cannot do: finding data and holes, punching holes, cloning a file's extents, locking, a thread's priority.
 * Calls libc through koffi; where that or the file system cannot, the caller gets a plain "no" and does it the long
 * way. Numbers: Linux uapi headers (fs.h, falloc.h).
 */
import { constants, copyFileSync, ftruncateSync } from 'node:fs';
import { createRequire } from 'node:module';
import { setPriority } from 'node:os';

const SEEK_DATA = 3;
const SEEK_HOLE = 4;
const FALLOC_FL_KEEP_SIZE_PUNCH_HOLE = 3;
const LOCK_EX_NB = 2 | 4;

/** The part of koffi used here: its own types are for ES modules only, and it may be missing on a rare platform. */
interface Koffi {
  load(library: string): { func(prototype: string): unknown };
  errno(): number;
  readonly os: { readonly errno: { readonly ENXIO: number; readonly EAGAIN: number } };
}

interface LibC {
  readonly errno: () => number;
  readonly ENXIO: number;
  readonly EWOULDBLOCK: number;
  readonly lseek: (fd: number, offset: number, whence: number) => number;
  readonly fallocate: (fd: number, mode: number, offset: number, length: number) => number;
  readonly flock: (fd: number, operation: number) => number;
  readonly gettid: () => number;
}

let loaded: LibC | undefined | 'missing';

function libc(): LibC | undefined {
  if (loaded === undefined) {
    try {
      const koffi = createRequire(__filename)('koffi') as Koffi;
      const library = koffi.load('libc.so.6');
      loaded = {
        errno: () => koffi.errno(),
        ENXIO: koffi.os.errno.ENXIO,
        EWOULDBLOCK: koffi.os.errno.EAGAIN,
        lseek: library.func('int64_t lseek(int fd, int64_t offset, int whence)') as LibC['lseek'],
        fallocate: library.func('int fallocate(int fd, int mode, int64_t offset, int64_t length)') as LibC['fallocate'],
        flock: library.func('int flock(int fd, int operation)') as LibC['flock'],
        gettid: library.func('int gettid()') as LibC['gettid'],
      };
    } catch {
      loaded = 'missing';
    }
  }
  return loaded === 'missing' ? undefined : loaded;
}

/**
 * Where data begins at or behind `offset`: `offset` itself where nothing is known, Infinity where only a hole follows.
 */
export function nextData(fd: number, offset: number): number {
  const c = libc();
  if (!c) return offset;
  const found = c.lseek(fd, offset, SEEK_DATA);
  if (found >= 0) return found;
  return c.errno() === c.ENXIO ? Infinity : offset;
}

/** Where the hole behind the data at `offset` begins; the file's end counts as one. Infinity where nothing is known. */
export function nextHole(fd: number, offset: number): number {
  const found = libc()?.lseek(fd, offset, SEEK_HOLE);
  return found === undefined || found < 0 ? Infinity : found;
}

/** Makes a range a hole, which reads as zeros. @returns false where the file system cannot: then write zeros */
export function punchHole(fd: number, offset: number, length: number): boolean {
  return libc()?.fallocate(fd, FALLOC_FL_KEEP_SIZE_PUNCH_HOLE, offset, length) === 0;
}

/** Copies a file by sharing its extents, in no time and no space. @returns false where the file system cannot */
export function cloneFile(from: string, to: string): boolean {
  try {
    copyFileSync(from, to, constants.COPYFILE_FICLONE_FORCE);
    return true;
  } catch {
    return false;
  }
}

/** Locks a file for as long as the descriptor lives. @returns `busy` where another process holds it, `unable` where this system cannot */
export function tryLockFile(fd: number): 'locked' | 'busy' | 'unable' {
  const c = libc();
  if (!c) return 'unable';
  if (c.flock(fd, LOCK_EX_NB) === 0) return 'locked';
  return c.errno() === c.EWOULDBLOCK ? 'busy' : 'unable';
}

/** Lets the other threads of this process go first, where the system allows it. Linux sets priorities per thread. */
export function yieldToOtherThreads(niceness: number): void {
  const c = libc();
  if (!c) return;
  try {
    setPriority(c.gettid(), niceness);
  } catch {
    // Some sandboxes forbid it; work then goes on as before, with the main thread less prompt.
  }
}

/** Gives a file its size without giving it blocks. */
export function setSparseSize(fd: number, sizeBytes: number): void {
  ftruncateSync(fd, sizeBytes);
}
