/**
 * One picture for each link of `bench -- transport`: goodput of every mover over time, and below it how many streams our own
 * sender used.
 */

export interface Curve {
  readonly name: string;
  /** Seconds, bits a second. */
  readonly goodput: readonly (readonly [number, number])[];
  /** Seconds, streams; empty for peers. */
  readonly streams: readonly (readonly [number, number])[];
}

const COLOURS = [
  '#1a7f5a',
  '#57ab8b',
  '#7a5195',
  '#a05195',
  '#d45087',
  '#f95d6a',
  '#0969da',
  '#54aeff',
  '#9a6700',
  '#57606a',
  '#bf8700',
];
const PLOT = { left: 70, width: 620, top: 50, height: 220, gap: 50, below: 90 };
const LEGEND_X = PLOT.left + PLOT.width + 20;

export function drawTransport(title: string, rateBitsPerSecond: number, curves: readonly Curve[]): string {
  const lastSecond = Math.max(1, ...curves.flatMap(({ goodput }) => goodput.map(([second]) => second)));
  const mostStreams = Math.max(4, ...curves.flatMap(({ streams }) => streams.map(([, count]) => count)));
  const lowerTop = PLOT.top + PLOT.height + PLOT.gap;
  const x = (second: number): number => PLOT.left + (second / lastSecond) * PLOT.width;
  const line = (points: readonly (readonly [number, number])[], y: (value: number) => number, colour: string): string =>
    `<polyline fill="none" stroke="${colour}" stroke-width="1.6" points="` +
    `${points.map(([second, value]) => `${x(second).toFixed(1)},${y(value).toFixed(1)}`).join(' ')}"/>`;
  const rateY = (bits: number): number =>
    PLOT.top + PLOT.height - Math.min(1.1, bits / rateBitsPerSecond) * PLOT.height;
  const streamY = (count: number): number =>
    lowerTop + PLOT.below - (Math.log2(Math.max(1, count)) / Math.log2(mostStreams)) * PLOT.below;
  const colour = (index: number): string => COLOURS[index % COLOURS.length] ?? '#000000';
  const height = lowerTop + PLOT.below + 40;
  const legend = curves.map(
    ({ name }, index) =>
      `<rect x="${LEGEND_X}" y="${PLOT.top + index * 20}" width="12" height="12" fill="${colour(index)}"/><text x="` +
      `${LEGEND_X + 18}" y="${PLOT.top + 11 + index * 20}">${name}</text>`,
  );
  const grid = [0, 0.25, 0.5, 0.75, 1].map(
    (share) =>
      `<line x1="${PLOT.left}" x2="${PLOT.left + PLOT.width}" y1="${rateY(share * rateBitsPerSecond)}" y2="` +
      `${rateY(share * rateBitsPerSecond)}" stroke="#d0d7de"/><text x="${PLOT.left - 8}" y="` +
      `${rateY(share * rateBitsPerSecond) + 4}" text-anchor="end">${((share * rateBitsPerSecond) / 1e6).toFixed(0)}` +
      '</text>',
  );
  const ticks = Array.from(
    { length: Math.floor(lastSecond / 10) + 1 },
    (_, index) => `<text x="${x(index * 10)}" y="${height - 12}" text-anchor="middle">${index * 10} s</text>`,
  );
  const counts = [1, 4, 16, 64, 256]
    .filter((count) => count <= mostStreams)
    .map(
      (count) =>
        `<line x1="${PLOT.left}" x2="${PLOT.left + PLOT.width}" y1="${streamY(count)}" y2="${streamY(count)}" ` +
        `stroke="#eaeef2"/><text x="${PLOT.left - 8}" y="${streamY(count) + 4}" text-anchor="end">${count}</text>`,
    );
  return `<svg xmlns="http://www.w3.org/2000/svg" width="880" height="${height}" viewBox="0 0 880 ${height}"
font-family="sans-serif" font-size="12" fill="#24292f">
<rect width="880" height="${height}" fill="#ffffff"/><text x="20" y="24" font-size="16" font-weight="bold">${title}</text>
<text x="20" y="42" fill="#57606a">Mbit/s on the link, second by second</text>
<text x="20" y="${lowerTop - 12}" fill="#57606a">streams that pull</text>
${[...grid, ...counts, ...ticks, ...legend].join('\n')}
${curves.map(({ goodput }, index) => line(goodput, rateY, colour(index))).join('\n')}
${curves.map(({ streams }, index) => (streams.length > 0 ? line(streams, streamY, colour(index)) : '')).join('\n')}
</svg>
`;
}
