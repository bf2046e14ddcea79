/**
 * Makes of an accepted socket one that reads into memory of its owner's choice, plain or TLS. Node offers that (`onread`) to whoever
 * dials, and to whoever wraps a descriptor: so the descriptor of the accepted one is doubled and wrapped, and the
 * first closed. Measured: docs/transport.md, decisions. A TLS socket that is to wrap a descriptor has to be told so by what Node keeps
 * behind its handle; where that is not as it has been from Node 20 on, it reads as Node's own server would.
 */
import { closeSync } from 'node:fs';
import { type OnReadOpts, Socket, type SocketConstructorOpts } from 'node:net';
import { TLSSocket, type TLSSocketOptions } from 'node:tls';
import { libcFunction } from '../system/libc';
import type { SocketOrMaker } from './connection';
import { descriptorOf } from './descriptor';

const dup = libcFunction('int dup(int fd)') as () => ((fd: number) => number) | undefined;

/** A descriptor of its own for the same connection; the accepted socket is closed then. Undefined where it cannot be had. */
function doubleOf(accepted: Socket): number | undefined {
  const fd = descriptorOf(accepted);
  const doubled = fd === undefined ? -1 : (dup()?.(fd) ?? -1);
  if (doubled < 0) return undefined;
  accepted.destroy();
  return doubled;
}

/** @param accepted not read from yet (`pauseOnConnect`) @returns itself, where it cannot be done */
export function directSocket(accepted: Socket): SocketOrMaker {
  const doubled = doubleOf(accepted);
  if (doubled === undefined) return accepted.resume();
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

/** What Node keeps behind a TLS socket; each of it may be missing in a release to come. */
interface TlsHandle {
  readonly open?: (fd: number) => number;
  readonly verifyError?: () => { readonly code?: string } | null;
}

function handleOf(socket: TLSSocket): TlsHandle {
  return (socket as unknown as { readonly _handle: TlsHandle | null })._handle ?? {};
}

let wraps: boolean | undefined;

/** Whether this Node's TLS sockets take a descriptor; looked at once, on one that is nobody's. */
function canWrap(serving: TLSSocketOptions): boolean {
  if (wraps !== undefined) return wraps;
  const probe = new TLSSocket(undefined as unknown as Socket, serving);
  const { open, verifyError } = handleOf(probe);
  probe.destroy();
  return (wraps = open !== undefined && verifyError !== undefined);
}

/**
 * The serving side of TLS over an accepted socket. Its handshake is done when it says `secure`; then `authorized` says whether the
 * chain of the other side leads to an authority.
 * @param accepted not read from yet (`pauseOnConnect`)
 */
export function directTlsSocket(accepted: Socket, options: TLSSocketOptions): SocketOrMaker {
  const serving = { ...options, isServer: true };
  const doubled = canWrap(serving) ? doubleOf(accepted) : undefined;
  if (doubled === undefined) return served(new TLSSocket(accepted, serving));
  return (onread) => {
    const socket = new TLSSocket(undefined as unknown as Socket, { ...serving, onread } as TLSSocketOptions);
    const { open } = handleOf(socket);
    if (open?.call(handleOf(socket), doubled) !== 0) {
      closeSync(doubled);
      socket.destroy();
      throw new Error('the descriptor cannot be wrapped');
    }
    // It takes itself for one that has still to dial.
    Object.assign(socket, { connecting: false });
    return served(socket);
  };
}

/** As Node's own server does: until it lets go of a socket, errors of TLS are told of by an event of that name alone. */
function served(socket: TLSSocket): TLSSocket {
  socket.on('_tlsError', (error: Error) => socket.destroy(error));
  return socket.once('secure', () => {
    const { verifyError } = handleOf(socket);
    const error = verifyError ? verifyError.call(handleOf(socket)) : { code: 'UNABLE_TO_VERIFY' };
    Object.assign(socket, { authorized: !error, authorizationError: error?.code });
  });
}
