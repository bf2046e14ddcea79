/**
 * Files that hold secrets, as all options that name one read them: the owner's alone, and refused with the option's name where
 * they are not. What the bytes mean is the option's.
 */
import { createHash, timingSafeEqual } from 'node:crypto';
import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { DwcpError, messageOf } from '../model/errors';

const OTHERS_MAY_READ = 0o077;
const MAX_SIZE_BYTES = 64 * 1024;
export const KEY_SIZE_BYTES = 32;

/** @throws CONFIG_INVALID where the file cannot be read, is no file of such a kind, or others may read it */
export function readSecretFile(option: string, path: string): Buffer {
  let descriptor: number | undefined;
  try {
    descriptor = openSync(path, 'r');
    const { mode, size } = fstatSync(descriptor);
    // Judged by its descriptor: what is read is what was looked at.
    if ((mode & OTHERS_MAY_READ) !== 0)
      throw new DwcpError('CONFIG_INVALID', `${option} ${path} may be read by others: chmod 600 ${path}`);
    if (size > MAX_SIZE_BYTES) throw new DwcpError('CONFIG_INVALID', `${option} ${path} is too large for a secret`);
    const bytes = Buffer.alloc(size);
    return bytes.subarray(0, readSync(descriptor, bytes, 0, size, 0));
  } catch (error) {
    if (error instanceof DwcpError) throw error;
    throw new DwcpError('CONFIG_INVALID', `${option} ${path} cannot be read: ${messageOf(error)}`, { cause: error });
  } finally {
    if (descriptor !== undefined) closeSync(descriptor);
  }
}

/** A key as text: 64 hexadecimal digits, or 44 characters of base64. Undefined where it is neither. */
export function keyOfText(text: string): Buffer | undefined {
  if (/^[0-9a-fA-F]{64}$/.test(text)) return Buffer.from(text, 'hex');
  return /^[0-9A-Za-z+/]{43}=$/.test(text) ? Buffer.from(text, 'base64') : undefined;
}

/** In a time that says nothing of where they differ, or how long they are. */
export function isSameSecret(given: string, wanted: string): boolean {
  const digest = (text: string): Buffer => createHash('sha256').update(text).digest();
  return timingSafeEqual(digest(given), digest(wanted));
}
