/**
 * A sample of a file's pages, as one hash: whether two hosts have the same file, asked before anything is referred to it.
 */
import type { FileHandle } from 'node:fs/promises';
import { quickHash } from '../../encoder/hash';
import { BLOCK_SIZE_BYTES, PAGE_SIZE_BYTES } from '../../model/image';

const SAMPLE_PAGES = 64;

/** A hash over pages from all over a file: enough to tell a copy from something else, every block being checked anyway. */
export async function sampleOf(handle: FileHandle, sizeBytes: number): Promise<string> {
  const pages = Array.from({ length: SAMPLE_PAGES }, () => Buffer.alloc(PAGE_SIZE_BYTES));
  await Promise.all(
    pages.map((page, index) =>
      handle.read(
        page,
        0,
        page.length,
        Math.floor(((index + 0.5) / SAMPLE_PAGES) * (sizeBytes / BLOCK_SIZE_BYTES)) * BLOCK_SIZE_BYTES,
      ),
    ),
  );
  return quickHash(Buffer.concat(pages)).toString('hex');
}
