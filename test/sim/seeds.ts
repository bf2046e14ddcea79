/**
 * Many seeds, on all processors: starts worker processes (seeds-worker.ts), which share no memory and leave nothing behind, and
 * puts together what they found.
 */
import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { type ArrivalsOf, addArrivals, NO_ARRIVALS } from './arrivals';

export interface FoundSeed {
  readonly seed: number;
  readonly kind: string;
  readonly text: string;
  readonly plan: string;
}

export interface BegunSeed {
  readonly begins: number;
}

export interface SeedsReport {
  readonly seeds: number;
  readonly steps: number;
  readonly cpuMs: number;
  readonly outcomes: Readonly<Record<string, number>>;
  readonly arrivals: ArrivalsOf;
  readonly found: readonly FoundSeed[];
}

export interface SeedsRequest {
  readonly first: number;
  readonly count: number;
  readonly mutant?: number;
  readonly workers?: number;
  readonly only?: readonly string[];
  /** Ends with the first that satisfies. */
  readonly until?: (found: FoundSeed) => boolean;
}

const GC = ['--max-semi-space-size=32'];
/** Of the processor's time, most that one seed takes by far: a machine that has none left for us is no seed that hangs. */
const SEED_CPU_MS = 60_000;
const LOOK_EVERY_MS = 5_000;
/** Of /proc/PID/stat, on every Linux that Node runs on. */
const MS_A_TICK = 10;
const WORKER = join(__dirname, 'seeds-worker.js');

/** Runs seeds in processes of their own, so that they use all processors and leave nothing behind. */
export async function runSeeds({
  first,
  count,
  mutant,
  workers = availableParallelism(),
  only = [],
  until,
}: SeedsRequest): Promise<SeedsReport> {
  const reports = await Promise.all(
    Array.from({ length: Math.min(workers, count) }, (_, worker) =>
      runWorker(
        [first + worker, Math.ceil((count - worker) / workers), workers, mutant ?? -1, only.join(',')].map(String),
        until,
      ),
    ),
  );
  const outcomes: Record<string, number> = {};
  for (const report of reports)
    for (const [name, times] of Object.entries(report.outcomes)) outcomes[name] = (outcomes[name] ?? 0) + times;
  const sum = (of: (report: SeedsReport) => number): number => reports.reduce((total, report) => total + of(report), 0);
  return {
    seeds: sum(({ seeds }) => seeds),
    steps: sum(({ steps }) => steps),
    cpuMs: sum(({ cpuMs }) => cpuMs),
    outcomes,
    arrivals: addArrivals(reports.map(({ arrivals }) => arrivals)),
    found: reports.flatMap(({ found }) => found).sort((a, b) => a.seed - b.seed),
  };
}

function runWorker(args: readonly string[], until: SeedsRequest['until']): Promise<SeedsReport> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [...GC, WORKER, 'run', ...args], { stdio: ['ignore', 'pipe', 'inherit'] });
    const found: FoundSeed[] = [];
    let report: SeedsReport | undefined;
    let rest = '';
    let enough = false;
    let [begun, at, cpuMsBefore] = [0, -1, 0];
    // Some promise that begets the next one for ever: no step of the simulation ends it.
    const hangs = setInterval(() => {
      if (cpuMsOf(child.pid) - cpuMsBefore < SEED_CPU_MS) return;
      clearInterval(hangs);
      found.push({ seed: at, kind: 'it hangs', text: 'a step does not end', plan: '' });
      enough = true;
      child.kill('SIGKILL');
    }, LOOK_EVERY_MS);
    child.stdout.on('data', (chunk: Buffer) => {
      const lines = (rest + chunk.toString('utf8')).split('\n');
      rest = lines.pop() ?? '';
      for (const line of lines) {
        const value = JSON.parse(line) as FoundSeed | SeedsReport | BegunSeed;
        cpuMsBefore = cpuMsOf(child.pid);
        if ('seeds' in value) report = value;
        else if ('begins' in value) {
          begun += 1;
          at = value.begins;
        } else {
          found.push(value);
          if (until?.(value)) {
            enough = true;
            child.kill();
          }
        }
      }
    });
    child.once('error', reject);
    child.once('close', (code) => {
      clearInterval(hangs);
      if (report) resolve({ ...report, found });
      else if (enough) resolve({ seeds: begun, steps: 0, cpuMs: 0, outcomes: {}, arrivals: NO_ARRIVALS, found });
      else reject(new Error(`A worker of the simulation ended with ${code ?? 'a signal'}`));
    });
  });
}

/** User and system time of a process; 0 where it is gone. */
function cpuMsOf(pid: number | undefined): number {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    // Behind the name, which may hold anything: proc(5), fields 14 and 15.
    const [user = 0, system = 0] = stat
      .slice(stat.lastIndexOf(')') + 2)
      .split(' ')
      .slice(11, 13)
      .map(Number);
    return (user + system) * MS_A_TICK;
  } catch {
    return 0;
  }
}

/** One seed from its beginning, told on standard output. @returns the exit code: 1 where something is violated */
export function tellSeed(seed: number, everyStep: boolean, mutant = -1): Promise<number> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [WORKER, 'tell', String(seed), String(mutant), everyStep ? 'steps' : ''], {
      stdio: 'inherit',
    });
    child.once('error', reject);
    child.once('close', (code) => resolve(code ?? 1));
  });
}
