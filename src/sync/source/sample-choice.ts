/**
 * Which blocks of an image a sample looks at: stretches of neighbours from all over what may hold something, in groups of a batch's
 * size. Any beginning of the list of groups is from all over too, so that a look that has to end early says the same, less exactly.
 */
import { blockCount } from '../../model/image';
import type { Piece } from '../codec/pieces';

const STRETCH_BLOCKS = 2;
const GROUP_BLOCKS = 32;

/** @param data blocks that may hold something, rising @param atMost blocks */
export function sampleGroups(data: readonly Piece[], atMost: number): readonly (readonly number[])[] {
  const blocks = data.reduce((sum, { count }) => sum + count, 0);
  const wanted = Math.min(Math.ceil(blocks / STRETCH_BLOCKS), Math.ceil(atMost / STRETCH_BLOCKS));
  const groups = Math.ceil((wanted * STRETCH_BLOCKS) / GROUP_BLOCKS);
  const chosen: number[][] = Array.from({ length: groups }, () => []);
  let [run, passed] = [0, 0];
  for (let stretch = 0; stretch < wanted; stretch += 1) {
    // Of the data one behind the other, as if there were no holes between them.
    const at = STRETCH_BLOCKS * Math.floor((stretch * Math.ceil(blocks / STRETCH_BLOCKS)) / wanted);
    for (let taken = 0; taken < STRETCH_BLOCKS && at + taken < blocks; taken += 1) {
      while (at + taken - passed >= (data[run]?.count ?? Infinity)) {
        passed += data[run]?.count ?? 0;
        run += 1;
      }
      chosen[stretch % groups]?.push((data[run]?.first ?? 0) + at + taken - passed);
    }
  }
  return chosen;
}

/** What lies between an image's holes. */
export function dataBetween(holes: readonly Piece[], sizeBytes: number): readonly Piece[] {
  const data: Piece[] = [];
  let next = 0;
  for (const { first, count } of [...holes, { first: blockCount(sizeBytes), count: 0 }]) {
    if (first > next) data.push({ first: next, count: first - next });
    next = Math.max(next, first + count);
  }
  return data;
}
