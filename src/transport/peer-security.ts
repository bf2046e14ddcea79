/**
 * What a data plane needs to know of who is who: what this host shows, and which host shows a certificate. TLS itself and its rules
 * stand here, whose key is believed does not (src/trust).
 */
import type { X509Certificate } from 'node:crypto';
import { createSecureContext, type SecureContext, type SecureContextOptions, type TLSSocket } from 'node:tls';
import { DwcpError } from '../model/errors';

/** PEM contents. With authorities the chain of the other side has to lead to one of them. */
export interface TlsCredentials {
  readonly cert: string | Buffer;
  readonly key: string | Buffer;
  readonly ca?: string | Buffer | undefined;
  readonly crl?: string | Buffer | undefined;
}

export interface PeerSecurity {
  /** What this host shows, as it is now. */
  credentials(): TlsCredentials;
  /**
   * Which host shows this certificate.
   * @throws PEER_UNTRUSTED where it names none, or its key is not known to be that host's
   */
  identify(shown: X509Certificate): string;
  /** As identify(), of a connection that is open already, once what is believed has changed. */
  stillIs(shown: X509Certificate, hostId: string): boolean;
  /** Hears whenever what this host shows, or what it believes, has changed. @returns what ends that */
  watch(changed: () => void): () => void;
}

/** The hybrid with ML-KEM is of OpenSSL 3.5, which comes with Node 24: one that does not know it takes none of the others either. */
function groups(): string {
  const [major = 0, minor = 0] = process.versions.openssl.split('.').map(Number);
  return major > 3 || (major === 3 && minor >= 5) ? 'X25519MLKEM768:X25519:P-256' : 'X25519:P-256';
}

/** The rules of every connection. Whether a chain holds is asked afterwards: then the refusal has a code, and reaches the other side. */
export const TLS_RULES = {
  minVersion: 'TLSv1.3',
  // AES with 128 bits first: less work a byte than with 256, docs/transport.md.
  ciphers: 'TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256',
  ecdhCurve: groups(),
  rejectUnauthorized: false,
} as const satisfies SecureContextOptions & { rejectUnauthorized: boolean };

const contexts = new WeakMap<TlsCredentials, SecureContext>();

/** Made once of what a host shows: keys and certificates are parsed for it, which takes longer than a handshake. */
export function contextOf(credentials: TlsCredentials): SecureContext {
  const known = contexts.get(credentials);
  if (known) return known;
  const made = createSecureContext({ ...credentials, ...TLS_RULES, sessionIdContext: 'dwcp' });
  contexts.set(credentials, made);
  return made;
}

export function untrusted(message: string): DwcpError {
  return new DwcpError('PEER_UNTRUSTED', message);
}

export interface Proven {
  readonly hostId: string;
  readonly shown: X509Certificate;
  /** How the keys of the connection were agreed on, as the field calls it. */
  readonly keyExchange: string;
}

/** Who is at the other end of a connection whose handshake is done. @throws PEER_UNTRUSTED */
export function provenPeer(security: PeerSecurity, socket: TLSSocket): Proven {
  const shown = socket.getPeerX509Certificate();
  if (!shown) throw untrusted('The other side shows no certificate');
  if (security.credentials().ca !== undefined && !socket.authorized)
    throw untrusted(`The other side’s certificate is not one of tlsCa: ${String(socket.authorizationError)}`);
  return { hostId: security.identify(shown), shown, keyExchange: keyExchangeOf(socket) };
}

/** @throws PEER_UNTRUSTED where it is another host than the one that was dialled */
export function assertDialled(hostId: string, proven: string, place: string): void {
  if (proven !== hostId) throw untrusted(`${place} is host ${proven}, not ${hostId}`);
}

/** Node tells it of the dialling side alone. */
function keyExchangeOf(socket: TLSSocket): string {
  const info = socket.getEphemeralKeyInfo() as { readonly name?: string; readonly type?: string } | null;
  return info?.name ?? info?.type ?? 'not told';
}
