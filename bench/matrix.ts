/**
 * `npm run bench -- matrix`: the whole crash matrix (test/system/crash-matrix.test.ts), as tables of states and faults, with the
 * log of the monitor that watched both QEMUs. It goes on where an earlier run of the same build was ended; --fresh begins anew,
 * DWCP_MATRIX_ONLY takes the cells whose name holds a text, --side-by-side 3 goes through as many at a time, each with hosts and a
 * Temporal of its own: most of a cell is waiting. `--cancels 40`: a cancel at so many moments of a move, and a
 * migration at once behind each (test/system/cancels.test.ts).
 */
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { appendFileSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { table } from '../src/cli/output';
import { numberOf } from './flags';
import { say } from './report';

const ROOT = join(__dirname, '..', '..');
const OUT = join(ROOT, 'bench', 'out');
const RESULTS = join(ROOT, 'bench', 'results');

interface Row {
  /** `what: state: faults` */
  readonly cell: string;
  readonly outcome: string;
  readonly ms: number;
}

interface Moment {
  readonly afterMs: number;
  readonly wholeMs: number;
  readonly outcome: string;
}

export async function benchMatrix(json: boolean, args: readonly string[]): Promise<void> {
  mkdirSync(OUT, { recursive: true });
  mkdirSync(RESULTS, { recursive: true });
  if (args.includes('--cancels')) return benchCancels(json, numberOf(args, '--cancels') || 40);
  const file = join(OUT, 'crash-matrix.jsonl');
  if (args.includes('--fresh') || !isOfThisBuild(file)) begin(file);
  const done = linesOf<Row>(file)
    .filter(({ outcome }) => !outcome.startsWith('FAILED'))
    .map(({ cell }) => cell);
  if (done.length > 0) say(`${done.length} cells are done already; --fresh begins anew`);
  const startedAt = performance.now();
  const sideBySide = args.includes('--side-by-side') ? numberOf(args, '--side-by-side') || 2 : 1;
  const codes = await Promise.all(
    Array.from({ length: sideBySide }, (_, index) =>
      jest('crash-matrix', {
        DWCP_MATRIX: 'full',
        DWCP_MATRIX_DONE: done.join('\n'),
        DWCP_MATRIX_SHARE: `${index}/${sideBySide}`,
      }),
    ),
  );
  // A cell that failed is gone through again by the next run: its last outcome counts.
  const rows = [...new Map(linesOf<Row>(file).map((row) => [row.cell, row])).values()];
  const failed = rows.filter(({ outcome }) => outcome.startsWith('FAILED'));
  const minutes = (ms: number): string => `${(ms / 60_000).toFixed(1)} min`;
  const allMs = rows.reduce((sum, { ms }) => sum + ms, 0);
  const text = `${tables(rows)}\n${rows.length} cells, ${failed.length} failed, ${minutes(allMs)} in all`;
  if (process.env.DWCP_MATRIX_ONLY === undefined) writeFileSync(join(RESULTS, 'crash-matrix.txt'), `${text}\n`);
  process.stdout.write(`${text}\n`);
  say(`this run: ${minutes(performance.now() - startedAt)}; the monitor's log: ${join(OUT, 'crash-matrix.log')}`);
  if (json)
    writeJson(
      'matrix',
      rows.map(({ cell, outcome, ms }) => ({ name: cell, outcome, seconds: ms / 1000, verified: isRight(outcome) })),
    );
  if (codes.some((code) => code !== 0) || failed.length > 0) throw new Error(`${failed.length} cells failed`);
}

async function benchCancels(json: boolean, moments: number): Promise<void> {
  const file = join(OUT, 'cancels.jsonl');
  rmSync(file, { force: true });
  const code = await jest('cancels', { DWCP_CANCELS: String(moments) });
  const rows = linesOf<Moment>(file);
  const text = table([
    ['cancelled after', 'first, then second'],
    ...rows.map(({ afterMs, outcome }) => [`${(afterMs / 1000).toFixed(2)} s`, outcome.slice(0, 120)]),
  ]);
  writeFileSync(
    join(RESULTS, 'cancels.txt'),
    `A whole move: ${((rows[0]?.wholeMs ?? 0) / 1000).toFixed(1)} s\n${text}\n`,
  );
  process.stdout.write(`${text}\n`);
  if (json)
    writeJson(
      'cancels',
      rows.map(({ afterMs, outcome }) => ({ name: `${afterMs} ms`, outcome, verified: isRight(outcome) })),
    );
  if (code !== 0)
    throw new Error(
      `${rows.filter(({ outcome }) => outcome.startsWith('FAILED')).length} of ${rows.length} did not arrive`,
    );
}

async function jest(pattern: string, env: Readonly<Record<string, string>>): Promise<number> {
  const args = [
    join(ROOT, 'node_modules', '.bin', 'jest'),
    '--selectProjects',
    'system',
    '--testPathPatterns',
    pattern,
  ];
  const child = spawn(process.execPath, args, {
    cwd: ROOT,
    env: { ...process.env, CI: 'true', DWCP_MATRIX_OUT: OUT, ...env },
    stdio: ['ignore', 'inherit', 'inherit'],
  });
  return new Promise((resolve) => child.once('close', (ended) => resolve(ended ?? 1)));
}

function linesOf<T>(file: string): T[] {
  if (!existsSync(file)) return [];
  return readFileSync(file, 'utf8')
    .split('\n')
    .filter((line) => line !== '' && !line.startsWith('{"build"'))
    .map((line) => JSON.parse(line) as T);
}

/** What a cell has shown of another build says nothing of this one. */
function isOfThisBuild(file: string): boolean {
  return existsSync(file) && readFileSync(file, 'utf8').startsWith(`${JSON.stringify({ build: buildHash() })}\n`);
}

function begin(file: string): void {
  rmSync(file, { force: true });
  rmSync(join(OUT, 'crash-matrix.log'), { force: true });
  appendFileSync(file, `${JSON.stringify({ build: buildHash() })}\n`);
}

function buildHash(): string {
  const hash = createHash('sha256');
  for (const folder of ['src', 'activities', 'workflows', 'test']) {
    const files = readdirSync(join(ROOT, 'dist', folder), { recursive: true, encoding: 'utf8' })
      .filter((name) => name.endsWith('.js'))
      .sort();
    for (const name of files) hash.update(name).update(readFileSync(join(ROOT, 'dist', folder, name)));
  }
  return hash.digest('hex').slice(0, 16);
}

/** One for each kind of move: faults down, states across. */
function tables(rows: readonly Row[]): string {
  const split = rows.map(({ cell, outcome }) => {
    const [what = '', state = '', fault = ''] = cell.split(': ');
    return { what, state, fault, outcome: outcome.startsWith('FAILED') ? 'FAILED' : outcome };
  });
  return [...new Set(split.map(({ what }) => what))]
    .map((what) => {
      const own = split.filter((each) => each.what === what);
      const faults = [...new Set(own.map(({ fault }) => fault))];
      const states = [...new Set(own.map(({ state }) => state))];
      const outcomeOf = (state: string, fault: string): string =>
        own.find((each) => each.state === state && each.fault === fault)?.outcome ?? '';
      const lines = faults.map((fault) => [fault, ...states.map((state) => outcomeOf(state, fault))]);
      return `${what}\n${table([['', ...states], ...lines])}`;
    })
    .join('\n');
}

function isRight(outcome: string): boolean {
  return !outcome.startsWith('FAILED');
}

function writeJson(bench: string, rows: readonly object[]): void {
  process.stdout.write(`${JSON.stringify({ bench, rows })}\n`);
}
