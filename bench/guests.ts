/**
 * `npm run bench -- guests [--only TEXT|TEXT]`: every guest of test/guests/table.ts moved there and back, or refused, between two hosts of their
 * own files, networks and ports on this machine. A line for each as it has come out, and a sum; it fails where one is not as it has to be.
 * `--trace`: when each step of the last move began and ended. `--server`: guests-server.ts.
 */
import { existsSync } from 'node:fs';
import { table } from '../src/cli/output';
import { formatBytes } from '../src/model/units';
import { SHAPES } from '../test/guests/table';
import { TwoHosts } from '../test/guests/two-hosts';
import { type Played, play } from '../test/guests/walk';
import { textOf } from './flags';
import { benchServer } from './guests-server';
import { report, say } from './report';
import { traceSteps } from './trace';

/** A refusal is to be there within this. */
const SOON_SECONDS = 5;

export async function benchGuests(json: boolean, args: readonly string[]): Promise<void> {
  if (args.includes('--server')) return benchServer(json, args);
  const only = textOf(args, '--only').split('|');
  const asked = SHAPES.filter(({ name, field }) =>
    only.some((text) => name.includes(text) || `case ${field}` === text),
  );
  const shapes = asked.filter(({ name, needs = '/' }) => {
    if (!existsSync(needs)) say(`${name}: left out, this machine has no ${needs}`);
    return existsSync(needs);
  });
  if (shapes.length === 0) throw new Error(`no guest of the table has ${only.join(' or ')} in its name`);
  const hosts = await TwoHosts.start(say);
  const all: Played[] = [];
  try {
    for (const shape of shapes) {
      const startedAt = Date.now();
      const played = await play(hosts, shape, say);
      all.push(played);
      process.stdout.write(`${lineOf(played)}\n`);
      if (args.includes('--trace')) await traceSteps(hosts.stage, played.vmId, startedAt);
    }
  } finally {
    await hosts.stop();
  }
  const failed = all.filter(({ faults }) => faults.length > 0);
  const late = all.filter(({ outcome, seconds }) => outcome === 'refused' && seconds > SOON_SECONDS);
  process.stdout.write(`\n${table(sums(all))}\n`);
  say(
    `${late.length} refusals took longer than ${SOON_SECONDS} s: ${late.map(({ shape }) => shape.name).join('; ') || 'none'}`,
  );
  const rows = all.map(({ shape, outcome, seconds, faults, said }) => ({
    name: `case ${shape.field}: ${shape.name}`,
    ...{ seconds, verified: faults.length === 0, note: faults[0] ?? `${outcome}${said === '' ? '' : `: ${said}`}` },
  }));
  report('guests', rows, json, { only });
  if (failed.length > 0) throw new Error(`${failed.length} of ${all.length} guests are not as they have to be`);
}

function lineOf({ shape, outcome, faults, seconds, stops, sentBytes, said }: Played): string {
  const what = `${faults.length === 0 ? 'ok    ' : 'FAILED'} case ${shape.field}, ${shape.name}: ${outcome}`;
  const figures = `${seconds.toFixed(1)} s, ${stops} pauses, ${formatBytes(sentBytes)} sent`;
  return [`${what}, ${figures}`, ...(said === '' ? [] : [said]), ...faults].join('\n         ');
}

function sums(all: readonly Played[]): string[][] {
  const outcomes = [...new Set(all.map(({ outcome }) => outcome))];
  return [
    ['outcome', 'guests', 'as they have to be', 'most seconds'],
    ...outcomes.map((outcome) => {
      const own = all.filter((each) => each.outcome === outcome);
      const right = own.filter(({ faults }) => faults.length === 0).length;
      return [outcome, `${own.length}`, `${right}`, Math.max(...own.map(({ seconds }) => seconds)).toFixed(1)];
    }),
  ];
}
