/**
 * The other way for a RAM image, for bench/ram-image.ts alone: a thread that compares a run of pages with what the file
 * holds and writes those that differ, as GuestMemory does on the main thread.
 */
import { readSync, writeSync } from 'node:fs';
import { parentPort } from 'node:worker_threads';
import { PAGE_SIZE_BYTES } from '../src/model/image';

/** A run of pages in shared memory, and where in the file it belongs. */
export interface RunJob {
  readonly fd: number;
  readonly memory: SharedArrayBuffer;
  readonly offset: number;
  readonly length: number;
  readonly position: number;
  /** The file holds nothing there. */
  readonly blank: boolean;
}

const RUN_BYTES = 256 * 1024;
const before = Buffer.allocUnsafeSlow(RUN_BYTES);

/** @returns numbers of the pages that were written */
function keep({ fd, memory, offset, length, position, blank }: RunJob): number[] {
  const run = Buffer.from(memory, offset, length);
  if (!blank) readSync(fd, before, 0, length, position);
  const differs = (at: number): boolean =>
    blank || run.compare(before, at, at + PAGE_SIZE_BYTES, at, at + PAGE_SIZE_BYTES) !== 0;
  const written: number[] = [];
  for (let at = 0; at < length; ) {
    const start = at;
    while (at < length && differs(at)) {
      written.push((position + at) / PAGE_SIZE_BYTES);
      at += PAGE_SIZE_BYTES;
    }
    if (at > start) writeSync(fd, run, start, at - start, position + start);
    else at += PAGE_SIZE_BYTES;
  }
  return written;
}

parentPort?.on('message', (job: RunJob) => parentPort?.postMessage(keep(job)));
