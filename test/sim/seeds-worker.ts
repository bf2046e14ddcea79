/**
 * A process that runs seeds: `run FIRST COUNT STRIDE MUTANT KINDS` says what it found, one JSON object a line; `tell SEED MUTANT
 * [steps]` tells one from its beginning. Started by seeds.ts.
 */
import { config } from 'zod';
import { type ArrivalsOf, addArrivals, NO_ARRIVALS } from './arrivals';
import { MUTANTS } from './mutants';
import { describePlan, programOf, runSeed, type SimResult } from './run';
import type { BegunSeed, FoundSeed, SeedsReport } from './seeds';

/** Every life of a process makes its schemas anew: compiling them costs more than they save. */
config({ jitless: true });

/** Of a long story. */
const FIRST_LINES = 180;
const LAST_LINES = 40;

function run([first = 0, count = 0, stride = 1, mutant = -1]: readonly number[], only: readonly string[]): void {
  const program = programOf(MUTANTS[mutant]?.edits ?? []);
  const outcomes: Record<string, number> = {};
  let [steps, arrivals] = [0, NO_ARRIVALS];
  for (let index = 0; index < count; index += 1) {
    const seed = first + index * stride;
    say({ begins: seed } satisfies BegunSeed);
    const result = runSeed(seed, { program, ...(only.length > 0 && { only }) });
    steps += result.steps;
    arrivals = addArrivals([arrivals, arrivalsOf(result)]);
    outcomes[result.outcome] = (outcomes[result.outcome] ?? 0) + 1;
    if (result.violation)
      say({ seed: result.seed, ...result.violation, plan: describePlan(result.plan) } satisfies FoundSeed);
  }
  const { user, system } = process.cpuUsage();
  say({ seeds: count, steps, cpuMs: (user + system) / 1_000, outcomes, arrivals, found: [] } satisfies SeedsReport);
}

function arrivalsOf({ plan, arrived }: SimResult): ArrivalsOf {
  return { ...NO_ARRIVALS, [plan.vm.running ? 'running' : 'stopped']: { seeds: 1, arrived: arrived ? 1 : 0 } };
}

function tell(seed: number, mutant: number, everyStep: boolean): void {
  const { story, violation, steps, simulatedSeconds } = runSeed(seed, {
    traced: true,
    everyStep,
    program: programOf(MUTANTS[mutant]?.edits ?? []),
  });
  const lines =
    everyStep || story.length <= FIRST_LINES + LAST_LINES
      ? story
      : [
          ...story.slice(0, FIRST_LINES),
          `          ... (${story.length - FIRST_LINES - LAST_LINES} lines)`,
          ...story.slice(-LAST_LINES),
        ];
  process.stdout.write(
    `${lines.join('\n')}\n${violation ? `${violation.kind}: ${violation.text}` : 'all is well'}, ${steps} steps, ` +
      `${simulatedSeconds.toFixed(0)} s of its own time\n`,
  );
  if (violation) process.exitCode = 1;
}

function say(value: FoundSeed | SeedsReport | BegunSeed): void {
  process.stdout.write(`${JSON.stringify(value)}\n`);
}

const [what, ...args] = process.argv.slice(2);
// From a macrotask: steps run promises to their end.
setImmediate(() => {
  if (what === 'tell') tell(Number(args[0]), Number(args[1]), args[2] === 'steps');
  else
    run(
      args.slice(0, 4).map(Number),
      (args[4] ?? '').split(',').filter((name) => name !== ''),
    );
});
