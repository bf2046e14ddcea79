/**
 * Data with a signature over its very bytes, as one line of text: base64url(JSON) "." base64url(signature: Ed25519, RFC 8032;
 * of a host's key ECDSA over SHA-256). What is
 * signed says what kind of thing it is, so that one kind cannot be shown as another. Whose key counts is the caller's.
 */
import { type KeyObject, sign, verify } from 'node:crypto';
import type { z } from 'zod';

export type SignedKind = 'warrant' | 'request' | 'word' | 'audit';

function bytesOf(kind: SignedKind, text: string): Buffer {
  return Buffer.from(`dwcp ${kind} 1\n${text}`);
}

function digestFor({ asymmetricKeyType }: KeyObject): string | null {
  return asymmetricKeyType === 'ed25519' ? null : 'sha256';
}

export function signText(kind: SignedKind, value: unknown, key: KeyObject): string {
  const text = Buffer.from(JSON.stringify(value)).toString('base64url');
  return `${text}.${sign(digestFor(key), bytesOf(kind, text), key).toString('base64url')}`;
}

/** @returns what was signed and by which of the keys; undefined where by none, or where it is not of that shape */
export function openSigned<T>(
  kind: SignedKind,
  signed: string,
  keys: readonly KeyObject[],
  schema: z.ZodType<T>,
): { readonly value: T; readonly key: KeyObject } | undefined {
  const [text = '', signature = '', ...more] = signed.split('.');
  if (more.length > 0) return undefined;
  const key = keys.find((each) =>
    verify(digestFor(each), bytesOf(kind, text), each, Buffer.from(signature, 'base64url')),
  );
  if (!key) return undefined;
  try {
    const parsed = schema.safeParse(JSON.parse(Buffer.from(text, 'base64url').toString('utf8')));
    return parsed.success ? { value: parsed.data, key } : undefined;
  } catch {
    return undefined;
  }
}
