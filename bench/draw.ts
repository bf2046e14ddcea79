/**
 * `npm run bench -- draw`: the README's picture, from bench/results/wan.json: how long each way takes, as bars.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Row } from './report';

const ROOT = join(__dirname, '..', '..');
const NAMES: Readonly<Record<string, string>> = {
  standard: 'one TCP stream',
  rsync: 'rsync -z',
  'zstd -3': 'zstd -3, one TCP stream',
  'dwcp cold': 'DWCP, first time',
  'dwcp 10% changed': 'DWCP, a tenth changed',
  'dwcp unchanged': 'DWCP, unchanged',
};
const BAR = { left: 190, width: 430, height: 22, gap: 12, top: 58 };

export function benchDraw(): Promise<void> {
  const { rows, date } = JSON.parse(readFileSync(join(ROOT, 'bench', 'results', 'wan.json'), 'utf8')) as {
    rows: Row[];
    date: string;
  };
  const longest = Math.max(...rows.map((row) => row.seconds ?? 0));
  const bars = rows.map((row, index) => {
    const y = BAR.top + index * (BAR.height + BAR.gap);
    const width = Math.max(2, ((row.seconds ?? 0) / longest) * BAR.width);
    const colour = row.name.startsWith('dwcp') ? '#1a7f5a' : '#9aa5b1';
    return (
      `<text x="${BAR.left - 10}" y="${y + 16}" text-anchor="end">${NAMES[row.name] ?? row.name}</text><rect x="` +
      `${BAR.left}" y="${y}" width="${width.toFixed(1)}" height="${BAR.height}" rx="3" fill="${colour}"/><text x="` +
      `${(BAR.left + width + 8).toFixed(1)}" y="${y + 16}">${(row.seconds ?? 0).toFixed(1)} s, ` +
      `${((row.linkBytes ?? 0) / 1e6).toFixed(1)} MB</text>`
    );
  });
  const height = BAR.top + rows.length * (BAR.height + BAR.gap) + 8;
  const title = '1 GiB ext4 image, 100 Mbit/s, 50 ms, 0.01 % loss, CUBIC';
  writeFileSync(
    join(ROOT, 'docs', 'images', 'wan.svg'),
    `<svg xmlns="http://www.w3.org/2000/svg" width="780" height="${height}" viewBox="0 0 780 ${height}"
font-family="sans-serif" font-size="14" fill="#24292f">
<rect width="780" height="${height}" fill="#ffffff"/>
<text x="20" y="26" font-size="16" font-weight="bold">${title}</text>
<text x="20" y="44" font-size="12" fill="#57606a">time and bytes on the link; npm run bench -- wan, ${date.slice(0, 10)}</text>
${bars.join('\n')}
</svg>
`,
  );
  return Promise.resolve();
}
