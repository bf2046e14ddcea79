/**
 * A file in pieces, each small enough for one job of the pool: where they lie, and how many are under way at a time. What is done
 * with a piece is the caller's.
 */
import { MAX_BATCH_BLOCKS } from '../../encoder/batch-format';

/** Consecutive units: of an image its blocks, where nothing else is said. */
export interface Piece {
  readonly first: number;
  readonly count: number;
}

/** @param atMost units in a piece */
export function* piecesOf(units: number, atMost = MAX_BATCH_BLOCKS): Generator<Piece> {
  for (let first = 0; first < units; first += atMost) yield { first, count: Math.min(atMost, units - first) };
}

/** The same of a list. */
export function* slicesOf<T>(list: readonly T[], atMost = MAX_BATCH_BLOCKS): Generator<readonly T[]> {
  for (const { first, count } of piecesOf(list.length, atMost)) yield list.slice(first, first + count);
}

/**
 * Does all pieces, `lanes` at a time. Waits for all that was begun, also where one fails: the file that they read is closed
 * next, and its number given to another.
 * @throws what failed first
 */
export async function inLanes<T>(
  lanes: number,
  pieces: Iterable<T>,
  doPiece: (piece: T) => Promise<unknown>,
): Promise<void> {
  const left = pieces[Symbol.iterator]();
  const lane = async (): Promise<void> => {
    for (let next = left.next(); next.done !== true; next = left.next()) await doPiece(next.value);
  };
  const begun = Array.from({ length: lanes }, lane);
  await Promise.allSettled(begun);
  await Promise.all(begun);
}
