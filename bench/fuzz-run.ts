/**
 * Plays inputs in child processes and watches them: a child that dies or hangs is a finding with the input that it was at, and another goes
 * on behind it. For `npm run bench -- fuzz` and for the test that plays some of it.
 */
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { MIB } from '../src/model/units';
import type { ChildOrder, ChildReport, FoundInput, TargetCount } from './fuzz-child';

export interface FuzzRequest {
  readonly seed: number;
  readonly inputs: number;
  readonly first?: number;
  readonly seconds?: number;
  readonly targets?: readonly string[];
}

export interface FuzzReport {
  readonly inputs: number;
  readonly seconds: number;
  readonly peakRssBytes: number;
  readonly counts: Readonly<Record<string, TargetCount>>;
  /** Requests that were accepted, and how often: what is played gets as far as that. */
  readonly reached: Readonly<Record<string, number>>;
  readonly found: readonly FoundInput[];
}

/**
 * Node with all of the product loaded and two worker threads take 250 MiB; slabs (2 x 32), a decoder's scratch in three threads and what is
 * kept for images (64) another 150; V8 may hold 256 of garbage. The largest frame is 4 MiB: what takes more than this grows.
 */
export const RSS_BOUND = 768 * MIB;
const V8 = ['--max-old-space-size=384', '--max-semi-space-size=16', '--enable-source-maps'];
/** Without a step for so long it does not come back: a second of processor is measured in the child. */
const STUCK_MS = 45_000;
const LOOK_EVERY_MS = 500;
const MOST_FOUND = 25;
const CHILD = join(__dirname, 'fuzz-child.js');

interface Played {
  readonly report: ChildReport | undefined;
  readonly found: readonly FoundInput[];
}

export async function runFuzz({ seed, inputs, first = 0, seconds, targets = [] }: FuzzRequest): Promise<FuzzReport> {
  const folder = mkdtempSync(join(tmpdir(), 'dwcp-fuzz-'));
  const startedAt = Date.now();
  const untilMs = seconds === undefined ? Number.MAX_SAFE_INTEGER : startedAt + seconds * 1000;
  const found: FoundInput[] = [];
  const counts: Record<string, TargetCount> = {};
  const reached: Record<string, number> = {};
  let [next, peakRssBytes] = [first, 0];
  try {
    while (next < first + inputs && Date.now() < untilMs && found.length < MOST_FOUND) {
      const order = { seed, first: next, count: first + inputs - next, untilMs, targets, rssBound: RSS_BOUND };
      const played = await playOn({ ...order, progressPath: join(folder, 'progress') });
      found.push(...played.found);
      if (!played.report) next = (played.found.at(-1)?.index ?? next) + 1;
      else {
        next = played.report.next;
        peakRssBytes = Math.max(peakRssBytes, played.report.peakRssBytes);
        addCounts(counts, played.report.counts);
        for (const [name, times] of Object.entries(played.report.reached)) reached[name] = (reached[name] ?? 0) + times;
      }
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  const played = Object.values(counts).reduce((sum, count) => sum + count.inputs, 0);
  return { inputs: played, seconds: (Date.now() - startedAt) / 1000, peakRssBytes, counts, reached, found };
}

function addCounts(all: Record<string, TargetCount>, more: Readonly<Record<string, TargetCount>>): void {
  for (const [name, { inputs, seconds, slowestMs, slowestAt, outcomes }] of Object.entries(more)) {
    const count = (all[name] ??= { inputs: 0, seconds: 0, slowestMs: 0, slowestAt: 0, outcomes: {} });
    count.inputs += inputs;
    count.seconds += seconds;
    if (slowestMs > count.slowestMs) [count.slowestMs, count.slowestAt] = [slowestMs, slowestAt];
    for (const [outcome, times] of Object.entries(outcomes))
      count.outcomes[outcome] = (count.outcomes[outcome] ?? 0) + times;
  }
}

/** The input that a child was at. */
function indexIn(progressPath: string): number | undefined {
  try {
    const bytes = readFileSync(progressPath);
    return bytes.length === 8 ? bytes.readDoubleBE(0) : undefined;
  } catch {
    return undefined;
  }
}

/** One child, to its end. @throws where it could not begin */
function playOn(order: ChildOrder): Promise<Played> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [...V8, CHILD, JSON.stringify(order)], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const end = (): void => void child.kill('SIGKILL');
    process.once('exit', end);
    const found: FoundInput[] = [];
    let report: ChildReport | undefined;
    let rest = '';
    let [last, since, hung]: [number | undefined, number, boolean] = [undefined, Date.now(), false];
    const watch = setInterval(() => {
      const at = indexIn(order.progressPath);
      if (at !== last) [last, since] = [at, Date.now()];
      else if (at !== undefined && Date.now() - since > STUCK_MS) {
        hung = true;
        end();
      }
    }, LOOK_EVERY_MS);
    child.stdout.on('data', (chunk: Buffer) => {
      const lines = (rest + chunk.toString('utf8')).split('\n');
      rest = lines.pop() ?? '';
      for (const line of lines) {
        const value = JSON.parse(line) as FoundInput | ChildReport;
        if ('next' in value) report = value;
        else found.push(value);
      }
      if (found.length >= MOST_FOUND) end();
    });
    child.once('error', reject);
    child.once('close', (code, signal) => {
      clearInterval(watch);
      process.off('exit', end);
      const index = indexIn(order.progressPath);
      if (report || found.length >= MOST_FOUND) resolve({ report, found });
      else if (index === undefined || code === 2)
        reject(new Error(`The fuzzed process did not begin (${code ?? signal})`));
      else {
        const text = hung ? `no step in ${STUCK_MS / 1000} s` : `the process ended with ${code ?? signal}`;
        resolve({ report, found: [...found, { target: '', index, text, input: '' }] });
      }
    });
  });
}
