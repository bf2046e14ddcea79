/**
 * One agent a data folder: an exclusive lock that ends with its process, however that ends.
 */
import { closeSync, ftruncateSync, mkdirSync, openSync, readFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { DwcpError } from '../model/errors';
import { tryLockFile } from './system-calls';

/**
 * Locks a data folder.
 * @returns what unlocks it before this process ends
 * @throws CONFIG_INVALID where another process has it, or nothing can be locked
 */
export function lockFolder(path: string): () => void {
  mkdirSync(path, { recursive: true, mode: 0o700 });
  const file = join(path, 'agent.lock');
  const fd = openSync(file, 'a+', 0o600);
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
    const holder = readFileSync(file, 'utf8').trim();
    closeSync(fd);
    throw new DwcpError('CONFIG_INVALID', `The data folder ${path} is in use by process ${holder || '?'}`, {
      hint: 'Stop that agent, or give this one another --data-dir',
    });
  }
  ftruncateSync(fd, 0);
  writeSync(fd, String(process.pid));
  return () => closeSync(fd);
}
