/**
 * The change feed of an image that goes on changing while it is sent: a running guest's memory (filled by QEMU's stream) or
 * disk (by dirty bitmaps). A block is named when it has changed, at most one version of it is on the way at a time, and
 * the feed stays open until end().
 *
 *   changed -> dirty -> next() -> on the way -> confirmed(): clean, or named again if it has changed meanwhile
 */
import { blockCount, PAGE_SIZE_BYTES, PAGES_PER_BLOCK } from '../../model/image';
import { type BlockSelection, countOf } from '../codec/block-selection';
import type { ImageFile } from '../codec/codec-jobs';
import type { BlockFeed } from './block-feed';
import { type FeedCursor, FeedCursors } from './feed-cursors';

/** What will have to be sent of a block, as far as that can be guessed: little, much, or much that does not even compress. */
export type Outlook = 'unknown' | 'raw' | 'much' | 'little';
const OUTLOOKS: readonly Outlook[] = ['unknown', 'raw', 'much', 'little'];
const [UNKNOWN, RAW, MUCH, LITTLE] = [0, 1, 2, 3];
/** The link waits: what fills it for the least work comes first. Else what is work, while there is time. */
const WHILE_STREAMS_WAIT = [RAW, MUCH, UNKNOWN, LITTLE];
const WHILE_THEY_HAVE_ENOUGH = [LITTLE, MUCH, UNKNOWN, RAW];

/** What does not compress fills the link whatever its batches weigh: small ones keep it from being seconds ahead. */
const RAW_BATCH_BLOCKS = 2;
/** Towards the end, for each job of a thread: what is larger than an initial window of TCP goes in parts. */
const SMALL_BATCH_PAGES = 16;

export interface LiveFeedOptions {
  readonly file: ImageFile;
  /** Reads blocks that do not lie in a file. */
  readonly load?: (blocks: BlockSelection, into: Buffer) => Promise<void>;
}

export class LiveFeed implements BlockFeed {
  file: ImageFile;
  readonly load?: (blocks: BlockSelection, into: Buffer) => Promise<void>;
  readonly #dirty: Uint8Array;
  readonly #onTheWay: Uint8Array;
  readonly #seen: Uint8Array;
  readonly #settled: Uint8Array;
  /** Pages of a block that have changed, as far as that is known, dirty and on the way: what the backlog weighs. */
  readonly #dirtyPages: Uint8Array;
  readonly #pagesOnTheWay: Uint8Array;
  #backlogPages = 0;
  #dirtyCount = 0;
  /** By block, and how many dirty ones there are of each. */
  readonly #outlook: Uint8Array;
  readonly #dirtyWith = [0, 0, 0, 0];
  readonly #cursors: FeedCursors;
  /** Where to go on among blocks of an outlook. */
  readonly #placeIn: readonly FeedCursor[] = OUTLOOKS.map(() => ({ at: 0, sentBytes: undefined }));
  readonly #takenFrom = new WeakMap<BlockSelection, { readonly cursor: FeedCursor; readonly streamsWait: boolean }>();
  #hot = -1;
  #coming = false;
  #open = true;
  #hurried = false;
  #small = false;
  #more: () => void = () => undefined;
  #drained: () => void = () => undefined;

  constructor({ file, load }: LiveFeedOptions) {
    this.file = file;
    if (load) this.load = load;
    const blocks = blockCount(file.sizeBytes);
    this.#dirty = new Uint8Array(blocks);
    this.#onTheWay = new Uint8Array(blocks);
    this.#seen = new Uint8Array(blocks);
    this.#settled = new Uint8Array(blocks);
    this.#dirtyPages = new Uint8Array(blocks);
    this.#pagesOnTheWay = new Uint8Array(blocks);
    this.#outlook = new Uint8Array(blocks);
    this.#cursors = new FeedCursors(this.#dirty);
  }

  /** What the destination holds of an earlier attempt may be named before there is a file to read from: it is left until then. */
  get remaining(): number {
    return this.file.fd < 0 && !this.load ? 0 : this.#dirtyCount;
  }

  get open(): boolean {
    return this.#open;
  }

  /** The guest waits: nothing is asked of the destination before a block is sent. */
  get hurried(): boolean {
    return this.#hurried;
  }

  get waitsForMore(): boolean {
    return this.#coming && (this.#dirtyWith[LITTLE] ?? 0) === this.#dirtyCount;
  }

  get fewAtATime(): boolean {
    return this.#small;
  }

