/**
 * What both sides of a guest's move have of its memory before it begins: believed of the RAM image kept here, until the
 * destination has said what it holds. Such a block is looked at only once it changes, and then its pages as they were are
 * what a delta builds on.
 *
 *   believe() -> (blocks change: recall) -> meet(what the destination holds): known, or sent after all
 */
import { blockHash } from '../../encoder/hash';
import { blockCount } from '../../model/image';
import type { Manifest } from '../../store/manifest';
import type { PageTable } from '../codec/page-table';
import { type SharedVersions, shareVersions, VersionCache } from '../codec/version-cache';
import type { LiveFeed } from '../feeds/live-feed';
import type { KeptMemory } from './kept-memory';

export class SettledMemory {
  /** One byte a block: 1 where both sides are believed to have the same. */
  readonly blocks: Uint8Array;
  /** Old versions of blocks that change again and again, those of settled ones among them. */
  readonly versions: SharedVersions;
  readonly #feed: LiveFeed;
  readonly #cache: VersionCache;
  #kept: KeptMemory | undefined;
  /** Page hashes of what the destination holds, once it has been asked. */
  #pages: PageTable | undefined;

  constructor(feed: LiveFeed) {
    this.#feed = feed;
    this.blocks = new Uint8Array(blockCount(feed.file.sizeBytes));
    this.versions = shareVersions(this.blocks.length);
    this.#cache = new VersionCache(this.versions);
  }

  believe(kept: KeptMemory | undefined): void {
    this.#kept = kept;
    for (const block of this.#believed()) {
      this.#feed.settle(block);
      this.blocks[block] = 1;
    }
  }

  /** A believed block changes for the first time. @param bytes as they were */
  recall(block: number, bytes: Buffer): void {
    if (!this.#kept || !this.#feed.isSettled(block)) return;
    const { manifest, trusted, pages } = this.#kept;
    // It may not have been measured yet, and could not be afterwards.
    const hash = manifest.hashOf(block);
    if (trusted[block] === 0 && !blockHash(bytes).equals(hash)) return;
    trusted[block] = 1;
    this.#cache.put(block, hash, bytes);
    pages.note(block, bytes);
    this.#pages?.take(block, pages);
  }

  /** The destination has been asked. @param source where hashes of what is here are kept, @param pages those of its pages */
  async meet(held: Manifest, source: Manifest, pages: PageTable): Promise<void> {
    await this.#kept?.measured;
    for (const block of this.#believed()) {
      const { manifest, trusted, pages: before } = this.#kept ?? {};
      const hash = manifest?.hashOf(block);
      if (hash && before && trusted?.[block] === 1 && hash.equals(held.hashOf(block))) {
        source.set(block, hash);
        pages.take(block, before);
      } else if (this.#feed.isSettled(block)) this.#feed.changed(block, 1);
    }
    this.#pages = pages;
  }

  *#believed(): Generator<number> {
    const believed = this.#kept?.believed;
    for (let block = believed?.indexOf(1) ?? -1; believed && block >= 0; block = believed.indexOf(1, block + 1))
      yield block;
  }
}
