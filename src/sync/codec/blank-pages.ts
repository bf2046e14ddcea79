/**
 * Which pages of a RAM image file are holes: they are zero without being read, and need not be written to become so.
 */
import { PAGE_SIZE_BYTES } from '../../model/image';
import { dataRuns } from '../../store/data-runs';

export function blankPagesOf(fd: number, sizeBytes: number): Uint8Array {
  const blank = new Uint8Array(sizeBytes / PAGE_SIZE_BYTES).fill(1);
  for (const { first, count } of dataRuns(fd, sizeBytes, PAGE_SIZE_BYTES)) blank.fill(0, first, first + count);
  return blank;
}
