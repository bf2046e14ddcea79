/**
 * Calls of the C library that Node has no name for, through koffi, and the descriptor they are made on. Undefined where
 * there is no koffi or no Linux: whoever asks does without.
 */
import { createRequire } from 'node:module';
import type { Socket } from 'node:net';

interface Koffi {
  load(library: string): { func(prototype: string): unknown };
}

/** @returns a lookup of one function, made once: the function, whose type the prototype gives, or undefined where it cannot be had */
export function libcFunction(prototype: string): () => unknown {
  let found: { readonly call: unknown } | undefined;
  return () => {
    if (!found) {
      try {
        const koffi = createRequire(__filename)('koffi') as Koffi;
        found = { call: koffi.load('libc.so.6').func(prototype) };
      } catch {
        found = { call: undefined };
      }
    }
    return found.call;
  };
}

/** Node keeps the descriptor behind its handle, for TLS too. */
export function descriptorOf(socket: Socket): number | undefined {
  const handle = (socket as unknown as { _handle?: { fd?: number } | null })._handle;
  return handle?.fd !== undefined && handle.fd >= 0 ? handle.fd : undefined;
}
