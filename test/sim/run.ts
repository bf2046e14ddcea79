/**
 * One seed: a world, its plan, its steps, and what came of it.
 */
import { Invariants, type Violation } from './invariants';
import { type Edit, Program } from './loader';
import { type Plan, planOf } from './plan';
import { Course } from './scenario';
import { START_MS } from './scheduler';
import { World } from './world';

export interface SimResult {
  readonly seed: number;
  readonly violation: Violation | undefined;
  readonly steps: number;
  readonly simulatedSeconds: number;
  readonly plan: Plan;
  /** How the workflow ended, for those who count. */
  readonly outcome: string;
  readonly arrived: boolean;
  readonly story: readonly string[];
}

export interface SimOptions {
  readonly traced?: boolean;
  readonly everyStep?: boolean;
  readonly program?: Program;
  /** Faults that may happen; all where nothing is said. */
  readonly only?: readonly string[];
}

/** With faults. */
const DISTURBED_MS = 400_000;
const MOST_STEPS = 400_000;
/** Without: sweeps, patience with hosts, retries have to be through by then. */
const SETTLED_WITHIN_MS = 1_500_000;
const LOOK_EVERY = 40;

export function programOf(edits: readonly Edit[] = []): Program {
  return new Program(edits);
}

let listening: Invariants | undefined;
let installed = false;

function listenToRejections(): void {
  if (installed) return;
  installed = true;
  process.on('unhandledRejection', (error) => listening?.unhandled(error));
}

/** From a macrotask only (setImmediate): steps run promises to their end. */
export function runSeed(
  seed: number,
  { traced = false, everyStep = false, program = programOf(), only }: SimOptions = {},
): SimResult {
  listenToRejections();
  const chance = chanceOf(seed);
  const plan = planOf(chance, only);
  const world = new World(seed, program, plan.vm, { traced, everyStep });
  const { scheduler } = world;
  scheduler.trace(`seed ${seed}: ${describePlan(plan)}`);
  const invariants = new Invariants(world);
  listening = invariants;
  const course = new Course(world, plan, invariants);
  let steps = 0;
  const go = (on: () => boolean, untilMs: number): void => {
    for (; on() && !invariants.violation && scheduler.nowMs < untilMs && steps < MOST_STEPS; steps += 1) {
      if (!scheduler.step()) break;
      invariants.afterStep();
      course.afterStep();
    }
  };
  go(() => course.isBusy, START_MS + DISTURBED_MS * (0.2 + chance()));
  course.mend();
  const settleBy = scheduler.nowMs + SETTLED_WITHIN_MS;
  steps = 0;
  let left: string | undefined = 'nothing looked at';
  go(() => {
    if (steps % LOOK_EVERY === 0) left = invariants.unsettled();
    return left !== undefined;
  }, settleBy);
  const violation =
    invariants.violation ??
    (left === undefined
      ? undefined
      : { kind: steps < MOST_STEPS ? 'it does not settle' : 'it never rests', text: left });
  if (violation && !invariants.violation) scheduler.trace(`VIOLATION ${violation.kind}: ${violation.text}`);
  const problem = world.temporal.problems[0];
  listening = undefined;
  return {
    seed,
    steps: scheduler.steps,
    simulatedSeconds: (scheduler.nowMs - START_MS) / 1_000,
    plan,
    story: scheduler.story,
    arrived: world.hasArrived,
    outcome: `${world.workflow?.status ?? 'none'}${world.truth.lost ? ', lost' : ''}`,
    violation:
      violation ?? (problem === undefined ? undefined : { kind: 'the workflow’s code is wrong', text: problem }),
  };
}

/** A generator beside the world's own, so that a plan does not change with what the world asks. */
function chanceOf(seed: number): () => number {
  let state = (Math.imul(seed + 1, 0x9e3779b1) ^ 0x5bd1e995) >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}

export function describePlan({ vm, second, faults, temporal }: Plan): string {
  const what = vm.running
    ? `a running guest ${vm.diskBlocks > 0 ? `with a disk of ${vm.diskBlocks} blocks` : 'without a disk'}`
    : `a stopped VM of ${vm.diskBlocks} blocks`;
  const planned = faults.map(
    ({ kind, host, at, behind, lastsMs }) =>
      `${kind} ${host} (${at.of === 'state' ? at.state : `${at.of} ${at.number}`} + ${behind}, ${Math.round(lastsMs)} ms)`,
  );
  const ofTemporal = Object.entries(temporal).map(([kind, count]) => `${kind} x${count}`);
  return [what, second ? `then ${second}` : 'once', ...planned, ...ofTemporal].join('; ');
}
