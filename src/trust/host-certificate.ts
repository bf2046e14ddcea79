/**
 * An X.509 certificate that names a host, and the name that one shows: a SPIFFE id in the one URI of its alternative names
 * (SPIFFE X.509-SVID, section 2: exactly one URI; RFC 5280 for the rest). Whose key is believed is peer-trust.ts's.
 */

import {
  createHash,
  createPrivateKey,
  createPublicKey,
  type KeyObject,
  randomBytes,
  webcrypto,
  X509Certificate,
} from 'node:crypto';
import { hostIdSchema } from '../model/ids';
import { x509 } from './x509';

const DAY_MS = 86_400_000;
/** What counts of a self-made certificate is its key; a new one for the same key is made long before this is over. */
export const SELF_MADE_LIFETIME_MS = 397 * DAY_MS;
/** A clock that is behind shall not find it to be of the future. */
const CLOCK_LEEWAY_MS = DAY_MS;
const EC = { name: 'ECDSA', namedCurve: 'P-256' } as const;
const HOST_URI = /^spiffe:\/\/dwcp\/host\/([^/]+)$/;

export function hostUri(hostId: string): string {
  return `spiffe://dwcp/host/${hostId}`;
}

/** The host that a certificate names; undefined where it names none, or more than one. */
export function hostOf({ subjectAltName = '' }: Pick<X509Certificate, 'subjectAltName'>): string | undefined {
  // Node quotes a value that holds what separates values: no name of ours needs that, and one of another's might be made to look like ours.
  if (subjectAltName.includes('"')) return undefined;
  const uris = subjectAltName.split(', ').filter((name) => name.startsWith('URI:'));
  const hostId = uris.length === 1 ? HOST_URI.exec(uris[0]?.slice(4) ?? '')?.[1] : undefined;
  return hostIdSchema.safeParse(hostId).data;
}

/** The host that a certificate in PEM names; undefined also where it is none. */
export function hostOfPem(pem: string | Buffer): string | undefined {
  try {
    return hostOf(new X509Certificate(pem));
  } catch {
    return undefined;
  }
}

/** SHA-256 of a public key as certificates hold it (SubjectPublicKeyInfo), base64url: what a pin is. */
export function keyPinOf(key: KeyObject): string {
  return createHash('sha256')
    .update(key.export({ type: 'spki', format: 'der' }))
    .digest('base64url');
}

/** Of the key of a certificate, PEM. */
export function pinOfCertificate(pem: string | Buffer): string {
  return keyPinOf(new X509Certificate(pem).publicKey);
}

/** A new private key, P-256, PKCS #8 PEM. */
export async function makeHostKey(): Promise<string> {
  const { privateKey } = await webcrypto.subtle.generateKey(EC, true, ['sign', 'verify']);
  const der = Buffer.from(await webcrypto.subtle.exportKey('pkcs8', privateKey));
  return createPrivateKey({ key: der, format: 'der', type: 'pkcs8' })
    .export({ type: 'pkcs8', format: 'pem' })
    .toString();
}

/** A certificate for a host's key, signed by that key itself, PEM. */
export async function makeHostCertificate(hostId: string, keyPem: string, nowMs = Date.now()): Promise<string> {
  const { X509CertificateGenerator, ...extensions } = x509();
  const key = createPrivateKey(keyPem);
  const keys = {
    privateKey: await webcrypto.subtle.importKey('pkcs8', key.export({ type: 'pkcs8', format: 'der' }), EC, false, [
      'sign',
    ]),
    publicKey: await webcrypto.subtle.importKey(
      'spki',
      createPublicKey(key).export({ type: 'spki', format: 'der' }),
      EC,
      true,
      ['verify'],
    ),
  };
  const certificate = await X509CertificateGenerator.createSelfSigned(
    {
      serialNumber: `01${randomBytes(15).toString('hex')}`,
      name: `CN=dwcp ${hostId}`.slice(0, 60),
      notBefore: new Date(nowMs - CLOCK_LEEWAY_MS),
      notAfter: new Date(nowMs + SELF_MADE_LIFETIME_MS),
      signingAlgorithm: { name: 'ECDSA', hash: 'SHA-256' },
      keys,
      extensions: [
        new extensions.BasicConstraintsExtension(false, undefined, true),
        new extensions.KeyUsagesExtension(extensions.KeyUsageFlags.digitalSignature, true),
        new extensions.ExtendedKeyUsageExtension([
          extensions.ExtendedKeyUsage.serverAuth,
          extensions.ExtendedKeyUsage.clientAuth,
        ]),
        new extensions.SubjectAlternativeNameExtension([{ type: 'url', value: hostUri(hostId) }]),
      ],
    },
    webcrypto,
  );
  return `${certificate.toString('pem')}\n`;
}
