/**
 * The hashes of what a file really holds, learnt by reading it on the worker threads; holes are not read.
 */
import { open } from 'node:fs/promises';
import { MAX_BATCH_BLOCKS } from '../../encoder/batch-format';
import { HASH_BYTES } from '../../encoder/hash';
import { BLOCK_SIZE_BYTES } from '../../model/image';
import { dataRuns } from '../../store/data-runs';
import { Manifest } from '../../store/manifest';
import type { CodecPool } from './codec-pool';

const MEASURE_LANES = 2;

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
      await pool.run({
        kind: 'measure',
        file: { fd, sizeBytes: held.sizeBytes },
        ...next.value,
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
): Generator<{ first: number; count: number }> {
  let known = 0;
  const zerosUntil = (block: number): void => {
    if (!skip) held.hashes.fill(0, known * HASH_BYTES, block * HASH_BYTES);
  };
  for (const { first, count } of dataRuns(fd, held.sizeBytes, BLOCK_SIZE_BYTES)) {
    zerosUntil(first);
    known = first + count;
    for (let block = first; block < known; block += MAX_BATCH_BLOCKS)
      yield { first: block, count: Math.min(MAX_BATCH_BLOCKS, known - block) };
  }
  zerosUntil(held.blocks);
}
