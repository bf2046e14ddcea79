/**
 * What Node cannot do: finding data and holes, punching holes, cloning a file's extents, locking, a thread's priority.
 * Calls libc; where that or the file system cannot, the caller gets a plain "no" and does it the long way. Numbers: Linux
 * uapi headers (fs.h, falloc.h).
 */
import { constants, copyFileSync, ftruncateSync } from 'node:fs';
import { setPriority } from 'node:os';
import { lastFailure, libcFunction } from '../system/libc';

const SEEK_DATA = 3;
const SEEK_HOLE = 4;
const FALLOC_FL_KEEP_SIZE_PUNCH_HOLE = 3;
const LOCK_EX_NB = 2 | 4;

/** Undefined where there is none. */
type Libc<F> = () => F | undefined;

const lseek = libcFunction('int64_t lseek(int fd, int64_t offset, int whence)') as Libc<
  (fd: number, offset: number, whence: number) => number
>;
const fallocate = libcFunction('int fallocate(int fd, int mode, int64_t offset, int64_t length)') as Libc<
  (fd: number, mode: number, offset: number, length: number) => number
>;
const flock = libcFunction('int flock(int fd, int operation)') as Libc<(fd: number, operation: number) => number>;
const gettid = libcFunction('int gettid()') as Libc<() => number>;

/**
 * Where data begins at or behind `offset`: `offset` itself where nothing is known, Infinity where only a hole follows.
 */
export function nextData(fd: number, offset: number): number {
  const found = lseek()?.(fd, offset, SEEK_DATA);
  if (found === undefined) return offset;
  if (found >= 0) return found;
  return lastFailure() === 'ENXIO' ? Infinity : offset;
}

/** Where the hole behind the data at `offset` begins; the file's end counts as one. Infinity where nothing is known. */
export function nextHole(fd: number, offset: number): number {
  const found = lseek()?.(fd, offset, SEEK_HOLE);
  return found === undefined || found < 0 ? Infinity : found;
}

/** Makes a range a hole, which reads as zeros. @returns false where the file system cannot: then write zeros */
export function punchHole(fd: number, offset: number, length: number): boolean {
  return fallocate()?.(fd, FALLOC_FL_KEEP_SIZE_PUNCH_HOLE, offset, length) === 0;
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
  const result = flock()?.(fd, LOCK_EX_NB);
  if (result === undefined) return 'unable';
  if (result === 0) return 'locked';
  // EWOULDBLOCK is the same number.
  return lastFailure() === 'EAGAIN' ? 'busy' : 'unable';
}

/** Lets the other threads of this process go first, where the system allows it. Linux sets priorities per thread. */
export function yieldToOtherThreads(niceness: number): void {
  const thread = gettid()?.();
  if (thread === undefined) return;
  try {
    setPriority(thread, niceness);
  } catch {
    // Some sandboxes forbid it; work then goes on as before, with the main thread less prompt.
  }
}

/** Gives a file its size without giving it blocks. */
export function setSparseSize(fd: number, sizeBytes: number): void {
  ftruncateSync(fd, sizeBytes);
}
