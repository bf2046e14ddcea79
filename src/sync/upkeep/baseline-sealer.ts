/**
 * Keeps the content of baselines unreadable without the host's key while nobody uses it. Sealing happens in the background, in
 * place and in any number of attempts: each block is known by its hash to be sealed or not, so a crash in the middle costs
 * nothing. Without a key nothing is sealed, and what is sealed is of no use.
 *
 *   kept, plain --(background)--> sealed in part --> sealed --open()--> plain again, in use as a working file
 */
import { open } from 'node:fs/promises';
import type { Baseline, BaselineRecord, BaselineStore, ContentAccess, ContentGuard } from '../../store/baselines';
import { exists } from '../../store/durable-file';
import type { Manifest } from '../../store/manifest';
import type { ContentCipher, SealingKey } from '../../store/sealing-key';
import type { SealJob } from '../codec/codec-jobs';
import type { CodecPool } from '../codec/codec-pool';
import { piecesOf } from '../codec/pieces';

interface Sealing {
  readonly name: string;
  readonly abort: AbortController;
  readonly ended: Promise<void>;
}

const nameOf = (vmId: string, imageId: string): string => `${vmId}/${imageId}`;

export class BaselineSealer implements ContentGuard {
  readonly #store: BaselineStore;
  readonly #pool: CodecPool;
  readonly #key: SealingKey | undefined;
  /** Opened for use: not to be sealed before they are kept again. */
  readonly #inUse = new Set<string>();
  #current: Sealing | undefined;
  #round: Promise<void> | undefined;
  #again = false;
  #closed = false;

  constructor(store: BaselineStore, pool: CodecPool, key: SealingKey | undefined) {
    this.#store = store;
    this.#pool = pool;
    this.#key = key;
  }

  get seals(): boolean {
    return this.#key !== undefined;
  }

  /** Seals what is not sealed, one file after the other; never throws, what fails is tried again later. */
  sealAll(): Promise<void> {
    if (!this.#key || this.#closed) return Promise.resolve();
    this.#again = true;
    this.#round ??= this.#rounds(this.#key).finally(() => (this.#round = undefined));
    return this.#round;
  }

  kept(vmId: string, imageId: string): void {
    this.#inUse.delete(nameOf(vmId, imageId));
    void this.sealAll();
  }

  async release(vmId: string, imageId: string): Promise<void> {
    const current = this.#current;
    if (current?.name !== nameOf(vmId, imageId)) return;
    current.abort.abort();
    await current.ended;
  }

  async open(vmId: string, imageId: string): Promise<boolean> {
    this.#inUse.add(nameOf(vmId, imageId));
    await this.release(vmId, imageId);
    const baseline = await this.#store.open(vmId, imageId);
    const { contentPath, seal } = baseline?.record ?? {};
    if (!baseline || !contentPath || !seal) return true;
    const cipher = this.#key?.cipherOf(seal);
    if (!cipher) return false;
    await this.#store.setSeal(baseline.record, undefined);
    if (await exists(contentPath)) await this.#convert(baseline, contentPath, cipher, 'plain');
    return true;
  }

  accessTo({ seal }: BaselineRecord): ContentAccess | undefined {
    const cipher = seal && this.#key?.cipherOf(seal);
    return seal && !cipher ? undefined : { cipher };
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#current?.abort.abort();
    await this.#round;
  }

  async #rounds(key: SealingKey): Promise<void> {
    while (this.#again && !this.#closed) {
      this.#again = false;
      for (const record of await this.#store.list().catch(() => [])) {
        const name = nameOf(record.vmId, record.imageId);
        if (!this.#isToBeSealed(name, record)) continue;
        const abort = new AbortController();
        const ended = this.#seal(record, key, abort.signal).catch(() => undefined);
        this.#current = { name, abort, ended };
        await ended;
        this.#current = undefined;
      }
    }
  }

  #isToBeSealed(name: string, { contentPath, seal }: BaselineRecord): boolean {
    return !this.#closed && !this.#inUse.has(name) && contentPath !== undefined && seal?.complete !== true;
  }

  async #seal({ vmId, imageId }: BaselineRecord, key: SealingKey, signal: AbortSignal): Promise<void> {
    const baseline = await this.#store.open(vmId, imageId);
    const contentPath = baseline?.record.contentPath;
    // In use as a working file: then it lies elsewhere.
    if (!baseline || !contentPath || !(await exists(contentPath))) return;
    const seal = baseline.record.seal ?? key.newSeal();
    const cipher = key.cipherOf(seal);
    if (!cipher) return;
    await this.#store.setSeal(baseline.record, { ...seal, complete: false });
    await this.#convert(baseline, contentPath, cipher, 'sealed', signal);
    if (!signal.aborted) await this.#store.setSeal(baseline.record, { ...seal, complete: true });
  }

  async #convert(
    { manifest }: Baseline,
    path: string,
    cipher: ContentCipher,
    into: SealJob['into'],
    signal?: AbortSignal,
  ): Promise<void> {
    const handle = await open(path, 'r+');
    try {
      await sealBlocks(this.#pool, handle.fd, manifest, { cipher, into }, signal);
      await handle.datasync();
    } finally {
      await handle.close();
    }
  }
}

/**
 * Goes through a file in pieces, until the end or until it is told to stop.
 * @param into `as it is` only compares
 * @returns damaged blocks
 */
export async function sealBlocks(
  pool: CodecPool,
  fd: number,
  manifest: Manifest,
  { cipher, into }: Pick<SealJob, 'cipher' | 'into'>,
  signal?: AbortSignal,
): Promise<number> {
  let damaged = 0;
  const file = { fd, sizeBytes: manifest.sizeBytes };
  for (const piece of piecesOf(manifest.blocks)) {
    if (signal?.aborted) break;
    damaged += (await pool.run({ kind: 'seal', file, ...piece, hashes: manifest.memory, cipher, into })).damaged;
  }
  return damaged;
}
