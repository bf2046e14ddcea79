/**
 * What a RAM image file from before says of pages: which are holes and need not be written to be zero, and the hashes of the
 * others, which deltas build on.
 */
import { open } from 'node:fs/promises';
import { PAGE_SIZE_BYTES } from '../model/image';
import type { Manifest } from '../store/manifest';
import { nextData, nextHole } from '../store/system-calls';
import type { CodecPool } from './codec-pool';
import { PAGE_ENTRY_BYTES, type PageTable } from './page-table';

export function blankPagesOf(fd: number, sizeBytes: number): Uint8Array {
  const blank = new Uint8Array(sizeBytes / PAGE_SIZE_BYTES).fill(1);
  for (let at = Math.min(nextData(fd, 0), sizeBytes); at < sizeBytes; at = Math.min(nextData(fd, at), sizeBytes)) {
    const hole = Math.min(nextHole(fd, at), sizeBytes);
    blank.fill(0, Math.floor(at / PAGE_SIZE_BYTES), Math.ceil(hole / PAGE_SIZE_BYTES));
    at = hole;
    if (at >= sizeBytes) break;
  }
  return blank;
}

const JOB_BLOCKS = 64;
const LANES = 4;

/** The page hashes of every block of a RAM image file that is not zero, for deltas against it. */
export async function pageHashesOfFile(path: string, manifest: Manifest, pool: CodecPool, pages: PageTable): Promise<void> {
  const handle = await open(path, 'r');
  try {
    const blocks = Array.from({ length: manifest.blocks }, (_, block) => block).filter((block) => !manifest.isZero(block));
    let next = 0;
    const lane = async (): Promise<void> => {
      while (next < blocks.length) {
        const list = blocks.slice(next, (next += JOB_BLOCKS));
        const hashes = await pool.run({ kind: 'pageHashes', file: { fd: handle.fd, sizeBytes: manifest.sizeBytes }, list });
        for (const [index, block] of list.entries()) pages.set(block, hashes.subarray(index * PAGE_ENTRY_BYTES, (index + 1) * PAGE_ENTRY_BYTES));
      }
    };
    await Promise.all(Array.from({ length: LANES }, lane));
  } finally {
    await handle.close();
  }
}
