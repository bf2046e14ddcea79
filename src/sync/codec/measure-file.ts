/**
 * The hashes of what a file really holds, learnt by reading it on the worker threads; holes are not read.
 */
import { HASH_BYTES } from '../../encoder/hash';
import { BLOCK_SIZE_BYTES } from '../../model/image';
import { dataRuns } from '../../store/data-runs';
import { Manifest } from '../../store/manifest';
import { openImage } from '../../system/image-roots';
import type { CodecPool } from './codec-pool';
import { inLanes, type Piece, piecesOf } from './pieces';

const MEASURE_LANES = 2;
/** Of a hole that get their zero hash at once: some milliseconds. */
const HOLE_BLOCKS = 65_536;

/** The hashes of a file as it is. */
export async function measureFile(path: string, sizeBytes: number, pool: CodecPool): Promise<Manifest> {
  const handle = await openImage(path);
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
  const file = { fd, sizeBytes: held.sizeBytes };
  await inLanes(MEASURE_LANES * pool.threads, stretches(fd, held, skip), ({ hole, ...piece }) =>
    hole
      ? new Promise((resolve) => setImmediate(resolve))
      : pool.run({ kind: 'measure', file, ...piece, hashes: held.memory, skip }),
  );
}

interface Stretch extends Piece {
  readonly hole: boolean;
}

/** Runs of blocks that may hold data, each small enough for one job; blocks in holes get the zero hash right here. */
function* stretches(fd: number, held: Manifest, skip: SharedArrayBuffer | undefined): Generator<Stretch> {
  let known = 0;
  function* zerosUntil(end: number): Generator<Stretch> {
    if (skip) return;
    for (const { first, count } of piecesOf(end - known, HOLE_BLOCKS)) {
      held.hashes.fill(0, (known + first) * HASH_BYTES, (known + first + count) * HASH_BYTES);
      yield { first: known + first, count, hole: true };
    }
  }
  for (const { first, count } of dataRuns(fd, held.sizeBytes, BLOCK_SIZE_BYTES)) {
    yield* zerosUntil(first);
    known = first + count;
    for (const piece of piecesOf(count)) yield { ...piece, first: first + piece.first, hole: false };
  }
  yield* zerosUntil(held.blocks);
}
