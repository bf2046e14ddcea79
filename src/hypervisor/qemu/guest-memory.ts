/**
 * A running guest's memory as an image file: what QEMU's migration stream brings is written to its place, and the blocks
 * that changed are named. Who sends them, and when reading pauses, is the sync's business.
 *
 * This is I/O on the main thread, in the page cache and never synced. It takes 1.0 to 1.7 s of it for a gigabyte (`npm run bench
 * -- ram-image`, on a machine with other load), and so 2 % at 100 Mbit/s and a fifth at 1 Gbit/s. A thread of its own leaves 0.35
 * to 0.65 s, but brings the first pass, which is most of what comes, down from 1,020 to 660 MB/s, and parts the stream from its
 * events, whose order the sender, the brake and the last round rest on.
 */
import { closeSync, constants, ftruncateSync, mkdirSync, readSync, writeSync } from 'node:fs';
import { dirname } from 'node:path';
import type { RamBlock, RamLayout } from '../../model/guest';
import { BLOCK_SIZE_BYTES, PAGES_PER_BLOCK } from '../../model/image';
import { openImageSync } from '../../system/image-roots';
import type { GuestMemoryEvents } from '../contract';
import { notUnderstood, PAGE_BYTES } from './migration-stream-format';
import type { MigrationStreamHandler } from './migration-stream-reader';

const RUN_BYTES = 256 * 1024;
const ZERO_PAGE = Buffer.alloc(PAGE_BYTES);

export class GuestMemory implements MigrationStreamHandler {
  readonly fd: number;
  readonly layout: RamLayout;
  readonly commands: Buffer[] = [];
  readonly devicePieces: Buffer[] = [];
  readonly #events: GuestMemoryEvents;
  readonly #run = Buffer.allocUnsafeSlow(RUN_BYTES);
  readonly #before = Buffer.allocUnsafeSlow(RUN_BYTES);
  /** One byte a block: 1 where all that the file holds of it has been named before, or need not be. */
  readonly #named: Uint8Array;
  /** One byte a block: 1 where it was settled at the beginning and has not been written. */
  readonly #pristine: Uint8Array;
  readonly #block = Buffer.allocUnsafeSlow(BLOCK_SIZE_BYTES);
  /** Pages known to be zero in the file; they need no writing to become so. */
  readonly #blank: Uint8Array;
  /** A bit a page: those that the stream has brought. QEMU leaves out what a balloon device reports as free. */
  readonly #came: Uint16Array;
  #cameBytes = 0;
  #runStart = 0;
  #runBytes = 0;
  #blockId = '';
  #blockStart = 0;

  /**
   * @param blankPages pages of the file that are holes; it is taken over
   * @param settled one byte a block: 1 where what the file holds need not be named; it is taken over
   */
  constructor(
    path: string,
    layout: RamLayout,
    blankPages: (fd: number) => Uint8Array,
    settled: Uint8Array,
    events: GuestMemoryEvents,
  ) {
    mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
    this.fd = openImageSync(path, constants.O_RDWR | constants.O_CREAT);
    this.layout = layout;
    try {
      ftruncateSync(this.fd, layout.sizeBytes);
      this.#blank = blankPages(this.fd);
    } catch (error) {
      closeSync(this.fd);
      throw error;
    }
    this.#named = settled;
    this.#came = new Uint16Array(settled.length);
    this.#pristine = Uint8Array.from(settled);
    this.#events = events;
  }

  get leftOutBytes(): number {
    return this.layout.blocks.reduce((sum, { usedBytes }) => sum + usedBytes, 0) - this.#cameBytes;
  }

  setUp(prefix: Buffer, sectionId: number, blocks: readonly RamBlock[]): void {
    if (!this.layout.equals(blocks)) throw notUnderstood('other RAM blocks than the preflight has seen');
    this.#events.setUp(Buffer.from(prefix), sectionId);
  }

