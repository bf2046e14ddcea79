/**
 * The RAM image kept on this host from the guest's last move: which of its blocks are really what its manifest says (measured,
 * not remembered: an attempt that was broken off may have written over it). Without one everything is zeros, and what lies
 * in holes of the file is known to be.
 */
import { open } from 'node:fs/promises';
import { MEMORY_IMAGE_ID } from '../model/guest';
import { PAGES_PER_BLOCK } from '../model/image';
import type { BaselineStore } from '../store/baselines';
import { Manifest } from '../store/manifest';
import type { CodecPool } from './codec-pool';
import { PageTable } from './page-table';
import { blankPagesOf } from './ram-image-pages';

const JOB_BLOCKS = 64;
const LANES = 4;

export interface KeptMemory {
  readonly manifest: Manifest;
  /** Page hashes of blocks that have changed since, as they were: what deltas build on. */
  readonly pages: PageTable;
  /** One byte a block: 1 where the file holds what the manifest says. */
  readonly trusted: Uint8Array;
}

/** Reads all of it. Changes nothing; a file that is not there holds zeros. */
export async function recallMemory(vmId: string, path: string, sizeBytes: number, store: BaselineStore, pool: CodecPool): Promise<KeptMemory> {
  const baseline = await store.open(vmId, MEMORY_IMAGE_ID);
  const manifest = baseline?.record.sizeBytes === sizeBytes ? baseline.manifest : new Manifest(sizeBytes);
  const pages = new PageTable(manifest.blocks);
  const trusted = new SharedArrayBuffer(manifest.blocks);
  const kept = { manifest, pages, trusted: new Uint8Array(trusted) };
  const handle = await open(path, 'r').catch(() => undefined);
  try {
    if (handle && (await handle.stat()).size !== sizeBytes) return kept;
    const blank = handle && blankPagesOf(handle.fd, sizeBytes);
    const filled: number[] = [];
    for (let block = 0; block < manifest.blocks; block += 1) {
      if (!manifest.isZero(block)) filled.push(block);
      else if (!blank || blank.subarray(block * PAGES_PER_BLOCK, (block + 1) * PAGES_PER_BLOCK).every((page) => page === 1)) kept.trusted[block] = 1;
    }
    if (!handle) return kept;
    let next = 0;
    const lane = async (): Promise<void> => {
      while (next < filled.length) {
        const list = filled.slice(next, (next += JOB_BLOCKS));
        await pool.run({ kind: 'recall', file: { fd: handle.fd, sizeBytes }, list, hashes: manifest.memory, trusted });
      }
    };
    await Promise.all(Array.from({ length: LANES }, lane));
    return kept;
  } finally {
    await handle?.close();
  }
}
