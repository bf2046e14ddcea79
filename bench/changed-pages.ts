/**
 * What the pages weigh that differ between two RAM images: packed with zstd -3 in batches of 256 KiB, as DWCP packs them. The
 * yardstick for the bytes of a way back.
 */
import { closeSync, openSync, readSync, statSync } from 'node:fs';
import { compressBound, Packer } from '../src/encoder/packer';
import { PAGE_SIZE_BYTES } from '../src/model/image';
import { KIB, MIB } from '../src/model/units';

const PIECE_BYTES = MIB;
const BATCH_BYTES = 256 * KIB;
const LEVEL = 3;

export function changedPages(before: string, after: string): { pages: number; packedBytes: number } {
  const [old, now] = [openSync(before, 'r'), openSync(after, 'r')];
  const [oldPiece, newPiece] = [Buffer.alloc(PIECE_BYTES), Buffer.alloc(PIECE_BYTES)];
  const packer = new Packer();
  const batch = Buffer.alloc(BATCH_BYTES);
  const packed = Buffer.alloc(compressBound(BATCH_BYTES));
  let [pages, filled, packedBytes] = [0, 0, 0];
  const pack = (): void => {
    if (filled > 0) packedBytes += packer.packedSize(batch.subarray(0, filled), packed, LEVEL);
    filled = 0;
  };
  try {
    for (let at = 0; at < statSync(after).size; at += PIECE_BYTES) {
      for (const [fd, piece] of [
        [old, oldPiece],
        [now, newPiece],
      ] as const)
        piece.fill(0, readSync(fd, piece, 0, PIECE_BYTES, at));
      for (let page = 0; page < PIECE_BYTES; page += PAGE_SIZE_BYTES) {
        if (newPiece.compare(oldPiece, page, page + PAGE_SIZE_BYTES, page, page + PAGE_SIZE_BYTES) === 0) continue;
        pages += 1;
        newPiece.copy(batch, filled, page, page + PAGE_SIZE_BYTES);
        filled += PAGE_SIZE_BYTES;
        if (filled === BATCH_BYTES) pack();
      }
    }
    pack();
    return { pages, packedBytes };
  } finally {
    closeSync(old);
    closeSync(now);
  }
}
