/**
 * Who holds a lock on a file, from the kernel's list (proc_locks(5)): `1: OFDLCK ADVISORY READ -1 fe:00:10305826 203 203`.
 * A file is its file system's number and its inode; an inode's number alone is another file's on the next disk. The number is
 * the one of the mount (proc_pid_mountinfo(5)): what stat() says is another on btrfs and overlays.
 */
import { type FileHandle, readFile } from 'node:fs/promises';
import { openImage } from '../system/image-roots';

const LOCK = /^\d+: \S+ +\S+ +\S+ (-?\d+) ([0-9a-f]+):([0-9a-f]+):(\d+) /;

/** @returns the process that holds one; 0 where none is named (an open-file lock); undefined where the file is not locked */
export async function lockHolder(path: string): Promise<number | undefined> {
  const handle = await openImage(path);
  try {
    const [locks, { ino }, fileSystem] = await Promise.all([
      textOf('/proc/locks'),
      handle.stat(),
      fileSystemOf(handle),
    ]);
    for (const line of locks.split('\n')) {
      const [, holder, major = '', minor = '', inode] = LOCK.exec(line) ?? [];
      if (inode !== String(ino)) continue;
      // Where it cannot be told which file system it is, a lock too many is believed.
      if (fileSystem === undefined || fileSystem === `${parseInt(major, 16)}:${parseInt(minor, 16)}`)
        return Math.max(0, Number(holder));
    }
    return undefined;
  } finally {
    await handle.close();
  }
}

/** `major:minor` of the file system that an open file is on; undefined where /proc does not tell. */
async function fileSystemOf({ fd }: FileHandle): Promise<string | undefined> {
  const [info, mounts] = await Promise.all([textOf(`/proc/self/fdinfo/${fd}`), textOf('/proc/self/mountinfo')]);
  const mountId = /^mnt_id:\s*(\d+)$/m.exec(info)?.[1];
  return mountId === undefined ? undefined : new RegExp(`^${mountId} \\d+ (\\d+:\\d+) `, 'm').exec(mounts)?.[1];
}

function textOf(path: string): Promise<string> {
  return readFile(path, 'utf8').catch(() => '');
}
