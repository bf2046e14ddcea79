/**
 * The descriptor of a socket, for calls of the C library.
 */
import type { Socket } from 'node:net';

/** Node keeps the descriptor behind its handle, for TLS too. */
export function descriptorOf(socket: Socket): number | undefined {
  const handle = (socket as unknown as { _handle?: { fd?: number } | null })._handle;
  return handle?.fd !== undefined && handle.fd >= 0 ? handle.fd : undefined;
}
