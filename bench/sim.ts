/**
 * The hand-over in a simulated world, seed after seed: `npm run bench -- sim [--seeds N] [--from SEED]`, one of them told from
 * its beginning `--seed X [--steps] [--mutant M]`, and whether it finds what is wrong with the product on purpose: `--mutants`.
 */
import { arrivedOf, tooFewArrivals } from '../test/sim/arrivals';
import { MUTANTS } from '../test/sim/mutants';
import { type FoundSeed, runSeeds, tellSeed } from '../test/sim/seeds';
import { numberOf } from './flags';

const DEFAULT_SEEDS = 200;
/** Of a mutant. */
const MUTANT_SEEDS = 2_000;

function kindsOf(found: readonly FoundSeed[]): string[] {
  const kinds = new Map<string, number[]>();
  for (const { kind, text, seed } of found) {
    const key = `${kind}: ${text.replace(/\d+/g, 'N').slice(0, 160)}`;
    kinds.set(key, [...(kinds.get(key) ?? []), seed]);
  }
  return [...kinds]
    .sort((a, b) => b[1].length - a[1].length)
    .map(
      ([key, seeds]) => `${String(seeds.length).padStart(5)}  ${key}\n         seeds ${seeds.slice(0, 10).join(' ')}`,
    );
}

/** The first seed that finds something wrong with a mutant, and nothing with the product as it is. */
async function findMutant(mutant: number, first: number, count: number): Promise<FoundSeed | undefined> {
  for (let from = first; from < first + count; ) {
    const { found } = await runSeeds({ first: from, count: first + count - from, mutant, until: () => true });
    const [caught] = found;
    if (!caught) return undefined;
    if ((await runSeeds({ first: caught.seed, count: 1 })).found.length === 0) return caught;
    from = caught.seed + 1;
  }
  return undefined;
}

async function tryMutants(first: number, count: number, only: number | undefined): Promise<void> {
  let lives = 0;
  for (const [index, { name }] of MUTANTS.entries()) {
    if (only !== undefined && only !== index) continue;
    const caught = await findMutant(index, first, count);
    process.stdout.write(
      `${String(index).padStart(2)}  ${caught ? `seed ${String(caught.seed).padStart(4)}` : 'LIVES    '}  ${name}` +
        `${caught ? ` (${caught.kind})` : ''}\n`,
    );
    if (!caught) lives += 1;
  }
  process.stdout.write(`${lives} of ${MUTANTS.length} mutants live on among seeds ${first} to ${first + count - 1}.\n`);
  if (lives > 0) process.exitCode = 1;
}

export async function benchSim(json: boolean, args: readonly string[]): Promise<void> {
  const seed = numberOf(args, '--seed');
  if (seed !== undefined) {
    process.exitCode = await tellSeed(seed, args.includes('--steps'), numberOf(args, '--mutant'));
    return;
  }
  const first = numberOf(args, '--from') ?? 1;
  if (args.includes('--mutants')) {
    await tryMutants(first, numberOf(args, '--seeds') ?? MUTANT_SEEDS, numberOf(args, '--mutant'));
    return;
  }
  const startedAt = performance.now();
  const mutant = numberOf(args, '--mutant');
  const report = await runSeeds({
    first,
    count: numberOf(args, '--seeds') ?? DEFAULT_SEEDS,
    ...(mutant !== undefined && { mutant }),
  });
  const seconds = (performance.now() - startedAt) / 1_000;
  const { seeds, steps, cpuMs, outcomes, found } = report;
  const few = tooFewArrivals(report.arrivals);
  if (found.length + few.length > 0) process.exitCode = 1;
  if (json) {
    process.stdout.write(`${JSON.stringify({ ...report, few, seconds })}\n`);
    return;
  }
  const ended = Object.entries(outcomes).map(([name, times]) => `${name} ${times}`);
  const each = `${(cpuMs / seeds).toFixed(0)} ms of processor and ${Math.round(steps / seeds)} steps each`;
  process.stdout.write(`${seeds} seeds in ${seconds.toFixed(0)} s: ${each}; ${ended.join(', ')}\n`);
  process.stdout.write(
    found.length === 0
      ? 'Nothing was violated.\n'
      : `${found.length} seeds violate something:\n${kindsOf(found).join('\n')}\n`,
  );
  process.stdout.write(`${[arrivedOf(report.arrivals), ...few].join('\n')}\n`);
}
