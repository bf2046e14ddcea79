/** How files of a trust folder are read: a text, names, public and private keys; and whether others could have written or read them. */
import { createPrivateKey, createPublicKey, type KeyObject } from 'node:crypto';
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { dirname } from 'node:path';
import { DwcpError, errnoOf } from '../model/errors';

export const OTHERS_MAY = 0o077;
export const OTHERS_MAY_WRITE = 0o022;
/** More would be no rotation any more. */
export const MAX_KEYS = 8;
const PEM_KEY = /-----BEGIN PUBLIC KEY-----[^-]+-----END PUBLIC KEY-----/g;

/** @throws CONFIG_INVALID where others may do with it what they must not: a mask of its mode's bits */
export function assertPrivate(path: string, others: number): void {
  const { mode, uid } = statSync(path);
  const user = process.getuid?.();
  if ((mode & others) !== 0 || (user !== undefined && uid !== user && uid !== 0))
    throw new DwcpError('CONFIG_INVALID', `${path} is open to other users: what it holds cannot be believed`, {
      hint: `chmod -R go= ${dirname(path)}, and look who has been there`,
    });
}

/** Undefined where there is no such file. */
export function readText(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined;
    throw error;
  }
}

export function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return [];
    throw error;
  }
}

export function publicKeys(path: string): KeyObject[] {
  return [...(readText(path) ?? '').matchAll(PEM_KEY)].slice(0, MAX_KEYS).map(([text]) => createPublicKey(text));
}

export function privateKey(path: string): KeyObject | undefined {
  const text = readText(path);
  return text === undefined ? undefined : createPrivateKey(text);
}
