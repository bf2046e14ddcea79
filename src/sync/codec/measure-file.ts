/**
 * The hashes of what a file really holds, learnt by reading it on the worker threads; holes are not read.
 */
import { open } from 'node:fs/promises';
import { MAX_BATCH_BLOCKS } from '../../encoder/batch-format';
import { HASH_BYTES } from '../../encoder/hash';
import { BLOCK_SIZE_BYTES } from '../../model/image';
import { Manifest } from '../../store/manifest';
import { nextData, nextHole } from '../../store/system-calls';
import type { CodecPool } from './codec-pool';

const MEASURE_LANES = 2;
/** Of a hole that get their zero hash at once: some milliseconds. */
const HOLE_BLOCKS = 65_536;

/** The hashes of a file as it is. */
export async function measureFile(path: string, sizeBytes: number, pool: CodecPool): Promise<Manifest> {
  const handle = await open(path, 'r');
  try {
    const held = new Manifest(sizeBytes);
    await measure(handle.fd, held, pool);
    return held;
  } finally {
    await handle.close();
  }
}

/** Learns the hashes of all blocks not marked in `skip` from the file itself; holes are not read. */
export async function measure(fd: number, held: Manifest, pool: CodecPool, skip?: SharedArrayBuffer): Promise<void> {
  const stretches = dataStretches(fd, held, skip);
  const lane = async (): Promise<void> => {
    for (let next = stretches.next(); !next.done; next = stretches.next()) {
      if (next.value.hole) {
        await new Promise((resolve) => setImmediate(resolve));
        continue;
      }
      await pool.run({
        kind: 'measure',
        file: { fd, sizeBytes: held.sizeBytes },
        first: next.value.first,
        count: next.value.count,
        hashes: held.memory,
        skip,
      });
    }
  };
  await allEnded(Array.from({ length: MEASURE_LANES * pool.threads }, lane));
}

/** Waits for all of them, also where one fails: the file that they read is closed next, and its number given to another. @throws what failed first */
export async function allEnded(lanes: readonly Promise<void>[]): Promise<void> {
  await Promise.allSettled(lanes);
  await Promise.all(lanes);
}

/** Runs of blocks that may hold data, each small enough for one job; blocks in holes get the zero hash right here. */
function* dataStretches(
  fd: number,
  held: Manifest,
  skip: SharedArrayBuffer | undefined,
): Generator<{ first: number; count: number; hole: boolean }> {
  const marks = skip && new Uint8Array(skip);
  let block = 0;
  while (block < held.blocks) {
    const dataAt = Math.min(nextData(fd, block * BLOCK_SIZE_BYTES), held.sizeBytes);
    const first = Math.min(held.blocks, Math.floor(dataAt / BLOCK_SIZE_BYTES));
    while (!marks && first - block > HOLE_BLOCKS) {
      held.hashes.fill(0, block * HASH_BYTES, (block + HOLE_BLOCKS) * HASH_BYTES);
      yield { first: block, count: HOLE_BLOCKS, hole: true };
      block += HOLE_BLOCKS;
    }
    if (!marks) held.hashes.fill(0, block * HASH_BYTES, first * HASH_BYTES);
    block = first;
    if (block >= held.blocks) return;
    const holeAt = Math.min(nextHole(fd, dataAt), held.sizeBytes);
    const end = Math.min(held.blocks, Math.max(block + 1, Math.ceil(holeAt / BLOCK_SIZE_BYTES)));
    for (; block < end; block += MAX_BATCH_BLOCKS)
      yield { first: block, count: Math.min(MAX_BATCH_BLOCKS, end - block), hole: false };
    block = end;
  }
}
