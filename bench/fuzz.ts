/**
 * `npm run bench -- fuzz [--inputs N] [--seconds S] [--seed N] [--target NAME]`: everything that another host can send, made wrong in
 * every way that its format has, against the product: no crash, no hang over a second, no memory above the bound, and of every refusal
 * a code. `--only INDEX` plays one input of a seed again and shows it. Targets: fuzz-targets.ts.
 */
import { table } from '../src/cli/output';
import { formatBytes } from '../src/model/units';
import { numberOf, textOf } from './flags';
import { type FuzzReport, RSS_BOUND, runFuzz } from './fuzz-run';

const INPUTS = 10_000_000;
const SEED = 1;

function rowsOf({ counts }: FuzzReport): string[][] {
  return Object.entries(counts)
    .filter(([, { inputs }]) => inputs > 0)
    .map(([name, { inputs, seconds, slowestMs, slowestAt, outcomes }]) => [
      name,
      String(inputs),
      (inputs / Math.max(seconds, 0.001)).toFixed(0),
      `${slowestMs.toFixed(0)} ms at ${slowestAt}`,
      Object.entries(outcomes)
        .sort((a, b) => b[1] - a[1])
        .slice(0, 5)
        .map(([outcome, times]) => `${outcome} ${times}`)
        .join(', '),
    ]);
}

export async function benchFuzz(json: boolean, args: readonly string[]): Promise<void> {
  const seed = numberOf(args, '--seed') ?? SEED;
  const only = textOf(args, '--only').split(':').at(-1) ?? '';
  const seconds = numberOf(args, '--seconds');
  const report = await runFuzz({
    seed,
    inputs: only === '' ? (numberOf(args, '--inputs') ?? INPUTS) : 1,
    first: only === '' ? (numberOf(args, '--from') ?? 0) : Number(only),
    targets: textOf(args, '--target').split(',').filter(Boolean),
    ...(seconds !== undefined && { seconds }),
  });
  if (report.found.length > 0) process.exitCode = 1;
  const { inputs, peakRssBytes, found } = report;
  const rate = (inputs / report.seconds).toFixed(0);
  process.stdout.write(
    `${table([['target', 'inputs', 'a second', 'slowest', 'what became of them'], ...rowsOf(report)])}\n`,
  );
  process.stdout.write(
    `${inputs} inputs of seed ${seed} in ${report.seconds.toFixed(0)} s, ${rate} a second; ` +
      `${formatBytes(peakRssBytes)} at most, of ${formatBytes(RSS_BOUND)}\n`,
  );
  const accepted = Object.entries(report.reached).map(([name, times]) => `${name} ${times}`);
  process.stdout.write(`Accepted by the hub: ${accepted.join(', ')}\n`);
  for (const { target, index, text, input } of found)
    process.stdout.write(`\n${text}\n  npm run bench -- fuzz --seed ${seed} --only ${target}:${index}\n  ${input}\n`);
  process.stdout.write(found.length === 0 ? 'Nothing was found.\n' : `${found.length} were found.\n`);
  if (json) process.stdout.write(`${JSON.stringify({ bench: 'fuzz', seed, ...report })}\n`);
}
