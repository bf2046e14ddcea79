/**
 * Page hashes of the block versions that the destination holds, so that a block which changes again and again costs only its
 * changed pages: 128 bytes a block, in shared memory. Worker threads write the hashes of what they send beside; they
 * count only once the destination has confirmed the version.
 */
import { PAGE_HASH_BYTES } from '../../encoder/hash';
import { writePageHashes } from '../../encoder/page-patch';
import { PAGES_PER_BLOCK } from '../../model/image';

const PAGE_ENTRY_BYTES = PAGES_PER_BLOCK * PAGE_HASH_BYTES;

export interface SharedPageTable {
  readonly held: SharedArrayBuffer;
  readonly sent: SharedArrayBuffer;
  /** One byte a block: 1 where `held` is the version that the destination holds. */
  readonly known: SharedArrayBuffer;
}

export class PageTable {
  readonly shared: SharedPageTable;
  readonly #held: Uint8Array;
  readonly #sent: Uint8Array;
  readonly #known: Uint8Array;

  constructor(blocks: number) {
    this.shared = {
      held: new SharedArrayBuffer(blocks * PAGE_ENTRY_BYTES),
      sent: new SharedArrayBuffer(blocks * PAGE_ENTRY_BYTES),
      known: new SharedArrayBuffer(blocks),
    };
    this.#held = new Uint8Array(this.shared.held);
    this.#sent = new Uint8Array(this.shared.sent);
    this.#known = new Uint8Array(this.shared.known);
  }

  /** The version sent last is held now. */
  confirm(block: number): void {
    const [start, end] = [block * PAGE_ENTRY_BYTES, (block + 1) * PAGE_ENTRY_BYTES];
    this.#held.set(this.#sent.subarray(start, end), start);
    this.#known[block] = 1;
  }

  /** The version held has these bytes. */
  note(block: number, bytes: Buffer): void {
    writePageHashes(bytes, Buffer.from(this.shared.held), block * PAGE_ENTRY_BYTES);
    this.#known[block] = 1;
  }

  /** Takes over what another table knows of a held version. */
  take(block: number, other: PageTable): void {
    const [start, end] = [block * PAGE_ENTRY_BYTES, (block + 1) * PAGE_ENTRY_BYTES];
    this.#held.set(other.#held.subarray(start, end), start);
    this.#known[block] = other.#known[block] ?? 0;
  }

  /** What was held before is in doubt: another session has begun. */
  forget(): void {
    this.#known.fill(0);
  }
}
