/**
 * How much of a file is data: the room that a copy of it takes, holes aside. Blocks that are set aside and not written count as holes
 * where the file system says so.
 */
import { fstatSync } from 'node:fs';
import { BLOCK_SIZE_BYTES } from '../model/image';
import { openImage } from '../system/image-roots';
import { dataRuns } from './data-runs';

/** A file in more pieces, or one whose file system takes long to name them, is taken by what it has been given. */
const MAX_RUNS = 20_000;
const PATIENCE_MS = 200;
const STAT_BLOCK_BYTES = 512;

/** @returns undefined where it cannot be opened, and of a device, which takes all of itself */
export async function heldBytesOf(path: string): Promise<number | undefined> {
  const handle = await openImage(path).catch(() => undefined);
  if (!handle) return undefined;
  try {
    const file = fstatSync(handle.fd);
    if (!file.isFile()) return undefined;
    const { size, blocks } = file;
    const given = Math.min(size, blocks * STAT_BLOCK_BYTES);
    const until = performance.now() + PATIENCE_MS;
    let [held, runs] = [0, 0];
    for (const { count } of dataRuns(handle.fd, size, BLOCK_SIZE_BYTES)) {
      held += count * BLOCK_SIZE_BYTES;
      runs += 1;
      if (runs > MAX_RUNS || performance.now() > until) return given;
    }
    return Math.min(held, size);
  } finally {
    await handle.close();
  }
}