  get hasWorkAhead(): boolean {
    if (this.#small) return false;
    const heavy = this.#has(LITTLE) || (this.#has(MUCH) && this.#has(RAW));
    return (heavy && !this.#coming) || this.#cursors.hasLittleToSend(this.#dirtyCount);
  }

  /** Bytes that have changed and are not confirmed. */
  get backlogBytes(): number {
    return this.#backlogPages * PAGE_SIZE_BYTES;
  }

  /** Called where blocks have been confirmed. */
  onDrained(handler: () => void): void {
    this.#drained = handler;
  }

  onMore(handler: () => void): void {
    this.#more = handler;
  }

  hurry(): void {
    this.#hurried = true;
  }

  /** From now on a few pages at a time are named, and go in parts: they arrive within a round trip or two, however cold the streams are. */
  nameFew(): void {
    this.#small = true;
  }

  changed(first: number, count: number): void {
    this.changedPages(first * PAGES_PER_BLOCK, count * PAGES_PER_BLOCK);
  }

  changedPages(first: number, count: number): void {
    for (let page = first; page < first + count; ) {
      const block = Math.floor(page / PAGES_PER_BLOCK);
      const end = Math.min(first + count, (block + 1) * PAGES_PER_BLOCK);
      this.#mark(block, end - page);
      page = end;
    }
    this.#more();
  }

  /** Names the blocks marked in `left` (one byte each); the others are known to be settled. */
  scan(left: Uint8Array): void {
    this.#seen.fill(1);
    for (let block = left.indexOf(1); block >= 0; block = left.indexOf(1, block + 1)) {
      this.#mark(block, PAGES_PER_BLOCK);
    }
    this.#more();
  }

  /** The file that blocks are read from, where it was not there at the beginning. */
  setFile(fd: number): void {
    this.file = { fd, sizeBytes: this.file.sizeBytes };
    if (this.#dirtyCount > 0) this.#more();
  }

  /** The destination holds this block as it is here: it is looked at only once it changes. */
  settle(block: number): void {
    this.#seen[block] = 1;
    this.#settled[block] = 1;
  }

  isSettled(block: number): boolean {
    return this.#settled[block] === 1;
  }

  /** Blocks that were settled at the beginning and have not changed since. */
  get settled(): readonly number[] {
    const list: number[] = [];
    for (let block = this.#settled.indexOf(1); block >= 0; block = this.#settled.indexOf(1, block + 1))
      list.push(block);
    return list;
  }

  dirtyBlocks(): number[] {
    const list: number[] = [];
    for (let block = this.#dirty.indexOf(1); block >= 0; block = this.#dirty.indexOf(1, block + 1)) list.push(block);
    return list;
  }

  /** While more is on its way from the guest, what takes little on the link waits: the processors have better to do. */
  setComing(coming: boolean): void {
    if (this.#coming === coming) return;
    this.#coming = coming;
    if (!coming) this.#more();
  }

  /** What is thought of a block decides when its turn is, nothing else. */
  expect(block: number, outlook: Outlook): void {
    const before = this.#outlook[block] ?? UNKNOWN;
    const now = OUTLOOKS.indexOf(outlook);
    this.#outlook[block] = now;
    if (this.#dirty[block] === 0) return;
    this.#count(before, -1);
    this.#count(now, 1);
  }

  /** The block that is being written just now: not worth sending before it is through. -1 for none. */
  setHot(block: number): void {
    this.#hot = block;
    if (block < 0 && this.#dirtyCount > 0) this.#more();
  }

  /** Nothing changes any more. What has never been named is looked at once. */
  end(): void {
    this.#hot = -1;
    this.#open = false;
    this.nameUnseen();
    this.#more();
  }

  /** Everything has had its turn once: what has never been named is looked at as it lies, and does not wait for the end. */
  nameUnseen(): void {
    const first = this.#seen.indexOf(0);
    for (let block = first; block >= 0; block = this.#seen.indexOf(0, block + 1)) this.#mark(block, PAGES_PER_BLOCK);
    if (first >= 0) this.#more();
  }

  next(blocks: number, enoughToSend = false): BlockSelection | undefined {
    if (this.remaining === 0) return undefined;
    for (const outlook of this.#turns(enoughToSend)) {
      const cursor =
        outlook === UNKNOWN && !this.#small
          ? this.#cursors.choose(this.#dirtyCount, enoughToSend)
          : this.#placeIn[outlook];
      // Those of an outlook may all be on the way in an older version.
      const selection =
        cursor && this.#has(outlook)
          ? this.#take(outlook === RAW ? Math.min(blocks, RAW_BATCH_BLOCKS) : blocks, cursor, outlook)
          : undefined;
      if (!cursor || !selection) continue;
      if (outlook === UNKNOWN) this.#takenFrom.set(selection, { cursor, streamsWait: !enoughToSend });
      return selection;
    }
    return undefined;
  }

  packed(blocks: BlockSelection, sentBytes: number): void {
    const taken = this.#takenFrom.get(blocks);
    if (taken) this.#cursors.learn(taken.cursor, countOf(blocks), sentBytes, taken.streamsWait);
  }

  confirmed(blocks: readonly number[]): void {
    let again = false;
    for (const block of blocks) {
      if (this.#onTheWay[block] === 0) continue;
      this.#onTheWay[block] = 0;
      this.#backlogPages -= this.#pagesOnTheWay[block] ?? 0;
      this.#pagesOnTheWay[block] = 0;
      again ||= this.#dirty[block] === 1;
    }
    this.#drained();
    if (again) this.#more();
  }

  restart(settled: (block: number) => boolean): void {
    this.#dirtyCount = 0;
    this.#dirtyWith.fill(0);
    this.#backlogPages = 0;
    for (let block = 0; block < this.#dirty.length; block += 1) {
      // What was on the way may not even have been read: its hash says nothing yet.
      const onlyDirty = this.#dirty[block] === 1 && this.#onTheWay[block] === 0;
      const dirty =
        this.#seen[block] === 1 && (this.#dirty[block] === 1 || this.#onTheWay[block] === 1 || !settled(block));
      this.#dirty[block] = dirty ? 1 : 0;
      this.#dirtyPages[block] = !dirty ? 0 : onlyDirty ? (this.#dirtyPages[block] ?? 0) : PAGES_PER_BLOCK;
      if (!dirty) continue;
      this.#dirtyCount += 1;
      this.#count(this.#outlook[block] ?? UNKNOWN, 1);
      this.#backlogPages += this.#dirtyPages[block] ?? 0;
    }
    this.#onTheWay.fill(0);
    this.#pagesOnTheWay.fill(0);
  }

  #mark(block: number, pages: number): void {
    this.#seen[block] = 1;
    this.#settled[block] = 0;
    if (this.#dirty[block] === 0) {
      this.#dirtyCount += 1;
      this.#count(this.#outlook[block] ?? UNKNOWN, 1);
    }
    this.#dirty[block] = 1;
    const before = this.#dirtyPages[block] ?? 0;
    const now = Math.min(PAGES_PER_BLOCK, before + pages);
    this.#dirtyPages[block] = now;
    this.#backlogPages += now - before;
  }

  /** Those of an outlook, from a place on and then from the beginning. */
  #take(blocks: number, cursor: FeedCursor, outlook: number): BlockSelection | undefined {
    const list: number[] = [];
    const from = cursor.at;
    this.#collect(list, blocks, cursor, this.#dirty.length, outlook);
    if (list.length === 0 || (list.length < blocks && !this.#small && outlook === UNKNOWN)) {
      const end = list[0] ?? from;
      const wrapped: number[] = [];
      cursor.at = 0;
      this.#collect(wrapped, blocks - list.length, cursor, Math.min(end, this.#dirty.length), outlook);
      if (wrapped.length === 0) cursor.at = (list.at(-1) ?? -1) + 1;
      list.unshift(...wrapped);
    }
    if (list.length === 0) return undefined;
    const [first = 0, last = 0] = [list[0], list.at(-1)];
    return last - first + 1 === list.length ? { first, count: list.length } : { list };
  }

  #count(outlook: number, difference: number): void {
    this.#dirtyWith[outlook] = (this.#dirtyWith[outlook] ?? 0) + difference;
  }

  #has(outlook: number): boolean {
    return (this.#dirtyWith[outlook] ?? 0) > 0;
  }

  /** Whose turn it is, one behind the other. */
  #turns(enoughToSend: boolean): readonly number[] {
    const turns = enoughToSend && !this.#small ? WHILE_THEY_HAVE_ENOUGH : WHILE_STREAMS_WAIT;
    return this.#coming ? turns.filter((outlook) => outlook !== LITTLE) : turns;
  }

  #collect(list: number[], most: number, cursor: FeedCursor, end: number, outlook: number): void {
    let taken = 0;
    let pages = 0;
    for (
      let block = this.#dirty.indexOf(1, cursor.at);
      block >= 0 && block < end && taken < most;
      block = this.#dirty.indexOf(1, block + 1)
    ) {
      if (this.#onTheWay[block] === 1 || block === this.#hot || this.#outlook[block] !== outlook) continue;
      this.#dirty[block] = 0;
      this.#dirtyCount -= 1;
      this.#count(this.#outlook[block] ?? UNKNOWN, -1);
      this.#onTheWay[block] = 1;
      this.#pagesOnTheWay[block] = this.#dirtyPages[block] ?? 0;
      this.#dirtyPages[block] = 0;
      list.push(block);
      taken += 1;
      pages += this.#pagesOnTheWay[block] ?? 0;
      cursor.at = block + 1;
      if (this.#small && pages >= SMALL_BATCH_PAGES) return;
    }
  }
}
