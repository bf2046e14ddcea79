/**
 * Calls of the C library that Node has no name for, through koffi. Where there is no koffi or no glibc nothing is found:
 * whoever asks does it the long way, or does without.
 */
import { createRequire } from 'node:module';

/** The part of koffi used here: its own types are for ES modules only, and it may be missing on a rare platform. */
interface Koffi {
  load(library: string): { func(prototype: string): unknown };
  errno(): number;
  readonly os: { readonly errno: { readonly ENXIO: number; readonly EAGAIN: number } };
}

type Loaded = { readonly koffi: Koffi; readonly library: ReturnType<Koffi['load']> } | undefined;
let loaded: { readonly it: Loaded } | undefined;

function libc(): Loaded {
  if (!loaded) {
    try {
      const koffi = createRequire(__filename)('koffi') as Koffi;
      loaded = { it: { koffi, library: koffi.load('libc.so.6') } };
    } catch {
      loaded = { it: undefined };
    }
  }
  return loaded.it;
}

/** @returns a lookup of one function, made once: the function, whose type the prototype gives, or undefined where it cannot be had */
export function libcFunction(prototype: string): () => unknown {
  let found: { readonly call: unknown } | undefined;
  return () => {
    if (!found) {
      try {
        found = { call: libc()?.library.func(prototype) };
      } catch {
        found = { call: undefined };
      }
    }
    return found.call;
  };
}

/** What the last call on this thread failed with, as a number of the C library. */
export function lastErrno(): number {
  return libc()?.koffi.errno() ?? 0;
}

/** What the last call on this thread failed with: one of those that are told apart. */
export function lastFailure(): 'ENXIO' | 'EAGAIN' | 'other' {
  const koffi = libc()?.koffi;
  const errno = koffi?.errno();
  if (errno === koffi?.os.errno.ENXIO) return 'ENXIO';
  return errno === koffi?.os.errno.EAGAIN ? 'EAGAIN' : 'other';
}
