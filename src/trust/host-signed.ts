/**
 * What a host signs with the key that the data plane knows it by, with the certificate of that key beside it, so that whoever reads it
 * needs nothing else. Whose certificate counts is the caller's.
 *
 *   signed := signed text "." base64url(certificate, DER)
 */
import { createPrivateKey, X509Certificate } from 'node:crypto';
import type { z } from 'zod';
import type { TlsCredentials } from '../transport/peer-security';
import { openSigned, type SignedKind, signText } from './signed-text';

export function signAsHost(kind: SignedKind, value: unknown, { cert, key }: TlsCredentials): string {
  const text = signText(kind, value, createPrivateKey(key));
  return `${text}.${new X509Certificate(cert).raw.toString('base64url')}`;
}

/** @returns the certificate beside it, of which nothing is proven yet; undefined where there is none */
export function certificateOf(signed: string): X509Certificate | undefined {
  try {
    return new X509Certificate(Buffer.from(signed.split('.')[2] ?? '', 'base64url'));
  } catch {
    return undefined;
  }
}

/** @returns what the key of that certificate has signed; undefined where it has not, or where it is not of that shape */
export function openByHost<T>(
  kind: SignedKind,
  signed: string,
  { publicKey }: X509Certificate,
  schema: z.ZodType<T>,
): T | undefined {
  const [text = '', signature = '', , ...more] = signed.split('.');
  return more.length > 0 ? undefined : openSigned(kind, `${text}.${signature}`, [publicKey], schema)?.value;
}
