/**
 * Ridge regression by its normal equations: (X'X + k I) w = X'y, the constant in the first column not shrunk. A handful of
 * columns, so plain elimination does.
 */

/** @param xs rows of features, 1 first @returns a weight for each column */
export function solveRidge(xs: readonly (readonly number[])[], ys: readonly number[], k: number): number[] {
  const columns = xs[0]?.length ?? 0;
  const system = Array.from({ length: columns }, (_, i) => [
    ...Array.from(
      { length: columns },
      (__, j) => xs.reduce((sum, x) => sum + (x[i] ?? 0) * (x[j] ?? 0), 0) + (i === j && i > 0 ? k : 0),
    ),
    xs.reduce((sum, x, row) => sum + (x[i] ?? 0) * (ys[row] ?? 0), 0),
  ]);
  for (let pivot = 0; pivot < columns; pivot += 1) eliminate(system, pivot);
  return system.map((row, index) => (row[columns] ?? 0) / (row[index] || 1));
}

function eliminate(system: number[][], pivot: number): void {
  const largest = system.reduce(
    (best, row, index) =>
      index >= pivot && Math.abs(row[pivot] ?? 0) > Math.abs(system[best]?.[pivot] ?? 0) ? index : best,
    pivot,
  );
  [system[pivot], system[largest]] = [system[largest] ?? [], system[pivot] ?? []];
  const from = system[pivot] ?? [];
  const lead = from[pivot] ?? 0;
  if (lead === 0) return;
  for (const [index, row] of system.entries()) {
    if (index === pivot) continue;
    const factor = (row[pivot] ?? 0) / lead;
    for (let column = pivot; column < row.length; column += 1)
      row[column] = (row[column] ?? 0) - factor * (from[column] ?? 0);
  }
}
