/**
 * Samples of a file's pages: as one hash, whether two hosts have the same file, asked before anything is referred to it; and
 * pages that are not zeros, from all over it.
 */
import { type FileHandle, open } from 'node:fs/promises';
import { keyedHash } from '../../encoder/keyed-hash';
import { isZero } from '../../encoder/zero';
import { BLOCK_SIZE_BYTES, PAGE_SIZE_BYTES } from '../../model/image';
import { isHole } from '../../store/data-runs';

const SAMPLE_PAGES = 64;

/** A keyed hash over pages from all over a file: enough to tell a copy from something else, every block being checked anyway. */
export async function sampleOf(handle: FileHandle, sizeBytes: number, key: Buffer): Promise<string> {
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
  return keyedHash(key, ...pages).toString('hex');
}

/**
 * Looks at pages of a file, one after the other, and takes those that are not zeros.
 * @param places of the pages to look at, by number, given how many there are @param atMost pages taken
 * @returns none where the file cannot be opened
 */
export async function filledPages(
  path: string,
  places: (pages: number) => Iterable<number>,
  atMost: number,
): Promise<Buffer[]> {
  const found: Buffer[] = [];
  const handle = await open(path, 'r').catch(() => undefined);
  if (!handle) return found;
  try {
    const { size } = await handle.stat();
    for (const place of places(Math.floor(size / PAGE_SIZE_BYTES))) {
      if (found.length >= atMost) break;
      const at = place * PAGE_SIZE_BYTES;
      if (isHole(handle.fd, at, at + PAGE_SIZE_BYTES)) continue;
      const page = Buffer.alloc(PAGE_SIZE_BYTES);
      const { bytesRead } = await handle.read(page, 0, PAGE_SIZE_BYTES, at);
      if (bytesRead === PAGE_SIZE_BYTES && !isZero(page)) found.push(page);
    }
  } finally {
    await handle.close();
  }
  return found;
}
