/**
 * Loops over all blocks of an image, cut so that whatever else waits for this thread has its turn in between: an image of 8 TiB has
 * 134 million blocks, and heartbeats, pings and a guest's switchover do not wait for them.
 */

/** Calls `work` for one stretch of `count` after another. Without more than one it waits for nothing. */
export async function inSlices(count: number, most: number, work: (first: number, end: number) => void): Promise<void> {
  for (let first = 0; first < count; first += most) {
    if (first > 0) await new Promise((resolve) => setImmediate(resolve));
    work(first, Math.min(count, first + most));
  }
}

/** 8 MiB: a few milliseconds, also of memory that was not touched before. */
const FILLED_AT_ONCE_BYTES = 8 * 1024 * 1024;

export function fillInSlices(bytes: Uint8Array, value: number): Promise<void> {
  return inSlices(bytes.length, FILLED_AT_ONCE_BYTES, (first, end) => bytes.fill(value, first, end));
}
