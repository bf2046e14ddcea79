/**
 * Makes of an accepted socket one that reads into memory of its owner's choice. Node offers that (`onread`) to whoever
 * dials, and to whoever wraps a descriptor: so the descriptor of the accepted one is doubled and wrapped, and the
 * first closed. Measured: docs/transport.md, decisions.
 */
import { closeSync } from 'node:fs';
import { type OnReadOpts, Socket, type SocketConstructorOpts } from 'node:net';
import { libcFunction } from '../system/libc';
import type { SocketOrMaker } from './connection';
import { descriptorOf } from './descriptor';

const dup = libcFunction('int dup(int fd)') as () => ((fd: number) => number) | undefined;

/** @param accepted not read from yet (`pauseOnConnect`) @returns itself, where it cannot be done */
export function directSocket(accepted: Socket): SocketOrMaker {
  const fd = descriptorOf(accepted);
  const doubled = fd === undefined ? -1 : (dup()?.(fd) ?? -1);
  if (doubled < 0) return accepted.resume();
  accepted.destroy();
  return (onread) => {
    // Documented for the constructor, and missing in its types.
    const options: SocketConstructorOpts & { readonly onread: OnReadOpts } = { fd: doubled, onread };
    try {
      return new Socket(options);
    } catch (error) {
      closeSync(doubled);
      throw error;
    }
  };
}
