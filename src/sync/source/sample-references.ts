/**
 * The pages that a sample of memory may find elsewhere at the destination: those of the guest's disks and of files that both hosts have,
 * as in a move, but of no more than can be looked through in passing. Of larger ones a part from all over is indexed, and how much of
 * them that is says what a whole index would have found.
 */
import type { FileHandle } from 'node:fs/promises';
import { BLOCK_SIZE_BYTES, PAGES_PER_BLOCK } from '../../model/image';
import { GIB } from '../../model/units';
import { dataRuns } from '../../store/data-runs';
import { openImage } from '../../system/image-roots';
import type { CodecPool } from '../codec/codec-pool';
import { inLanes, type Piece, piecesOf } from '../codec/pieces';
import { type SharedReferences, shareReferences } from '../codec/reference-index';

const INDEX_AT_MOST_BYTES = 2 * GIB;
const INDEX_BLOCKS = 64;

export interface SampleReferences {
  readonly shared: SharedReferences;
  /** Of the data of all files. */
  readonly coverage: number;
}

/** Files that cannot be read are left out. @returns undefined where there is nothing to find anything in */
export async function indexSome(paths: readonly string[], pool: CodecPool): Promise<SampleReferences | undefined> {
  const handles: FileHandle[] = [];
  try {
    const pieces: (Piece & { readonly fd: number; readonly sizeBytes: number })[] = [];
    for (const path of paths) {
      const handle = await openImage(path).catch(() => undefined);
      if (!handle) continue;
      handles.push(handle);
      const { size: sizeBytes } = await handle.stat();
      for (const run of dataRuns(handle.fd, sizeBytes, BLOCK_SIZE_BYTES))
        for (const { first, count } of piecesOf(run.count, INDEX_BLOCKS))
          pieces.push({ first: run.first + first, count, fd: handle.fd, sizeBytes });
    }
    if (pieces.length === 0) return undefined;
    const atMost = Math.max(1, Math.floor(INDEX_AT_MOST_BYTES / (INDEX_BLOCKS * BLOCK_SIZE_BYTES)));
    const every = Math.max(1, pieces.length / atMost);
    const chosen = pieces.filter((_, index) => Math.floor(index / every) !== Math.floor((index - 1) / every));
    const shared = shareReferences(chosen.length * INDEX_BLOCKS * PAGES_PER_BLOCK);
    await inLanes(pool.threads, chosen.entries(), ([number, { first, count, fd, sizeBytes }]) => {
      // Addresses of its own: in a sample nothing is referred to by them, it is only found.
      const from = (number * INDEX_BLOCKS - first) * PAGES_PER_BLOCK;
      return pool.run({ kind: 'index', file: { fd, sizeBytes }, first, count, shared, from });
    });
    return { shared, coverage: chosen.length / pieces.length };
  } finally {
    await Promise.all(handles.map((handle) => handle.close()));
  }
}

/** What crosses of a sample that had only a part to refer to: what would have been found does not. */
export function withWholeIndex(linkBytes: number, referredShare: number, coverage: number): number {
  const whole = Math.min(1, referredShare / coverage);
  return referredShare >= 1 ? linkBytes : linkBytes * ((1 - whole) / (1 - referredShare));
}
