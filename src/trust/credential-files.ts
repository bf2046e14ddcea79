/**
 * What this host shows of itself, read from its files and again when they change: the key and certificate that it has made for itself in
 * its data folder, or those of tlsCert and tlsKey; and the authority (tlsCa, tlsCrl) that certificates of others have to be of, where
 * there is one.
 */
import { createPrivateKey, randomUUID, X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { link, readFile, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { DwcpError, errnoOf, toDwcpError } from '../model/errors';
import type { ProcessOptions } from '../model/options';
import { readIfThere, writeDurably } from '../store/durable-file';
import { syncFolder } from '../store/durable-folder';
import { readSecretFile } from '../store/secret-file';
import type { TlsCredentials } from '../transport/peer-security';
import { hostOf, makeHostCertificate, makeHostKey, pinOfCertificate, SELF_MADE_LIFETIME_MS } from './host-certificate';
import { readRevoked } from './revocation-list';

export type TlsOptions = Pick<ProcessOptions, 'tlsCert' | 'tlsKey' | 'tlsCa' | 'tlsCrl'>;

const PEM_CERTIFICATE = /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g;

/** Whose certificates count, beside what TLS itself checks of a chain. */
interface Authority {
  /** Of a certificate that stood under an earlier authority: whether one of these has issued it, itself or through one between. */
  issued(shown: X509Certificate): boolean;
  hasRevoked(shown: X509Certificate): boolean;
}

interface Read {
  readonly credentials: TlsCredentials;
  readonly authority: Authority | undefined;
}

export class CredentialFiles {
  readonly paths: readonly string[];
  readonly #read: () => Promise<Read>;
  #now: Read;

  /** @throws CONFIG_INVALID where files are missing, cannot be read or do not belong together */
  static async open(hostId: string, dataDir: string, options: TlsOptions): Promise<CredentialFiles> {
    const { tlsCert, tlsKey, tlsCa, tlsCrl } = options;
    const given = [tlsCert, tlsKey, tlsCa].filter((path) => path !== '').length;
    if (given !== 0 && given !== 3)
      throw new DwcpError('CONFIG_INVALID', 'TLS needs tlsCert, tlsKey and tlsCa, all three');
    if (tlsCrl !== '' && given === 0) throw new DwcpError('CONFIG_INVALID', 'tlsCrl is of use beside tlsCa alone');
    const read = async (): Promise<Read> => {
      if (given === 0) return selfMade(hostId, dataDir);
      try {
        return ofFiles(hostId, options);
      } catch (error) {
        throw toDwcpError(error, 'CONFIG_INVALID');
      }
    };
    const paths = given === 0 ? ownPaths(dataDir) : [tlsCert, tlsKey, tlsCa, tlsCrl].filter((path) => path !== '');
    return new CredentialFiles(paths, read, await read());
  }

  private constructor(paths: readonly string[], read: () => Promise<Read>, now: Read) {
    this.paths = paths;
    this.#read = read;
    this.#now = now;
  }

  get credentials(): TlsCredentials {
    return this.#now.credentials;
  }

  /** What others have to know of this host; undefined where its authority vouches for it. */
  get ownPin(): string | undefined {
    return this.authority ? undefined : pinOfCertificate(this.credentials.cert);
  }

  get authority(): Authority | undefined {
    return this.#now.authority;
  }

  /** Files that do not fit together yet are left for the next time: what was read before goes on. @throws CONFIG_INVALID */
  async readAgain(): Promise<void> {
    this.#now = await this.#read();
  }
}

function ownPaths(dataDir: string): [key: string, certificate: string] {
  return [join(dataDir, 'host.key'), join(dataDir, 'host.pem')];
}

/** Made at the first start; a new certificate for the same key in the last half of its time, or where the host has another name. */
async function selfMade(hostId: string, dataDir: string): Promise<Read> {
  const [keyPath, certificatePath] = ownPaths(dataDir);
  const key = (await readOrMake(keyPath, makeHostKey)).toString('utf8');
  let cert = (await readIfThere(certificatePath))?.toString('utf8');
  if (cert === undefined || !isGood(cert, key, hostId)) {
    cert = await makeHostCertificate(hostId, key);
    await writeDurably(certificatePath, cert);
  }
  return { credentials: { cert, key }, authority: undefined };
}

/** A file that is made once: of two that make it at a time both have the same. */
async function readOrMake(path: string, make: () => Promise<string>): Promise<Buffer> {
  const known = await readIfThere(path);
  if (known) return known;
  const beside = `${path}.${randomUUID()}`;
  await writeDurably(beside, await make());
  try {
    await link(beside, path);
  } catch (error) {
    if (errnoOf(error) !== 'EEXIST') throw error;
  } finally {
    await rm(beside, { force: true });
  }
  await syncFolder(dirname(path));
  return readFile(path);
}

function isGood(cert: string, key: string, hostId: string): boolean {
  try {
    const certificate = new X509Certificate(cert);
    return (
      certificate.checkPrivateKey(createPrivateKey(key)) &&
      hostOf(certificate) === hostId &&
      Date.parse(certificate.validTo) - Date.now() > SELF_MADE_LIFETIME_MS / 2
    );
  } catch {
    return false;
  }
}

function ofFiles(hostId: string, { tlsCert, tlsKey, tlsCa, tlsCrl }: TlsOptions): Read {
  const [cert, key, ca] = [readFileSync(tlsCert), readSecretFile('tlsKey', tlsKey), readFileSync(tlsCa)];
  const own = new X509Certificate(cert);
  if (!own.checkPrivateKey(createPrivateKey(key)))
    throw new DwcpError('CONFIG_INVALID', `tlsCert ${tlsCert} is not for the key in ${tlsKey}`);
  if (hostOf(own) !== hostId)
    throw new DwcpError('CONFIG_INVALID', `tlsCert ${tlsCert} does not name this host`, {
      hint: `It needs the alternative name URI:spiffe://dwcp/host/${hostId}, and no other URI`,
    });
  const authorities = [...ca.toString('latin1').matchAll(PEM_CERTIFICATE)].map(([text]) => new X509Certificate(text));
  if (authorities.length === 0) throw new DwcpError('CONFIG_INVALID', `tlsCa ${tlsCa} holds no certificate`);
  const crl = tlsCrl === '' ? undefined : readFileSync(tlsCrl);
  const revoked = crl && readRevoked(crl.toString('latin1'));
  return {
    credentials: { cert, key, ca },
    authority: {
      issued: (shown) => isIssuedBy(shown, authorities),
      hasRevoked: (shown) => revoked?.(shown) ?? false,
    },
  };
}

const MOST_BETWEEN = 5;

/** As many between a host's certificate and the authority as the other side has shown. */
function isIssuedBy(shown: X509Certificate, authorities: readonly X509Certificate[]): boolean {
  let certificate = shown;
  for (let between = 0; between < MOST_BETWEEN; between += 1) {
    if (authorities.some((ca) => certificate.checkIssued(ca) && certificate.verify(ca.publicKey))) return true;
    const issuer: X509Certificate | undefined = certificate.issuerCertificate;
    if (!issuer || !certificate.verify(issuer.publicKey)) return false;
    certificate = issuer;
  }
  return false;
}
