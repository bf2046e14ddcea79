/**
 * Lists of revoked certificates (RFC 5280, section 5), one or more in PEM. OpenSSL checks them in a handshake; what stands here is
 * for connections that are open when the list changes, and says which certificate is meant.
 */
import type { X509Certificate } from 'node:crypto';
import { DwcpError } from '../model/errors';
import { x509 } from './x509';

const PEM_LIST = /-----BEGIN X509 CRL-----[^-]+-----END X509 CRL-----/g;

/** @returns whether a certificate is on one of the lists @throws CONFIG_INVALID where there is no list */
export function readRevoked(pem: string): (shown: X509Certificate) => boolean {
  const { X509Crl } = x509();
  const lists = [...pem.matchAll(PEM_LIST)].map(([text]) => new X509Crl(text));
  if (lists.length === 0) throw new DwcpError('CONFIG_INVALID', 'tlsCrl holds no list of revoked certificates (PEM)');
  const revoked = new Set(lists.flatMap((list) => list.entries.map(({ serialNumber }) => plainSerial(serialNumber))));
  return ({ serialNumber }) => revoked.has(plainSerial(serialNumber));
}

/** Hexadecimal digits as both sides write them. */
function plainSerial(serial: string): string {
  return serial.toLowerCase().replace(/^0+/, '');
}
