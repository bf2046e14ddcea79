/**
 * The RAM image kept on this host from the guest's last move: which of its blocks are really what its manifest says (measured,
 * not remembered: an attempt that was broken off may have written over it). Without one everything is zeros, and what lies
 * in holes of the file is known to be.
 */
import { type FileHandle, open } from 'node:fs/promises';
import { MEMORY_IMAGE_ID } from '../../model/guest';
import { PAGES_PER_BLOCK } from '../../model/image';
import type { BaselineStore } from '../../store/baselines';
import { Manifest } from '../../store/manifest';
import { blankPagesOf } from '../codec/blank-pages';
import type { CodecPool } from '../codec/codec-pool';
import { PageTable } from '../codec/page-table';
import { inLanes, slicesOf } from '../codec/pieces';

const JOB_BLOCKS = 64;
const LANES = 4;

export interface KeptMemory {
  readonly manifest: Manifest;
  /** Page hashes of blocks that have changed since, as they were: what deltas build on. */
  readonly pages: PageTable;
  /** One byte a block: 1 where the file may hold what the manifest says. */
  readonly believed: Uint8Array;
  /** One byte a block: 1 where it has been seen to. Complete once `measured` resolves. */
  readonly trusted: Uint8Array;
  readonly measured: Promise<void>;
}

/** Looks at all of it, in the background. Changes nothing; a file that is not there holds zeros. */
export async function recallMemory(
  vmId: string,
  path: string,
  sizeBytes: number,
  store: BaselineStore,
  pool: CodecPool,
): Promise<KeptMemory> {
  const baseline = await store.open(vmId, MEMORY_IMAGE_ID);
  const manifest = baseline?.record.sizeBytes === sizeBytes ? baseline.manifest : new Manifest(sizeBytes);
  const handle = await open(path, 'r').catch(() => undefined);
  try {
    return await recall(handle, sizeBytes, manifest, pool);
  } catch (error) {
    await handle?.close();
    throw error;
  }
}

async function recall(
  handle: FileHandle | undefined,
  sizeBytes: number,
  manifest: Manifest,
  pool: CodecPool,
): Promise<KeptMemory> {
  const usable = handle && (await handle.stat()).size === sizeBytes ? handle : undefined;
  const blank = usable && blankPagesOf(usable.fd, sizeBytes);
  const shared = new SharedArrayBuffer(manifest.blocks);
  const trusted = new Uint8Array(shared);
  const filled: number[] = [];
  for (let block = 0; block < manifest.blocks; block += 1) {
    if (!manifest.isZero(block)) filled.push(block);
    else if (
      !handle ||
      blank?.subarray(block * PAGES_PER_BLOCK, (block + 1) * PAGES_PER_BLOCK).every((page) => page === 1)
    )
      trusted[block] = 1;
  }
  const believed = Uint8Array.from(trusted);
  if (usable) for (const block of filled) believed[block] = 1;
  const measured = (usable ? measure(usable, filled, manifest, shared, pool) : Promise.resolve())
    // oxlint-disable-next-line typescript/no-misused-promises -- finally waits for it
    .finally(() => handle?.close())
    .catch(() => undefined);
  return { manifest, pages: new PageTable(manifest.blocks), believed, trusted, measured };
}

async function measure(
  handle: FileHandle,
  blocks: readonly number[],
  manifest: Manifest,
  trusted: SharedArrayBuffer,
  pool: CodecPool,
): Promise<void> {
  const file = { fd: handle.fd, sizeBytes: manifest.sizeBytes };
  await inLanes(LANES, slicesOf(blocks, JOB_BLOCKS), (list) =>
    pool.run({ kind: 'recall', file, list, hashes: manifest.memory, trusted }),
  );
}
