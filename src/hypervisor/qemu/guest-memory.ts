/**
 * A running guest's memory as an image file: what QEMU's migration stream brings is written to its place, and the blocks
 * that changed are named. Who sends them, and when reading pauses, is the sync's business.
 */
import { constants, closeSync, ftruncateSync, mkdirSync, openSync, readSync, writeSync } from 'node:fs';
import { dirname } from 'node:path';
import type { RamBlock, RamLayout } from '../../model/guest';
import type { MigrationStreamHandler } from './migration-stream-reader';
import { notUnderstood, PAGE_BYTES } from './migration-stream-format';

const RUN_BYTES = 256 * 1024;
const ZERO_PAGE = Buffer.alloc(PAGE_BYTES);

export interface GuestMemoryEvents {
  /** The set-up has come; it goes to the destination's QEMU before any page. */
  setUp(prefix: Buffer, sectionId: number): void;
  /** These pages of the image file have changed; more of the last block may at once. */
  changed(firstPage: number, count: number): void;
  /** An iteration of QEMU has ended: nothing is half written. */
  sectionEnded(): void;
  /** Every page there will be has come. */
  pagesEnded(): void;
}

export class GuestMemory implements MigrationStreamHandler {
  readonly fd: number;
  readonly layout: RamLayout;
  readonly commands: Buffer[] = [];
  readonly devicePieces: Buffer[] = [];
  readonly #events: GuestMemoryEvents;
  readonly #run = Buffer.allocUnsafeSlow(RUN_BYTES);
  /** Pages known to be zero in the file; they need no writing to become so. */
  readonly #blank: Uint8Array;
  #runStart = 0;
  #runBytes = 0;
  #blockId = '';
  #blockStart = 0;

  /** @param blankPages pages of the file that are holes; it is taken over */
  constructor(path: string, layout: RamLayout, blankPages: (fd: number) => Uint8Array, events: GuestMemoryEvents) {
    mkdirSync(dirname(path), { recursive: true });
    this.fd = openSync(path, constants.O_RDWR | constants.O_CREAT, 0o600);
    ftruncateSync(this.fd, layout.sizeBytes);
    this.layout = layout;
    this.#blank = blankPages(this.fd);
    this.#events = events;
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
    this.#blank[at / PAGE_BYTES] = 0;
  }

  filledPage(block: string, offset: number, fill: number): void {
    const at = this.#place(block) + offset;
    if (fill === 0 && this.#blank[at / PAGE_BYTES] === 1) {
      this.#flush();
      this.#events.changed(at / PAGE_BYTES, 1);
      return;
    }
    this.page(block, offset, fill === 0 ? ZERO_PAGE : Buffer.alloc(PAGE_BYTES, fill));
    if (fill === 0) this.#blank[at / PAGE_BYTES] = 1;
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
    for (let at = 0; at < this.#runBytes; ) at += writeSync(this.fd, this.#run, at, this.#runBytes - at, this.#runStart + at);
    const [first, count] = [this.#runStart / PAGE_BYTES, this.#runBytes / PAGE_BYTES];
    this.#runStart += this.#runBytes;
    this.#runBytes = 0;
    this.#events.changed(first, count);
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
