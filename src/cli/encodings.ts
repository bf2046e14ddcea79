/** `dwcp status --encodings`: where the bytes of a migration went and what its encoder did with its time. */
import type { ImageResult, MigrationResult } from '../model/migration';
import { formatBytes } from '../model/units';
import { table } from './output';

const TITLES = {
  full: 'in full',
  pages: 'changed pages',
  runDelta: 'deltas in place',
  oldPages: 'deltas of moved content',
  references: 'held elsewhere there',
} as const;

export function encodingsText({ images }: MigrationResult): string {
  return images
    .map((image) =>
      [
        `${image.imageId}: ${formatBytes(image.linkBytes)} on the link for ${formatBytes(image.totalBytes)}`,
        rowsOf(image),
        timesOf(image),
      ].join('\n'),
    )
    .join('\n');
}

function rowsOf({ blocks, encoder: { bytes }, linkBytes }: ImageResult): string {
  const sent = Object.keys(TITLES) as (keyof typeof TITLES)[];
  const rows = sent
    .filter((name) => blocks[name] > 0)
    .map((name) => [TITLES[name], String(blocks[name]), formatBytes(bytes[name]), percent(bytes[name], linkBytes)]);
  const others = linkBytes - bytes.heads - sent.reduce((sum, name) => sum + bytes[name], 0);
  return table([
    ['blocks', 'count', 'on the link', 'share'],
    ['zeros', String(blocks.zero), '-', ''],
    ['unchanged', String(blocks.unchanged), '-', ''],
    ...rows,
    ['heads', '', formatBytes(bytes.heads), percent(bytes.heads, linkBytes)],
    [
      'frames, manifests, sent again',
      String(blocks.resent + blocks.refused),
      formatBytes(Math.max(0, others)),
      percent(others, linkBytes),
    ],
  ]);
}

function timesOf({ encoder: { times, packings } }: ImageResult): string {
  const { readMs, chooseMs, deltaMs, packMs } = times;
  const seconds = (ms: number): string => `${(ms / 1000).toFixed(1)} s`;
  const { stored, zstd, dictionary, numbers, hex, brotli } = packings;
  return (
    `packed by zstd ${formatBytes(zstd)}, by Brotli ${formatBytes(brotli)}, with a dictionary ` +
    `${formatBytes(dictionary)}, as numbers ${formatBytes(numbers)}, as hexadecimal text ${formatBytes(hex)}, not ` +
    `at all ${formatBytes(stored)}\nencoder, all threads: reading and hashing ${seconds(readMs)}, choosing ` +
    `${seconds(chooseMs)}, packing with old pages ${seconds(deltaMs)}, packing ${seconds(packMs)}`
  );
}

function percent(part: number, whole: number): string {
  return whole > 0 ? `${((100 * Math.max(0, part)) / whole).toFixed(1)} %` : '';
}
