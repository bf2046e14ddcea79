/**
 * Whose key is believed to be which host's. Without an authority it is the key that is pinned for that host id, in the trust folder or by
 * whoever's word counts (a warrant); with one (tlsCa) it is the name in a certificate of that authority that its list (tlsCrl) does not
 * take back. A host that is revoked in the trust folder is nobody either way.
 */
import type { X509Certificate } from 'node:crypto';
import { join } from 'node:path';
import { z } from 'zod';
import { forgetOldest } from '../model/forget-oldest';
import { hostIdSchema } from '../model/ids';
import { pinSchema } from '../model/signed-line';
import { readIfThere, writeDurably } from '../store/durable-file';
import { type PeerSecurity, type TlsCredentials, untrusted } from '../transport/peer-security';
import type { CredentialFiles } from './credential-files';
import { hostOf, keyPinOf, pinOfCertificate } from './host-certificate';
import type { TrustFolder } from './trust-folder';

const MOST_REMEMBERED = 4096;
const learntSchema = z.array(z.tuple([hostIdSchema, pinSchema])).max(MOST_REMEMBERED);

export class PeerTrust implements PeerSecurity {
  readonly #files: CredentialFiles;
  readonly #folder: TrustFolder;
  /** Keys that were named for a host by a word that counts, the newest last. */
  readonly #learnt: Map<string, string>;
  readonly #learntPath: string;
  #writing: Promise<void> = Promise.resolve();
  readonly #listeners = new Set<() => void>();

  /** @param dataDir where it keeps what it has learnt */
  static async open(files: CredentialFiles, folder: TrustFolder, dataDir: string): Promise<PeerTrust> {
    const path = join(dataDir, 'known-hosts.json');
    const text = await readIfThere(path);
    let learnt: readonly [string, string][] = [];
    try {
      learnt = text ? learntSchema.parse(JSON.parse(text.toString('utf8'))) : [];
    } catch {
      // It is learnt again with the next warrant.
    }
    return new PeerTrust(files, folder, path, learnt);
  }

  private constructor(
    files: CredentialFiles,
    folder: TrustFolder,
    learntPath: string,
    learnt: readonly [string, string][],
  ) {
    this.#files = files;
    this.#folder = folder;
    this.#learntPath = learntPath;
    this.#learnt = new Map(learnt);
  }

  credentials(): TlsCredentials {
    return this.#files.credentials;
  }

  /** This host's own key. */
  get pin(): string {
    return pinOfCertificate(this.#files.credentials.cert);
  }

  /** From now on this key is that host's, where the trust folder knows none; also after a restart. */
  async learn(hostId: string, pin: string): Promise<void> {
    const former = this.#learnt.get(hostId);
    if (former === pin) return;
    this.#learnt.delete(hostId);
    this.#learnt.set(hostId, pin);
    forgetOldest(this.#learnt, MOST_REMEMBERED);
    const text = JSON.stringify([...this.#learnt]);
    // One that failed keeps none behind it from being written.
    this.#writing = this.#writing.catch(() => undefined).then(() => writeDurably(this.#learntPath, text));
    try {
      await this.#writing;
    } catch (error) {
      this.#learnt.delete(hostId);
      throw error;
    }
    // What stands on the former key ends: from now on that is nobody's.
    if (former !== undefined) this.changed();
  }

  identify(shown: X509Certificate): string {
    const hostId = hostOf(shown);
    if (hostId === undefined) throw untrusted('The other side’s certificate names no host (spiffe://dwcp/host/ID)');
    if (this.#folder.isRevoked(hostId)) throw untrusted(`Host ${hostId} is revoked`);
    const now = Date.now();
    if (now > Date.parse(shown.validTo) || now < Date.parse(shown.validFrom))
      throw untrusted(`The certificate of host ${hostId} is valid from ${shown.validFrom} to ${shown.validTo}`);
    if (this.#files.authority?.hasRevoked(shown) === true)
      throw untrusted(`The certificate of host ${hostId} is on the list of revoked ones (tlsCrl)`);
    if (this.#files.authority) return hostId;
    const shownPin = keyPinOf(shown.publicKey);
    const learnt = this.#learnt.get(hostId);
    const known = this.#folder.host(hostId)?.keys ?? (learnt === undefined ? [] : [learnt]);
    if (known.includes(shownPin)) return hostId;
    throw untrusted(
      known.length > 0
        ? `Whoever calls itself host ${hostId} shows another key than is known of it`
        : `Host ${hostId} is not known here`,
    );
  }

  stillIs(shown: X509Certificate, hostId: string): boolean {
    try {
      if (this.#files.authority?.issued(shown) === false) return false;
      return this.identify(shown) === hostId;
    } catch {
      return false;
    }
  }

  watch(changed: () => void): () => void {
    this.#listeners.add(changed);
    return () => this.#listeners.delete(changed);
  }

  /** What this host shows, or what is believed, may be other than before. */
  changed(): void {
    for (const listener of this.#listeners) listener();
  }
}
