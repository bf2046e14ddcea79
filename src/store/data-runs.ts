/**
 * The walk through a file's data and holes: runs of whole units (blocks, pages) that may hold data, and what lies between
 * them. A unit that lies in a hole as a whole reads as zeros; where the file system knows nothing all is data.
 */
import { nextData, nextHole } from './system-calls';

export interface UnitRun {
  readonly first: number;
  readonly count: number;
}

/** Units that may hold data, in rising order; asked of the file as it is gone on. */
export function* dataRuns(fd: number, sizeBytes: number, unitBytes: number): Generator<UnitRun> {
  const units = Math.ceil(sizeBytes / unitBytes);
  for (let unit = 0; unit < units; ) {
    const dataAt = nextData(fd, unit * unitBytes);
    if (dataAt >= sizeBytes) return;
    const first = Math.floor(dataAt / unitBytes);
    const end = Math.min(units, Math.max(first + 1, Math.ceil(nextHole(fd, dataAt) / unitBytes)));
    yield { first, count: end - first };
    unit = end;
  }
}

/** Units that are holes as a whole, in rising order. */
export function* holeRuns(fd: number, sizeBytes: number, unitBytes: number): Generator<UnitRun> {
  let next = 0;
  for (const { first, count } of dataRuns(fd, sizeBytes, unitBytes)) {
    if (first > next) yield { first: next, count: first - next };
    next = first + count;
  }
  const units = Math.ceil(sizeBytes / unitBytes);
  if (units > next) yield { first: next, count: units - next };
}

/** Whether nothing but a hole lies there. */
export function isHole(fd: number, from: number, to: number): boolean {
  return nextData(fd, from) >= to;
}
