/** The picture of `bench -- encoding`: for each data a bar of megabytes sent for each encoder, on a logarithmic scale. */
import type { Row } from './report';

const [WIDTH, LABEL, BAR, GAP] = [960, 330, 13, 14];
const SCALE_FROM_BYTES = 1e4;

export function drawRatios(rows: readonly Row[]): string {
  const groups = new Map<string, Row[]>();
  let group: Row[] = [];
  for (const row of rows) {
    if (row.name.startsWith('dwcp ')) groups.set(row.name.slice('dwcp '.length), (group = []));
    group.push(row);
  }
  const most = Math.max(...rows.map(({ linkBytes = 0 }) => linkBytes));
  const x = (bytes: number): number =>
    Math.max(
      1,
      ((WIDTH - LABEL - 90) * Math.log(Math.max(SCALE_FROM_BYTES, bytes) / SCALE_FROM_BYTES)) /
        Math.log(most / SCALE_FROM_BYTES),
    );
  const parts: string[] = [];
  let y = 34;
  for (const own of groups.values()) {
    for (const { name, linkBytes = 0, ratio = 0 } of own) {
      const ours = name.startsWith('dwcp ');
      parts.push(
        `<text x="${LABEL - 8}" y="${y + 10}" text-anchor="end"${ours ? ' font-weight="bold"' : ''}>` +
          `${name.replaceAll('&', '&amp;').replaceAll('<', '&lt;')}</text>`,
      );
      parts.push(
        `<rect x="${LABEL}" y="${y}" width="${x(linkBytes).toFixed(1)}" height="${BAR - 3}" fill="` +
          `${ours ? '#c2410c' : '#94a3b8'}"/><text x="${(LABEL + x(linkBytes) + 5).toFixed(1)}" y="${y + 10}">` +
          `${(linkBytes / 1e6).toFixed(1)} MB, ${ratio.toFixed(1)}</text>`,
      );
      y += BAR;
    }
    y += GAP;
  }
  return (
    `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${y}" font-family="sans-serif" ` +
    'font-size="11"><rect width="100%" height="100%" fill="white"/><text x="10" y="18" font-size="13">Sent for ' +
    `each data, and image bytes for each byte sent; logarithmic</text>${parts.join('')}</svg>\n`
  );
}
