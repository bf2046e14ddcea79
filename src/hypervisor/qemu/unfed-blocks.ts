/**
 * Blocks of a RAM image that a QEMU has not been given yet, and how one is given: page by page, zeros by their name. Which QEMU, and
 * when, is incoming-guest.ts's.
 */
import type { RamLayout } from '../../model/guest';
import { BLOCK_SIZE_BYTES } from '../../model/image';
import { readStretch } from './guest-memory';
import type { IncomingMigration } from './incoming-migration';
import { PAGE_BYTES } from './migration-stream-format';

const ZERO_PAGE = Buffer.alloc(PAGE_BYTES);
const ZERO_BLOCK = Buffer.alloc(BLOCK_SIZE_BYTES);

export class UnfedBlocks {
  readonly #layout: RamLayout;
  readonly #marks: Uint8Array;
  readonly #buffer = Buffer.allocUnsafe(BLOCK_SIZE_BYTES);
  #fd = -1;
  #isZero: (block: number) => boolean = () => false;

  /** All of an image's, until something of it has been given. */
  constructor(layout: RamLayout) {
    this.#layout = layout;
    this.#marks = new Uint8Array(layout.sizeBytes / BLOCK_SIZE_BYTES).fill(1);
  }

  /** @param isZero whether a block of the file is known to be zeros: reading a hole costs memory and time */
  readFrom(fd: number, isZero: (block: number) => boolean): void {
    this.#fd = fd;
    this.#isZero = isZero;
  }

  /** These have changed. */
  mark(blocks: readonly number[]): void {
    for (const block of blocks) this.#marks[block] = 1;
  }

  markAll(): void {
    this.#marks.fill(1);
  }

  get some(): boolean {
    return this.#marks.includes(1);
  }

  /** Zeros aside. */
  get leftBytes(): number {
    let blocks = 0;
    for (let at = this.#marks.indexOf(1); at >= 0; at = this.#marks.indexOf(1, at + 1))
      if (!this.#isZero(at)) blocks += 1;
    return blocks * BLOCK_SIZE_BYTES;
  }

  /** Gives the next ones, neighbours. @returns false where there are none */
  feed(incoming: IncomingMigration, most: number): boolean {
    const first = this.#marks.indexOf(1);
    if (first < 0) return false;
    let count = 0;
    while (count < most && this.#marks[first + count] === 1) count += 1;
    // Marked as fed before it is read: what changes meanwhile is marked again.
    this.#marks.fill(0, first, first + count);
    for (let block = first; block < first + count; block += 1) {
      const zero = this.#isZero(block);
      if (!zero) readStretch(this.#fd, this.#buffer, block * BLOCK_SIZE_BYTES);
      this.#feedBlock(incoming, block, zero ? ZERO_BLOCK : this.#buffer);
    }
    return true;
  }

  /** A block lies within one RAM block: the layout sees to that. */
  #feedBlock(incoming: IncomingMigration, number: number, bytes: Buffer): void {
    const { block, offset } = this.#layout.at(number * BLOCK_SIZE_BYTES);
    const end = Math.min(bytes.length, block.usedBytes - offset);
    const empty = bytes === ZERO_BLOCK;
    for (let at = 0; at < end; at += PAGE_BYTES) {
      const page = bytes.subarray(at, at + PAGE_BYTES);
      if (empty || page.equals(ZERO_PAGE)) incoming.filledPage(block.id, offset + at, 0);
      else incoming.page(block.id, offset + at, page);
    }
  }
}
