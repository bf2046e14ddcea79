/**
 * The source's half of old-pages.ts: gathers changed pages and what they replace until a piece is full, packs it, and keeps
 * it only where it is worth its dependence on the old content; else its blocks are given back, to travel as pages.
 */
import { MAX_BATCH_BLOCKS, MAX_GATHERED_BYTES } from './batch-format';
import { gatherOldPages, MAX_PIECE_BYTES, PIECE_TABLE_BYTES, pieceBytesAt } from './old-pages';
import { compressBound, type Packer } from './packer';
import { gatherPages } from './page-patch';

export interface PieceSettings {
  readonly level: number;
  /** Largest share of its pages that a piece may take. */
  readonly deltaThreshold: number;
}

export interface Pending<Block> {
  readonly block: Block;
  readonly pageBitmap: number;
  readonly pagesBytes: number;
}

export class OldPagesPacker<Block extends { readonly bytes: Buffer }> {
  readonly #packer: Packer;
  readonly #raw = Buffer.allocUnsafeSlow(MAX_PIECE_BYTES);
  readonly #old = Buffer.allocUnsafeSlow(MAX_PIECE_BYTES);
  /** Pieces that are kept take no more than their pages; the last one may turn out larger and is then given up. */
  readonly #packed = Buffer.allocUnsafeSlow(MAX_GATHERED_BYTES + compressBound(MAX_PIECE_BYTES));
  readonly #table = Buffer.alloc(MAX_BATCH_BLOCKS * PIECE_TABLE_BYTES);
  #pending: Pending<Block>[] = [];
  #pendingRawBytes = 0;
  #pendingOldBytes = 0;
  #pieces = 0;
  #packedBytes = 0;
  #rawBytes = 0;
  #packMs = 0;

  constructor(packer: Packer) {
    this.#packer = packer;
  }

  /** Of the batch so far. */
  get pieces(): { readonly count: number; readonly rawBytes: number; readonly packMs: number } {
    return { count: this.#pieces, rawBytes: this.#rawBytes, packMs: this.#packMs };
  }

  begin(): void {
    [this.#pieces, this.#packedBytes, this.#rawBytes, this.#packMs] = [0, 0, 0, 0];
    this.#clear();
  }

  /** Takes the pages of a block. @returns whether the piece is full: it is to be closed */
  add(block: Block, before: Buffer, pageBitmap: number, { level }: PieceSettings): boolean {
    const end = gatherPages(block.bytes, pageBitmap, this.#raw, this.#pendingRawBytes);
    this.#pending.push({ block, pageBitmap, pagesBytes: end - this.#pendingRawBytes });
    this.#pendingRawBytes = end;
    this.#pendingOldBytes = gatherOldPages(before, pageBitmap, this.#old, this.#pendingOldBytes);
    return end >= pieceBytesAt(level);
  }

  /** Packs what is pending. @returns its blocks, and whether they travel as a piece now */
  close({ level, deltaThreshold }: PieceSettings): {
    readonly blocks: readonly Pending<Block>[];
    readonly kept: boolean;
  } {
    const blocks = this.#pending;
    if (blocks.length === 0) return { blocks, kept: false };
    const startedAt = performance.now();
    const bytes = this.#packer.packWith(
      this.#raw.subarray(0, this.#pendingRawBytes),
      this.#packed.subarray(this.#packedBytes),
      this.#old.subarray(0, this.#pendingOldBytes),
      level,
    );
    this.#packMs += performance.now() - startedAt;
    const kept = bytes <= deltaThreshold * this.#pendingRawBytes;
    if (kept) {
      this.#table.writeUInt16BE(blocks.length, this.#pieces * PIECE_TABLE_BYTES);
      this.#table.writeUInt32BE(bytes, this.#pieces * PIECE_TABLE_BYTES + 4);
      this.#pieces += 1;
      this.#packedBytes += bytes;
      this.#rawBytes += this.#pendingRawBytes;
    }
    this.#clear();
    return { blocks, kept };
  }

  /** Writes table and pieces to `out[at]`. @returns their length */
  writeTo(out: Buffer, at: number): number {
    const tableBytes = this.#table.copy(out, at, 0, this.#pieces * PIECE_TABLE_BYTES);
    return tableBytes + this.#packed.copy(out, at + tableBytes, 0, this.#packedBytes);
  }

  #clear(): void {
    this.#pending = [];
    this.#pendingRawBytes = 0;
    this.#pendingOldBytes = 0;
  }
}
