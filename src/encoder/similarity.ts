/**
 * How much of a changed page is as it was, in cache lines: splits in-place changes, which run coding serves, from moved
 * content, which needs the old bytes as a dictionary.
 */
import { PAGE_SIZE_BYTES } from '../model/image';
import { pageCount } from './page-patch';

const LINE_BYTES = 64;

/** From this share of equal lines on, runs are as small as the dictionary makes it, and come at twice the speed. */
export const SIMILARITY_SPLIT = 0.7;

/** Share of 64-byte lines in the pages of `bitmap` that are equal in both blocks (of equal length); 1 for no pages. */
export function equalLines(before: Buffer, after: Buffer, bitmap: number): number {
  let equal = 0;
  let lines = 0;
  for (let page = 0; page < pageCount(after.length); page += 1) {
    if (!(bitmap & (1 << page))) continue;
    const end = Math.min(after.length, (page + 1) * PAGE_SIZE_BYTES);
    for (let at = page * PAGE_SIZE_BYTES; at < end; at += LINE_BYTES) {
      lines += 1;
      if (after.compare(before, at, Math.min(end, at + LINE_BYTES), at, Math.min(end, at + LINE_BYTES)) === 0)
        equal += 1;
    }
  }
  return lines === 0 ? 1 : equal / lines;
}
