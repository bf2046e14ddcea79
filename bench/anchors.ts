/**
 * `npm run bench -- anchors`: what a path does to a transfer and what a transfer does to a path, over time: capacity
 * that changes, limits, killed streams, a blackout, killed ends, what is learnt of a path, a limit that two migrations
 * share, two paths, memory over ten minutes. Each is a claim of docs/transport.md. `--only TEXT` takes some.
 */
import { existsSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { Children } from '../src/cli/demo/children';
import { GIB, MIB } from '../src/model/units';
import {
  type Anchor,
  type Lab,
  NARROW,
  onLink,
  pause,
  percent,
  rateBetween,
  secondsUntil,
  shareOf,
  timetable,
  WIDE,
} from './anchor-lab';
import { benchFolder } from './bench-folder';
import { textOf } from './flags';
import { writeRandom } from './loopback';
import { type Row, report, say } from './report';
import { measureMover } from './transport';
import type { ShareLine } from './transport-ends';
import { dwcp, sharedLimit } from './transport-movers';
import { type WanLink, wanRefusal } from './wan-link';

const capacityChanges: Anchor = (lab) =>
  onLink(WIDE, async (link) => {
    const { run, takenAtMs } = timetable(
      [45, () => link.set('--rate', '100mbit')],
      [40, () => link.set('--rate', '300mbit')],
    );
    const { series, begunAtMs } = await measureMover(
      { link, ...lab },
      dwcp({ name: 'capacity' }),
      130,
      'capacity 300, 100, 300',
      run,
    );
    const [down = 0, up = 0] = takenAtMs.map((atMs) => (atMs - begunAtMs) / 1000);
    return [
      {
        name: 'A5 300 to 100 mbit',
        seconds: secondsUntil(series, down, 0.9, 100e6),
        utilisation: shareOf(series, down + 5, up - 1, 100e6),
      },
      {
        name: 'A5 100 to 300 mbit',
        seconds: secondsUntil(series, up, 0.9, 300e6),
        utilisation: shareOf(series, up + 10, up + 40, 300e6),
      },
    ];
  });

const limits: Anchor = async (lab) => {
  const rows: Row[] = [];
  for (const mbit of [100, 240, 270]) {
    await onLink({ ...WIDE, loss: '0%' }, async (link) => {
      const { lines } = await measureMover(
        { link, ...lab },
        dwcp({ name: 'limit', bandwidthLimit: (mbit * 1e6) / 8 }),
        35,
        `limit of ${mbit} mbit`,
      );
      const steady = lines.filter(({ atMs }) => atMs - (lines[0]?.atMs ?? 0) > 8_000);
      const windows = steady.slice(4).map((line, index) => rateBetween(steady[index], line));
      rows.push({
        name: `A6 limit ${mbit} of 300 mbit`,
        utilisation: rateBetween(steady[0], steady.at(-1)) / (mbit * 1e6),
        note: `seconds from ${percent(Math.min(...windows) / (mbit * 1e6))} to ${percent(Math.max(...windows) / (mbit * 1e6))}`,
      });
    });
  }
  return rows;
};

const killedStreams: Anchor = (lab) =>
  onLink({ ...WIDE, loss: '0.01%' }, async (link) => {
    let droppedAtMs = 0;
    const { series, begunAtMs, lines } = await measureMover(
      { link, ...lab },
      dwcp({ name: 'killed' }),
      45,
      'half the streams killed',
      async (moving) => {
        await pause(30);
        moving.dropHalf();
        droppedAtMs = performance.now();
      },
    );
    const at = (droppedAtMs - begunAtMs) / 1000;
    const before = shareOf(series, at - 10, at - 1, 300e6);
    const [left] = lines.filter(({ atMs }) => atMs > Date.now() - (performance.now() - droppedAtMs) + 100);
    return [
      {
        name: 'A7 half the streams killed',
        seconds: secondsUntil(series, at, 0.9 * before, 300e6),
        note: `${left?.streams ?? 0} streams just after it`,
      },
    ];
  });

function smallImage({ folder }: Lab): string {
  const path = join(folder, 'small');
  if (!existsSync(path)) writeRandom(path, 400 * MIB);
  return path;
}

const blackout: Anchor = async (lab) => {
  const image = smallImage(lab);
  const send = (name: string, meanwhile?: (link: WanLink) => Promise<void>) =>
    onLink(NARROW, (link) =>
      measureMover({ link, ...lab }, dwcp({ name, image }), 200, name, meanwhile && (() => meanwhile(link))),
    );
  const undisturbed = await send('undisturbed');
  let mendedAtMs = 0;
  let resumedAtMs = 0;
  const cut = await send('blackout of 30 s', async (link) => {
    await pause(15);
    link.cut();
    await pause(30);
    const crossed = link.crossedBytes;
    link.mend();
    mendedAtMs = performance.now();
    while (link.crossedBytes < crossed + 1e6) await pause(0.05);
    resumedAtMs = performance.now();
  });
  const sent = (cut.lines.at(-1)?.linkBytes ?? 0) - (undisturbed.lines.at(-1)?.linkBytes ?? 0);
  const crossed = (cut.row.linkBytes ?? 0) - (undisturbed.row.linkBytes ?? 0);
  return [
    {
      name: 'A8 blackout of 30 s',
      seconds: (resumedAtMs - mendedAtMs) / 1000,
      linkBytes: crossed,
      verified: cut.finished && undisturbed.finished,
      note: `time until a megabyte has crossed again; bytes that crossed more than without; given to sockets ${sent} more`,
    },
  ];
};

/** Three times both ends die at a random moment, and go on with what their disks hold. */
const killedEnds: Anchor = async (lab) => {
  const image = smallImage(lab);
  const setting = { name: 'both ends killed', image, resumed: 'killed-ends' };
  const undisturbed = await onLink(NARROW, (link) =>
    measureMover({ link, ...lab }, dwcp({ name: 'undisturbed', image }), 120, 'undisturbed'),
  );
  const crossedBytes: number[] = [];
  const readBytes: number[] = [];
  const kills = 3;
  let seconds = 0;
  let finished = false;
  for (let run = 0; run <= kills; run += 1) {
    const last = run === kills;
    await onLink(NARROW, async (link) => {
      const measured = await measureMover(
        { link, ...lab },
        dwcp(setting),
        120,
        last ? 'to its end' : `killed ${run + 1}`,
        async (moving) => {
          const startedAt = performance.now();
          while (link.crossedBytes < 1e6 && performance.now() - startedAt < 30_000) await pause(0.02);
          readBytes.push(moving.receiverReadBytes());
          if (run > 0) seconds = Math.max(seconds, (performance.now() - startedAt) / 1000);
          if (last) return;
          await pause(3 + 5 * Math.random());
          moving.kill();
        },
      );
      crossedBytes.push(measured.row.linkBytes ?? 0);
      finished = measured.finished;
    });
  }
  const more = crossedBytes.reduce((sum, bytes) => sum + bytes, 0) - (undisturbed.row.linkBytes ?? 0);
  const note =
    `${kills} times; bytes that crossed more than undisturbed; until a megabyte crosses again the destination has ` +
    `read ${Math.max(...readBytes.slice(1)) - (readBytes[0] ?? 0)} bytes more than the first time`;
  return [{ name: 'A9 both ends killed', seconds, linkBytes: more, verified: finished && undisturbed.finished, note }];
};

const learning: Anchor = async (lab) => {
  const rows: Row[] = [];
  for (let run = 1; run <= 6; run += 1) {
    await onLink({ ...NARROW, loss: '1%' }, async (link) => {
      const { explanations } = await measureMover(
        { link, ...lab },
        dwcp({ name: 'learning', history: 'learnt', image: learningImage(lab) }),
        60,
        `run ${run}`,
      );
      const [, begun = '0', held = '0'] = /begun with (\d+) streams, held (\d+)/.exec(explanations.join('\n')) ?? [];
      rows.push({
        name: `A10 run ${run}`,
        streams: Number(begun),
        ratio: Number(begun) / Math.max(1, Number(held)),
        note: `held ${held}; begun with over held is the ratio`,
      });
    });
  }
  return rows;
};

/** Small enough that a run comes to its end, large enough that the tuner does before. */
function learningImage({ folder }: Lab): string {
  const path = join(folder, 'learning');
  if (!existsSync(path)) writeRandom(path, 360 * MIB);
  return path;
}

const sharedBetweenTwo: Anchor = (lab) =>
  onLink(WIDE, async (link) => {
    const lines: ShareLine[] = [];
    const limit = 100e6 / 8;
    await measureMover(
      { link, ...lab },
      sharedLimit([10, 5], limit, (line) => lines.push(line)),
      35,
      'two migrations, priorities 10 and 5, limit of 100 mbit',
    );
    const steady = lines.filter(({ atMs }) => atMs - (lines[0]?.atMs ?? 0) > 10_000);
    const [first, last] = [steady[0], steady.at(-1)];
    if (!first || !last) throw new Error('the two migrations said nothing');
    const rates = last.linkBytes.map(
      (bytes, index) => (bytes - (first.linkBytes[index] ?? 0)) / ((last.atMs - first.atMs) / 1000),
    );
    const [urgent = 0, other = 0] = rates;
    return [
      {
        name: 'priorities 2:1 under one limit',
        ratio: urgent / other,
        utilisation: (urgent + other) / limit,
        note: 'ratio of the shares; utilisation of the limit',
      },
    ];
  });

/** Paths of 100 and 50 mbit; one of them is cut in the middle. */
function twoPaths(cut: '0' | '1', name: string, leftBitsPerSecond: number): Anchor {
  return (lab) =>
    onLink({ ...NARROW, rateBitsPerSecond: 150e6, further: ['50mbit'] }, async (link) => {
      const { run, takenAtMs } = timetable([40, () => link.set(cut, '--cut')]);
      const { series, begunAtMs } = await measureMover(
        { link, ...lab },
        dwcp({ name, addresses: [link.b.address, '198.18.1.2'] }),
        70,
        name,
        run,
      );
      const at = ((takenAtMs[0] ?? 0) - begunAtMs) / 1000;
      return [
        { name: `${name}: both`, utilisation: shareOf(series, 5, at - 1, 150e6) },
        {
          name: `${name}: one left`,
          seconds: secondsUntil(series, at, 0.85, leftBitsPerSecond),
          utilisation: shareOf(series, at + 5, at + 25, leftBitsPerSecond),
          note: 'of the path that is left',
        },
      ];
    });
}

/** 256 streams for ten minutes, at a rate that the image lasts for. */
const memoryOfMany: Anchor = (lab) =>
  onLink({ ...WIDE, loss: '0.01%' }, async (link) => {
    let rss: readonly number[] = [];
    const { row } = await measureMover(
      { link, ...lab },
      dwcp({ name: 'many', streams: 256, bandwidthLimit: 7e6 }),
      610,
      '256 streams for ten minutes',
      (moving) => {
        rss = moving.rssBytes;
        return Promise.resolve();
      },
    );
    const meanOf = (minute: number): number =>
      rss.slice(120 * (minute - 1), 120 * minute).reduce((sum, bytes) => sum + bytes, 0) / 120;
    return [
      {
        ...row,
        name: '256 streams for ten minutes',
        ratio: meanOf(10) / meanOf(2),
        note: 'memory of the tenth minute over that of the second is the ratio',
      },
    ];
  });

const ANCHORS: Readonly<Record<string, Anchor>> = {
  capacity: capacityChanges,
  limits,
  memory: memoryOfMany,
  killed: killedStreams,
  blackout,
  ends: killedEnds,
  learning,
  shared: sharedBetweenTwo,
  paths: twoPaths('1', 'two paths, the second cut', 100e6),
  control: twoPaths('0', 'two paths, that of the control connection cut', 50e6),
};

export async function benchAnchors(json: boolean, args: readonly string[]): Promise<void> {
  const refusal = wanRefusal();
  if (refusal !== undefined) throw new Error(refusal);
  const only = textOf(args, '--only');
  const folder = benchFolder('anchors');
  const image = join(folder, 'image');
  const children = new Children(join(folder, 'logs'));
  const rows: Row[] = [];
  try {
    say('making the image');
    writeRandom(image, 4.5 * GIB);
    for (const [name, anchor] of Object.entries(ANCHORS))
      if (name.includes(only)) rows.push(...(await anchor({ children, folder, image })));
    report('anchors', rows, json, { links: { WIDE, NARROW } });
  } finally {
    await children.stopAll();
    rmSync(folder, { recursive: true, force: true });
  }
}
