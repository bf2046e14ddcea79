/**
 * The hand-over in a simulated world, seed after seed: `npm run bench -- sim [--seeds N] [--from SEED]`, one of them told from
 * its beginning `--seed X [--steps] [--mutant M]`, and whether it finds what is wrong with the product on purpose: `--mutants`.
 */
import { MUTANTS } from '../test/sim/mutants';
import { type FoundSeed, runSeeds, tellSeed } from '../test/sim/seeds';

const DEFAULT_SEEDS = 200;
/** Of a mutant. */
const MUTANT_SEEDS = 400;

function numberOf(args: readonly string[], name: string): number | undefined {
  const at = args.indexOf(name);
  return at < 0 ? undefined : Number(args[at + 1]);
}

function kindsOf(found: readonly FoundSeed[]): string[] {
  const kinds = new Map<string, number[]>();
  for (const { kind, text, seed } of found) {
    const key = `${kind}: ${text.replace(/\d+/g, 'N').slice(0, 160)}`;
    kinds.set(key, [...(kinds.get(key) ?? []), seed]);
  }
  return [...kinds].sort((a, b) => b[1].length - a[1].length).map(([key, seeds]) => `${String(seeds.length).padStart(5)}  ${key}\n         seeds ${seeds.slice(0, 10).join(' ')}`);
}

async function tryMutants(first: number, count: number): Promise<void> {
  const usual = new Set((await runSeeds({ first, count })).found.map(({ seed }) => seed));
  for (const [index, { name }] of MUTANTS.entries()) {
    const isNew = ({ seed }: FoundSeed): boolean => !usual.has(seed);
    let outcome = 'DOES NOT FIT';
    try {
      const caught = (await runSeeds({ first, count, mutant: index, until: isNew })).found.find(isNew);
      outcome = caught ? `found by seed ${caught.seed} (${caught.kind})` : 'LIVES';
      if (!caught) process.exitCode = 1;
    } catch {
      process.exitCode = 1;
    }
    process.stdout.write(`${String(index).padStart(2)}  ${outcome}  ${name}\n`);
  }
}

export async function benchSim(json: boolean, args: readonly string[]): Promise<void> {
  const seed = numberOf(args, '--seed');
  if (seed !== undefined) {
    process.exitCode = await tellSeed(seed, args.includes('--steps'), numberOf(args, '--mutant'));
    return;
  }
  const first = numberOf(args, '--from') ?? 1;
  if (args.includes('--mutants')) {
    await tryMutants(first, numberOf(args, '--seeds') ?? MUTANT_SEEDS);
    return;
  }
  const startedAt = performance.now();
  const mutant = numberOf(args, '--mutant');
  const report = await runSeeds({ first, count: numberOf(args, '--seeds') ?? DEFAULT_SEEDS, ...(mutant !== undefined && { mutant }) });
  const seconds = (performance.now() - startedAt) / 1_000;
  if (json) {
    process.stdout.write(`${JSON.stringify({ ...report, seconds })}\n`);
    return;
  }
  const { seeds, steps, cpuMs, outcomes, found } = report;
  process.stdout.write(`${seeds} seeds in ${seconds.toFixed(0)} s: ${(cpuMs / seeds).toFixed(0)} ms of processor and ${Math.round(steps / seeds)} steps each; ${Object.entries(outcomes).map(([name, times]) => `${name} ${times}`).join(', ')}\n`);
  process.stdout.write(found.length === 0 ? 'Nothing was violated.\n' : `${found.length} seeds violate something:\n${kindsOf(found).join('\n')}\n`);
  if (found.length > 0) process.exitCode = 1;
}
