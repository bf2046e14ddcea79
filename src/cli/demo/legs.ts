/**
 * What the moves of the demonstration's stopped VM came to, for people.
 */
import type { MigrationResult } from '../../model/migration';
import { formatBytes, formatDuration } from '../../model/units';
import { hitsText } from '../follow';
import { table } from '../output';

/** One move. */
export interface Leg {
  readonly name: string;
  readonly result: MigrationResult;
  readonly equal: boolean;
}

export function legsText(legs: readonly Leg[]): string {
  const rows = [['move', 'image', 'size', 'time', 'on the link', 'ratio', 'delta hits', 'streams', 'verified']];
  for (const { name, result, equal } of legs)
    for (const image of result.images)
      rows.push([
        name,
        image.imageId,
        formatBytes(image.totalBytes),
        formatDuration(image.seconds * 1000),
        formatBytes(image.linkBytes),
        image.ratio.toFixed(1),
        hitsText(image),
        String(image.streams),
        equal ? 'yes' : 'NO',
      ]);
  return table(rows);
}
