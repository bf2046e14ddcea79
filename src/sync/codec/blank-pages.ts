/**
 * Which pages of a RAM image file are holes: they are zero without being read, and need not be written to become so.
 */
import { PAGE_SIZE_BYTES } from '../../model/image';
import { nextData, nextHole } from '../../store/system-calls';

export function blankPagesOf(fd: number, sizeBytes: number): Uint8Array {
  const blank = new Uint8Array(sizeBytes / PAGE_SIZE_BYTES).fill(1);
  for (let at = Math.min(nextData(fd, 0), sizeBytes); at < sizeBytes; at = Math.min(nextData(fd, at), sizeBytes)) {
    const hole = Math.min(nextHole(fd, at), sizeBytes);
    blank.fill(0, Math.floor(at / PAGE_SIZE_BYTES), Math.ceil(hole / PAGE_SIZE_BYTES));
    at = hole;
    if (at >= sizeBytes) break;
  }
  return blank;
}
