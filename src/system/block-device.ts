/**
 * Images that are block devices (LVM volumes, zvols, loop devices): which paths are such, opening one, its size, and what tells that
 * somebody has written to it. A device is found by its name below /dev and nowhere else; it is never made, renamed or removed. What
 * may become of its content, and whose it is, others decide.
 */
import { readFileSync, statSync } from 'node:fs';
import { constants, type FileHandle, open, stat } from 'node:fs/promises';
import { resolve } from 'node:path';
import { libcFunction } from './libc';
import { isWithin } from './open-beneath';

const FOLDER = '/dev/';
/** Files in memory, in the midst of devices. */
const NO_DEVICES = '/dev/shm/';
const SEEK_END = 2;
const SECTOR = 512;
/** Nothing is made where a device is not: /dev takes a file of any size, into memory. */
const MAKES = constants.O_CREAT | constants.O_TRUNC;
/** Of what the kernel counts (Linux, Documentation/block/stat.rst): writes and what is discarded, as requests and as sectors. */
const WRITE_FIELDS = [4, 6, 11, 13];

const lseek = libcFunction('int64_t lseek(int fd, int64_t offset, int whence)') as () =>
  | ((fd: number, offset: number, whence: number) => number)
  | undefined;

/** Whether an image of this path is a device, there or not: all others are files. */
export function isDevicePath(path: string): boolean {
  return path.startsWith(FOLDER) && !path.startsWith(NO_DEVICES);
}

/** Whether a device is named below one of these folders, or is one of them, as it is written: what /dev has there is the host's own. */
export function isDeviceBelow(path: string, folders: readonly string[]): boolean {
  return isDevicePath(path) && resolve(path) === path && folders.some((each) => path === each || isWithin(path, each));
}

/** Whether something that is there is a block device. */
export function isBlockDevice(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isBlockDevice() ?? false;
}

/** Which device a path leads to, whatever it is called: two names of one are equal. Undefined where it leads to none. */
export async function deviceNumber(path: string): Promise<number | undefined> {
  const found = await stat(path).catch(() => undefined);
  return found?.isBlockDevice() ? found.rdev : undefined;
}

/**
 * @param flags O_EXCL: fails with EBUSY where it is mounted, part of another device, or held so by another
 * @throws as open(); Error where there is no block device
 */
export async function openDevice(path: string, flags: number): Promise<FileHandle> {
  const handle = await open(path, (flags & ~MAKES) | constants.O_NONBLOCK);
  try {
    if ((await handle.stat()).isBlockDevice()) return handle;
  } catch (error) {
    await handle.close();
    throw error;
  }
  await handle.close();
  throw new Error(`${path} is no block device`);
}

/** @throws Error where the kernel does not say */
export async function deviceBytes(handle: FileHandle): Promise<number> {
  const found = lseek()?.(handle.fd, 0, SEEK_END) ?? -1;
  return found >= 0 ? found : Number(readFileSync(`${await sysFolder(handle)}/size`, 'utf8')) * SECTOR;
}

/** Changes with each write that has reached the device since it is there; the same text each time where the kernel does not count. */
export function writesOf(sysFolderOfIt: string): string {
  try {
    const fields = readFileSync(`${sysFolderOfIt}/stat`, 'utf8').trim().split(/\s+/);
    return WRITE_FIELDS.map((field) => fields[field] ?? '').join(' ');
  } catch {
    return '';
  }
}

/** Where the kernel tells of a device that is open. */
export async function sysFolder(handle: FileHandle): Promise<string> {
  const { rdev } = await handle.stat();
  const [high, low] = [Math.floor(rdev / 2 ** 32), rdev % 2 ** 32];
  const major = ((low >>> 8) & 0xfff) | (high & ~0xfff);
  const minor = (low & 0xff) | ((low >>> 12) & 0xfff00);
  return `/sys/dev/block/${major}:${minor}`;
}
