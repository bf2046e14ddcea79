/**
 * The destination's half of references to bases: which of this host's bases look like what is going to come, judged by a
 * sample of its pages, and where in the space of addresses their pages lie. The source's half is base-pages.ts.
 */
import { randomBytes } from 'node:crypto';
import { type FileHandle, open } from 'node:fs/promises';
import { HASH_BYTES, PAGE_HASH_BYTES } from '../../encoder/hash';
import { HASH_KEY_BYTES, keyedPageHashes } from '../../encoder/keyed-hash';
import { pagesOfBlocks } from '../../model/image';
import type { BaseDisk, BaseStore } from '../../store/base-disks';
import { inSlices } from '../../store/in-slices';
import type { ReferenceSource } from '../codec/codec-jobs';
import { MAX_PAGES } from '../codec/reference-index';

/** Behind every address that an image of the migration may have. */
const BASES_FROM = 2 ** 40;
/** Of the sample: below it the hashes of a base's pages cost more than they save. */
const LEAST_SHARE = 0.05;
const MAX_BASES = 16;
const PREFILTER_BITS = 16;
const PAGES_AT_ONCE = 65_536;

export interface OfferedBase {
  readonly base: BaseDisk;
  readonly source: ReferenceSource;
}

export class BaseOffer {
  /** Page hashes that cross for this migration are made with it. Another agent has another: then they are asked for again. */
  readonly pageKey: Buffer = randomBytes(HASH_KEY_BYTES);
  readonly #store: BaseStore;
  readonly #tenant: string | undefined;
  readonly #handles: FileHandle[] = [];
  #offered: readonly OfferedBase[] | undefined;

  /** @param tenant of the VM that comes; one without shares nothing */
  constructor(store: BaseStore, tenant: string | undefined) {
    this.#store = store;
    this.#tenant = tenant;
  }

  get offered(): readonly OfferedBase[] {
    return this.#offered ?? [];
  }

  async hasAny(): Promise<boolean> {
    return (await this.#ofTenant()).length > 0;
  }

  /** @param sample keyed page hashes of what comes; asked again, it is the same offer */
  async offer(sample: Buffer): Promise<readonly OfferedBase[]> {
    this.#offered ??= await this.#choose(sample);
    return this.#offered;
  }

  /** The digests of its pages, for keyedPageHashes(). */
  pagesOf(name: string): Promise<Buffer | undefined> {
    const known = this.offered.find(({ base }) => base.name === name);
    return known ? this.#store.pagesOf(known.base) : Promise.resolve(undefined);
  }

  async close(): Promise<void> {
    for (const handle of this.#handles.splice(0)) await handle.close();
  }

  async #ofTenant(): Promise<BaseDisk[]> {
    return this.#tenant ? (await this.#store.list()).filter(({ tenant }) => tenant === this.#tenant) : [];
  }

  async #choose(sample: Buffer): Promise<OfferedBase[]> {
    const wanted = Math.max(1, LEAST_SHARE * (sample.length / PAGE_HASH_BYTES));
    const offered: OfferedBase[] = [];
    let pages = 0;
    for (const base of await this.#ofTenant()) {
      const theirs = pagesOfBlocks(base.sizeBytes);
      if (offered.length >= MAX_BASES || pages + theirs > MAX_PAGES || !(await this.#store.isWhole(base))) continue;
      const digests = await this.#store.pagesOf(base);
      const hits = digests ? await this.#hitsIn(digests, sample) : 0;
      const handle = hits < wanted ? undefined : await open(base.path, 'r').catch(() => undefined);
      if (!handle) continue;
      this.#handles.push(handle);
      offered.push({ base, source: { fd: handle.fd, sizeBytes: base.sizeBytes, from: BASES_FROM + pages } });
      pages += theirs;
    }
    return offered;
  }

  async #hitsIn(digests: Buffer, sample: Buffer): Promise<number> {
    const count = hitCounter(sample);
    let hits = 0;
    await inSlices(digests.length / HASH_BYTES, PAGES_AT_ONCE, (first, end) => {
      hits += count(keyedPageHashes(this.pageKey, digests.subarray(first * HASH_BYTES, end * HASH_BYTES)));
    });
    return hits;
  }
}

/** Counts how many pages of a sample are among some; one that was found is not counted again. */
function hitCounter(sample: Buffer): (hashes: Buffer) => number {
  const keyAt = (bytes: Buffer, at: number): string => bytes.toString('latin1', at, at + PAGE_HASH_BYTES);
  const left = new Map<string, number>();
  const mayBe = new Uint8Array(2 ** PREFILTER_BITS);
  for (let at = 0; at < sample.length; at += PAGE_HASH_BYTES) {
    left.set(keyAt(sample, at), (left.get(keyAt(sample, at)) ?? 0) + 1);
    mayBe[sample.readUInt16LE(at)] = 1;
  }
  return (hashes) => {
    let hits = 0;
    for (let at = 0; at < hashes.length && left.size > 0; at += PAGE_HASH_BYTES) {
      if (mayBe[hashes.readUInt16LE(at)] === 0) continue;
      const key = keyAt(hashes, at);
      hits += left.get(key) ?? 0;
      left.delete(key);
    }
    return hits;
  };
}
