/**
 * `npm run bench -- transport`: the transport on every link of transport-scenarios.ts, beside iperf3 with one and many
 * streams, one Node stream, rsync, rclone over many connections, and fixed numbers of our own streams. What crosses the
 * link is counted on it. `--only TEXT`: links whose name contains it; `--no-peers`: our own alone; `--no-fixed`.
 */
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Children } from '../src/cli/demo/children';
import { GIB } from '../src/model/units';
import { benchFolder } from './bench-folder';
import { textOf } from './flags';
import { writeRandom } from './loopback';
import type { Mover, Moving, Place } from './movers';
import { type Row, report, say } from './report';
import { type Curve, drawTransport } from './transport-draw';
import type { SendLine } from './transport-ends';
import { dwcp } from './transport-movers';
import { peersFor } from './transport-peers';
import { OTHER_SECONDS, TRANSPORT_SCENARIOS, type TransportScenario } from './transport-scenarios';
import { type LinkRate, WanLink, wanRefusal } from './wan-link';

const IMAGE_BYTES = 3 * GIB;

export interface Measured {
  readonly row: Row;
  readonly curve: Curve;
  readonly explanations: readonly string[];
  readonly series: readonly LinkRate[];
  /** By performance.now: where the series is at 0. */
  readonly begunAtMs: number;
  readonly lines: readonly SendLine[];
  readonly finished: boolean;
}

/** Runs a mover for a while on a link that is up. @param meanwhile what happens to the link in the meantime */
export async function measureMover(
  place: Place,
  mover: Mover,
  seconds: number,
  rowName: string,
  meanwhile?: (moving: Moving) => Promise<void>,
): Promise<Measured> {
  place.link.startSampling();
  const moving = await mover.start(place, seconds);
  const [sampled] = await Promise.all([moving.ended.then(() => place.link.stopSampling()), meanwhile?.(moving)]);
  await moving.stop();
  const { linkBytes, utilisation, firstSeconds, series, begunAtMs } = sampled;
  const streams = moving.lines.at(-1)?.streams;
  const row: Row = {
    name: rowName,
    linkBytes,
    ...(utilisation !== undefined && { utilisation }),
    ...(firstSeconds !== undefined && { firstSeconds }),
    ...(streams !== undefined && { streams, peakRssBytes: moving.peakRssBytes() }),
  };
  say(
    `  ${rowName}: ${((utilisation ?? 0) * 100).toFixed(1)} % from second 5 on, ` +
      `${((firstSeconds ?? 0) * 100).toFixed(1)} % before${streams === undefined ? '' : `, ${streams} streams`}`,
  );
  for (const line of moving.explanations) say(`    ${line}`);
  return {
    row,
    curve: { name: mover.name, goodput: bySecond(series), streams: streamCurve(moving.lines) },
    explanations: moving.explanations,
    series,
    begunAtMs,
    lines: moving.lines,
    finished: moving.finished(),
  };
}

export async function benchTransport(json: boolean, args: readonly string[]): Promise<void> {
  const refusal = wanRefusal();
  if (refusal !== undefined) throw new Error(refusal);
  const only = textOf(args, '--only');
  const folder = benchFolder('transport');
  const image = join(folder, 'image');
  const children = new Children(join(folder, 'logs'));
  const rows: Row[] = [];
  try {
    say('making the image');
    writeRandom(image, IMAGE_BYTES);
    for (const scenario of TRANSPORT_SCENARIOS.filter(({ name }) => name.includes(only)))
      rows.push(...(await runScenario(scenario, children, folder, image, args)));
    report('transport', rows, json, {
      image: `${IMAGE_BYTES} random bytes, not compressed`,
      scenarios: TRANSPORT_SCENARIOS.map(({ link, seconds }) => ({ ...link, seconds })),
    });
  } finally {
    await children.stopAll();
    rmSync(folder, { recursive: true, force: true });
  }
}

async function runScenario(
  { name, link: setting, seconds, fixed, peerStreams }: TransportScenario,
  children: Children,
  folder: string,
  image: string,
  args: readonly string[],
): Promise<Row[]> {
  say(name);
  const link = new WanLink('bench', setting);
  const history = `history-${name.replaceAll(/[^a-z0-9]+/g, '-')}`;
  const tuned = [dwcp({ name: 'dwcp', history }), dwcp({ name: 'dwcp again', history })];
  const movers: Mover[] = [
    ...tuned,
    ...(args.includes('--no-fixed') ? [] : fixed.map((streams) => dwcp({ name: `dwcp fixed ${streams}`, streams }))),
    ...(args.includes('--no-peers') ? [] : await peersFor(peerStreams, children)),
  ];
  const measured: Measured[] = [];
  for (const mover of movers) {
    // A fresh link for each: the kernel remembers what a path was like.
    link.up();
    try {
      measured.push(
        await measureMover(
          { children, link, folder, image },
          mover,
          tuned.includes(mover) ? seconds : OTHER_SECONDS,
          `${mover.name} ${name}`,
        ),
      );
    } finally {
      link.down();
    }
  }
  draw(name, setting.rateBitsPerSecond, measured);
  return measured.map(({ row }) => row);
}

function draw(name: string, rateBitsPerSecond: number, measured: readonly Measured[]): void {
  const folder = join(__dirname, '..', '..', 'bench', 'results', 'transport');
  mkdirSync(folder, { recursive: true });
  writeFileSync(
    join(folder, `${name.replaceAll(/[^a-z0-9.%]+/g, '-').replace('%', 'pc')}.svg`),
    drawTransport(
      name,
      rateBitsPerSecond,
      measured.map(({ curve }) => curve),
    ),
  );
}

function bySecond(series: readonly LinkRate[]): [number, number][] {
  const seconds = new Map<number, number[]>();
  for (const { atSeconds, bitsPerSecond } of series)
    if (atSeconds >= 0)
      seconds.set(Math.floor(atSeconds), [...(seconds.get(Math.floor(atSeconds)) ?? []), bitsPerSecond]);
  return [...seconds].map(([second, rates]) => [second, rates.reduce((sum, rate) => sum + rate, 0) / rates.length]);
}

function streamCurve(lines: readonly { readonly atMs: number; readonly streams: number }[]): [number, number][] {
  const begun = lines[0]?.atMs ?? 0;
  return lines.map(({ atMs, streams }) => [(atMs - begun) / 1000, streams]);
}
