/**
 * Keys and certificates of hosts that stand in tests, and the trust folder that the hosts of a test file share. Made by the product's
 * own code; an authority is made by openssl, as an operator would.
 */
import { execFileSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { CredentialFiles, type TlsOptions } from '../../src/trust/credential-files';
import { hostUri } from '../../src/trust/host-certificate';
import { PeerTrust } from '../../src/trust/peer-trust';
import { TrustFolder } from '../../src/trust/trust-folder';
import { temporaryFolder } from './data';

const NO_TLS: TlsOptions = { tlsCert: '', tlsKey: '', tlsCa: '', tlsCrl: '' };

let shared: TrustFolder | undefined;

/** Of this test file. */
export function sharedTrust(): TrustFolder {
  return (shared ??= TrustFolder.make(join(temporaryFolder(), 'trust')));
}

/** One more key that is that host's, and what it shows by it. */
export async function identityOf(
  hostId: string,
  folder: TrustFolder = sharedTrust(),
  tls: TlsOptions = NO_TLS,
): Promise<PeerTrust> {
  const own = join(temporaryFolder(), hostId);
  mkdirSync(own, { recursive: true });
  const peer = await PeerTrust.open(await CredentialFiles.open(hostId, own, tls), folder, own);
  if (tls.tlsCa === '') folder.admit(hostId, { keys: [...(folder.host(hostId)?.keys ?? []).slice(-7), peer.pin] });
  return peer;
}

const NEW_KEY = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];

export class Authority {
  readonly #folder = temporaryFolder();

  constructor(name: string) {
    this.#openssl(
      'req',
      '-x509',
      ...NEW_KEY,
      '-days',
      '1',
      '-subj',
      `/CN=${name}`,
      '-keyout',
      'ca.key',
      '-out',
      'ca.pem',
    );
    for (const [file, text] of [
      ['index.txt', ''],
      ['crlnumber', '01\n'],
      [
        'ca.cnf',
        `[ca]\ndefault_ca=d\n[d]\ndatabase=${this.#at('index.txt')}\ncrlnumber=${this.#at('crlnumber')}\ndefault_md=sha256\n`,
      ],
    ] as const)
      writeFileSync(this.#at(file), text);
    this.#list();
  }

  get caPath(): string {
    return this.#at('ca.pem');
  }

  get listPath(): string {
    return this.#at('crl.pem');
  }

  /** Files of a certificate for a host. @param san in place of the host's own name */
  certify(hostId: string, san = `URI:${hostUri(hostId)}`): TlsOptions {
    this.#openssl('req', ...NEW_KEY, '-subj', '/CN=agent', '-keyout', `${hostId}.key`, '-out', `${hostId}.csr`);
    writeFileSync(this.#at(`${hostId}.ext`), `subjectAltName=${san}\n`);
    const signing = ['-CA', 'ca.pem', '-CAkey', 'ca.key', '-CAcreateserial', '-days', '1', '-extfile', `${hostId}.ext`];
    this.#openssl('x509', '-req', '-in', `${hostId}.csr`, ...signing, '-out', `${hostId}.pem`);
    return { tlsCert: this.#at(`${hostId}.pem`), tlsKey: this.#at(`${hostId}.key`), tlsCa: this.caPath, tlsCrl: '' };
  }

  revoke(hostId: string): void {
    const signer = ['-config', 'ca.cnf', '-cert', 'ca.pem', '-keyfile', 'ca.key'];
    this.#openssl('ca', ...signer, '-revoke', `${hostId}.pem`);
    this.#list();
  }

  #list(): void {
    const signer = ['-config', 'ca.cnf', '-cert', 'ca.pem', '-keyfile', 'ca.key'];
    this.#openssl('ca', ...signer, '-gencrl', '-crldays', '1', '-out', 'crl.pem');
  }

  #at(file: string): string {
    return join(this.#folder, file);
  }

  #openssl(...args: string[]): void {
    execFileSync('openssl', args, { stdio: ['ignore', 'ignore', 'pipe'], cwd: this.#folder });
  }
}
