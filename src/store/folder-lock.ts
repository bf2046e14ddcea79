/**
 * One agent a data folder: an exclusive lock that ends with its process, however that ends.
 */
import { closeSync, ftruncateSync, mkdirSync, openSync, readFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { DwcpError } from '../model/errors';
import { tryLockFile } from './system-calls';

/** What unlocks it before this process ends. */
export type Unlock = () => void;

function lockFileOf(path: string): string {
  return join(path, 'agent.lock');
}

/**
 * Locks a data folder, which is made where it is not there.
 * @returns undefined where another process has it
 * @throws CONFIG_INVALID where nothing can be locked
 */
export function tryLockFolder(path: string): Unlock | undefined {
  mkdirSync(path, { recursive: true, mode: 0o700 });
  const fd = openSync(lockFileOf(path), 'a+', 0o600);
  const locked = tryLockFile(fd);
  if (locked === 'unable') {
    closeSync(fd);
    throw new DwcpError(
      'CONFIG_INVALID',
      `The data folder ${path} cannot be locked on this system, and two agents on it could run a guest twice`,
      { hint: 'Put it on a local file system, on a host with glibc (koffi loads libc.so.6)' },
    );
  }
  if (locked === 'busy') {
    closeSync(fd);
    return undefined;
  }
  ftruncateSync(fd, 0);
  writeSync(fd, String(process.pid));
  return () => closeSync(fd);
}

/** As tryLockFolder(). @throws CONFIG_INVALID also where another process has it */
export function lockFolder(path: string): Unlock {
  const unlock = tryLockFolder(path);
  if (unlock) return unlock;
  const holder = readFileSync(lockFileOf(path), 'utf8').trim();
  throw new DwcpError('CONFIG_INVALID', `The data folder ${path} is in use by process ${holder || '?'}`, {
    hint: 'Stop that agent, or give this one another --data-dir',
  });
}
