/**
 * The process in which inputs are played, one after the other; it may die of one. Before each it writes the input's number where its parent
 * finds it (fuzz-run.ts), so that one that kills or hangs it is known. What it finds, and at the end what it has counted, it says in lines
 * of JSON. An input that takes more than a second is played again by itself: only processor time that it takes twice counts.
 */
import { openSync, writeSync } from 'node:fs';
import { Draw } from './fuzz-draw';
import { describe, Finding, type Outcome, type Target } from './fuzz-target';
import { openTargets } from './fuzz-targets';

export interface ChildOrder {
  readonly seed: number;
  readonly first: number;
  readonly count: number;
  readonly untilMs: number;
  readonly progressPath: string;
  /** Names of targets; none for all. Inputs of others are passed over. */
  readonly targets: readonly string[];
  readonly rssBound: number;
}

export interface FoundInput {
  readonly target: string;
  readonly index: number;
  readonly text: string;
  readonly input: string;
}

export interface TargetCount {
  inputs: number;
  seconds: number;
  slowestMs: number;
  /** Which input that was. */
  slowestAt: number;
  outcomes: Record<string, number>;
}

export interface ChildReport {
  readonly next: number;
  readonly peakRssBytes: number;
  readonly counts: Record<string, TargetCount>;
  readonly reached: Readonly<Record<string, number>>;
}

const SLOW_MS = 1000;
const ENDS_WITHIN_MS = 30_000;
const LOOK_EVERY = 256;
const MOST_SHOWN = 4000;

function write(line: object): void {
  writeSync(1, `${JSON.stringify(line)}\n`);
}

/** Bytes as hexadecimal digits, wherever they stand. */
function shown(input: unknown): string {
  const text = JSON.stringify(input, (_name, value: unknown) =>
    typeof value === 'object' && value !== null && 'type' in value && value.type === 'Buffer' && 'data' in value
      ? Buffer.from(value.data as number[]).toString('hex')
      : value,
  );
  return (text ?? '').slice(0, MOST_SHOWN);
}

/** Which target each of a thousand inputs is for, well mixed. */
function slotsOf(targets: readonly Target[]): readonly Target[] {
  const slots = targets.flatMap((target) => Array.from({ length: target.share }, () => target));
  const draw = new Draw(1, 1);
  for (let at = slots.length - 1; at > 0; at -= 1) {
    const other = draw.below(at + 1);
    const [one, two] = [slots[at], slots[other]];
    if (one && two) [slots[at], slots[other]] = [two, one];
  }
  return slots;
}

async function run(order: ChildOrder): Promise<void> {
  const targets = await openTargets();
  const slots = slotsOf(targets);
  const progress = Buffer.alloc(8);
  const file = openSync(order.progressPath, 'w');
  const counts: Record<string, TargetCount> = {};
  for (const { name } of targets) counts[name] = { inputs: 0, seconds: 0, slowestMs: 0, slowestAt: 0, outcomes: {} };
  let at: { target: string; index: number; input: unknown } = { target: '', index: order.first, input: undefined };
  const told = (input: unknown): void => void (at.input = input);
  const found = (text: string): void => write({ target: at.target, index: at.index, text, input: shown(at.input) });
  const report = (next: number): void =>
    write({ next, peakRssBytes: process.resourceUsage().maxRSS * 1024, counts, reached: reachedBy(targets) });
  const dies =
    (what: string) =>
    (error: unknown): void => {
      found(`${what}: ${error instanceof Error ? (error.stack ?? error.message).slice(0, 1500) : String(error)}`);
      report(at.index + 1);
      process.exit(3);
    };
  process.on('uncaughtException', dies('uncaught exception'));
  process.on('unhandledRejection', dies('unhandled rejection'));
  const play = (target: Target, index: number): Outcome | Promise<Outcome> =>
    target.play(new Draw(order.seed, index), index, told);
  let saidRss = false;
  let index = order.first;
  for (; index < order.first + order.count && Date.now() < order.untilMs; index += 1) {
    const target = slots[index % slots.length];
    if (!target || (order.targets.length > 0 && !order.targets.includes(target.name))) continue;
    at = { target: target.name, index, input: undefined };
    progress.writeDoubleBE(index, 0);
    writeSync(file, progress, 0, 8, 0);
    const count = counts[target.name];
    const startedAt = performance.now();
    let outcome: string;
    try {
      const playing = play(target, index);
      outcome = typeof playing === 'string' ? playing : await within(playing);
    } catch (error) {
      found(error instanceof Finding ? error.message : `thrown to the caller: ${describe(error)}`);
      outcome = 'FOUND';
    }
    const tookMs = performance.now() - startedAt;
    if (order.count === 1) process.stderr.write(`${target.name}:${index} ${outcome} ${shown(at.input)}\n`);
    if (tookMs > SLOW_MS && outcome !== 'FOUND') await playAgain(() => play(target, index), found);
    if (!count) continue;
    count.inputs += 1;
    count.seconds += tookMs / 1000;
    if (tookMs > count.slowestMs) [count.slowestMs, count.slowestAt] = [tookMs, index];
    count.outcomes[outcome] = (count.outcomes[outcome] ?? 0) + 1;
    if (index % LOOK_EVERY === 0 && !saidRss && process.resourceUsage().maxRSS * 1024 > order.rssBound) {
      saidRss = true;
      found(
        `the process has taken ${process.resourceUsage().maxRSS >> 10} MiB, at this input or one of the ${LOOK_EVERY} before`,
      );
    }
  }
  for (const target of targets) await target.close?.();
  report(index);
}

function reachedBy(targets: readonly Target[]): Readonly<Record<string, number>> {
  return Object.assign({}, ...targets.map(({ reached }) => reached ?? {})) as Readonly<Record<string, number>>;
}

/** @throws Finding where it does not come to an end, on a machine that has other work */
async function within(playing: Promise<Outcome>): Promise<Outcome> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Finding(`no end within ${ENDS_WITHIN_MS / 1000} s`)), ENDS_WITHIN_MS);
  });
  try {
    return await Promise.race([playing, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** This machine has other work: what took long is measured again, by the processor time of this process. */
async function playAgain(play: () => unknown, found: (text: string) => void): Promise<void> {
  const before = process.cpuUsage();
  await Promise.resolve(play()).then(
    () => undefined,
    () => undefined,
  );
  const { user, system } = process.cpuUsage(before);
  if ((user + system) / 1000 > SLOW_MS)
    found(`it takes ${Math.round((user + system) / 1000)} ms of processor, each time`);
}

run(JSON.parse(process.argv[2] ?? '{}') as ChildOrder).then(
  () => process.exit(0),
  (error: unknown) => {
    process.stderr.write(`${error instanceof Error ? (error.stack ?? '') : String(error)}\n`);
    process.exit(2);
  },
);
