/**
 * Connecting to a UNIX socket that lies where another user may put what he likes, as a guest's QEMU can in its folder: what is
 * connected to is the socket that was looked at, and no link leads root to another program's.
 */
import { closeSync, constants, fstatSync, openSync, statSync } from 'node:fs';
import { connect, Socket } from 'node:net';
import { dirname } from 'node:path';

/** Linux, fcntl.h: the file as such, neither for reading nor for writing. */
const O_PATH = 0o10000000;

/** As connect() of node:net: what goes wrong is said by the socket. */
export function connectTo(path: string): Socket {
  const us = process.getuid?.();
  let fd: number | undefined;
  try {
    if (us !== 0 || statSync(dirname(path)).uid === us) return connect(path);
    fd = openSync(path, O_PATH | constants.O_NOFOLLOW);
    if (!fstatSync(fd).isSocket()) throw new Error(`${path} is no socket`);
    // Node connects to it before this returns.
    return connect(`/proc/self/fd/${fd}`);
  } catch (error) {
    return new Socket().destroy(error as Error);
  } finally {
    if (fd !== undefined) closeSync(fd);
  }
}