  page(block: string, offset: number, content: Buffer): void {
    const at = this.#place(block) + offset;
    if (at !== this.#runStart + this.#runBytes || this.#runBytes + PAGE_BYTES > RUN_BYTES) {
      this.#flush();
      this.#runStart = at;
    }
    content.copy(this.#run, this.#runBytes, 0, PAGE_BYTES);
    this.#runBytes += PAGE_BYTES;
  }

  filledPage(block: string, offset: number, fill: number): void {
    const at = this.#place(block) + offset;
    if (fill === 0 && this.#blank[at / PAGE_BYTES] === 1) {
      this.#flush();
      this.#name(at / PAGE_BYTES, 1, 'as it was');
      return;
    }
    this.page(block, offset, fill === 0 ? ZERO_PAGE : Buffer.alloc(PAGE_BYTES, fill));
  }

  command(bytes: Buffer): void {
    this.commands.push(Buffer.from(bytes));
  }

  sectionEnded(kind: 'part' | 'end'): void {
    this.#flush();
    this.#events.sectionEnded();
    if (kind === 'end') this.#events.pagesEnded();
  }

  deviceState(bytes: Buffer): void {
    this.devicePieces.push(Buffer.from(bytes));
  }

  close(): void {
    closeSync(this.fd);
  }

  #place(block: string): number {
    if (block !== this.#blockId) {
      this.#blockStart = this.layout.startOf(block);
      this.#blockId = block;
    }
    return this.#blockStart;
  }

  #flush(): void {
    if (this.#runBytes === 0) return;
    const [first, count] = [this.#runStart / PAGE_BYTES, this.#runBytes / PAGE_BYTES];
    const blank = this.#blank.subarray(first, first + count).every((page) => page === 1);
    if (!blank) readStretch(this.fd, this.#before.subarray(0, this.#runBytes), this.#runStart);
    for (let at = 0; at < count; ) {
      const changed = blank || this.#differs(at);
      const start = at;
      while (at < count && (blank || this.#differs(at) === changed)) at += 1;
      if (changed) this.#write(start, at);
      this.#name(first + start, at - start, changed ? 'changed' : 'as it was');
    }
    this.#runStart += this.#runBytes;
    this.#runBytes = 0;
  }

  #differs(page: number): boolean {
    const [start, end] = [page * PAGE_BYTES, (page + 1) * PAGE_BYTES];
    return this.#run.compare(this.#before, start, end, start, end) !== 0;
  }

  /** Writes pages of the run. */
  #write(from: number, to: number): void {
    const [firstPage, lastPage] = [this.#runStart / PAGE_BYTES + from, this.#runStart / PAGE_BYTES + to - 1];
    for (
      let block = Math.floor(firstPage / PAGES_PER_BLOCK);
      block <= Math.floor(lastPage / PAGES_PER_BLOCK);
      block += 1
    )
      this.#aboutToChange(block);
    this.#events.pagesWritten(firstPage, this.#run.subarray(from * PAGE_BYTES, to * PAGE_BYTES));
    for (let at = from * PAGE_BYTES; at < to * PAGE_BYTES; )
      at += writeSync(this.fd, this.#run, at, to * PAGE_BYTES - at, this.#runStart + at);
    this.#blank.fill(0, this.#runStart / PAGE_BYTES + from, this.#runStart / PAGE_BYTES + to);
  }

  #aboutToChange(block: number): void {
    if (this.#pristine[block] === 0) return;
    this.#pristine[block] = 0;
    if (this.#blank.subarray(block * PAGES_PER_BLOCK, (block + 1) * PAGES_PER_BLOCK).every((page) => page === 1))
      return;
    readStretch(this.fd, this.#block, block * BLOCK_SIZE_BYTES);
    this.#events.beforeFirstChange(block, this.#block);
  }

  #note(block: number, first: number, count: number): void {
    const before = this.#came[block] ?? 0;
    const now = before | (((1 << count) - 1) << first);
    if (now === before) return;
    this.#came[block] = now;
    for (let fresh = now & ~before; fresh !== 0; fresh &= fresh - 1) this.#cameBytes += PAGE_BYTES;
  }

  /** Names pages that have changed; those that are as they were only where their block has never been named. */
  #name(first: number, count: number, content: 'changed' | 'as it was'): void {
    for (let page = first; page < first + count; ) {
      const block = Math.floor(page / PAGES_PER_BLOCK);
      const end = Math.min(first + count, (block + 1) * PAGES_PER_BLOCK);
      this.#note(block, page % PAGES_PER_BLOCK, end - page);
      if (content === 'changed' || this.#named[block] === 0) this.#events.changed(page, end - page);
      else this.#events.unchanged(end - page);
      this.#named[block] = 1;
      page = end;
    }
  }
}

/** Reads a stretch of a file as a whole; what lies behind its end reads as zeros. */
export function readStretch(fd: number, into: Buffer, position: number): void {
  for (let at = 0; at < into.length; ) {
    const got = readSync(fd, into, at, into.length - at, position + at);
    if (got === 0) {
      into.fill(0, at);
      return;
    }
    at += got;
  }
}
