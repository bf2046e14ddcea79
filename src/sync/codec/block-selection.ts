/**
 * Which blocks of an image something is about: consecutive ones or any, in rising order, and both forms of the same.
 */

/** At most MAX_BATCH_BLOCKS for jobs that fill a batch. */
export type BlockSelection = { readonly first: number; readonly count: number } | { readonly list: readonly number[] };

export interface BlockRun {
  readonly first: number;
  readonly count: number;
  /** How many blocks of the selection come before it. */
  readonly at: number;
}

export function blocksOf(selection: BlockSelection): readonly number[] {
  return 'list' in selection
    ? selection.list
    : Array.from({ length: selection.count }, (_, index) => selection.first + index);
}

/** Those of a selection that are not among `others`; all of these are. */
export function blocksBut(selection: BlockSelection, others: readonly number[]): readonly number[] {
  if (others.length === countOf(selection)) return [];
  const left = new Set(others);
  return blocksOf(selection).filter((block) => !left.has(block));
}

export function countOf(selection: BlockSelection): number {
  return 'list' in selection ? selection.list.length : selection.count;
}

/** Neighbours together. */
export function runsOf(selection: BlockSelection): readonly BlockRun[] {
  if ('first' in selection) return [{ ...selection, at: 0 }];
  const runs: { first: number; count: number; at: number }[] = [];
  for (const [at, block] of selection.list.entries()) {
    const last = runs.at(-1);
    if (last && last.first + last.count === block) last.count += 1;
    else runs.push({ first: block, count: 1, at });
  }
  return runs;
}
