/**
 * `npm run bench -- matrix`: the whole crash matrix (test/system/crash-matrix.test.ts), as a table of states and faults, with
 * the log of the monitor that watched both QEMUs. DWCP_MATRIX_ONLY takes the cells whose name holds a text.
 */
import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { table } from '../src/cli/output';
import { say } from './report';

const ROOT = join(__dirname, '..', '..');
const OUT = join(ROOT, 'bench', 'out');

export async function benchMatrix(json: boolean): Promise<void> {
  mkdirSync(OUT, { recursive: true });
  const args = [join(ROOT, 'node_modules', '.bin', 'jest'), '--selectProjects', 'system', '--testPathPatterns', 'crash-matrix'];
  const env = { ...process.env, CI: 'true', DWCP_MATRIX: 'full', DWCP_MATRIX_OUT: OUT };
  const child = spawn(process.execPath, args, { cwd: ROOT, env, stdio: ['ignore', 'inherit', 'inherit'] });
  const code = await new Promise<number>((resolve) => child.once('close', (ended) => resolve(ended ?? 1)));
  const file = join(OUT, 'crash-matrix.json');
  if (!existsSync(file)) throw new Error('the matrix has left no results');
  const results = JSON.parse(readFileSync(file, 'utf8')) as { cell: string; outcome: string }[];
  const text = matrixTable(results);
  mkdirSync(join(ROOT, 'bench', 'results'), { recursive: true });
  if (process.env.DWCP_MATRIX_ONLY === undefined) writeFileSync(join(ROOT, 'bench', 'results', 'crash-matrix.txt'), `${text}\n`);
  process.stdout.write(`${text}\n`);
  say(`the monitor's log: ${join(OUT, 'crash-matrix.log')}`);
  if (json) process.stdout.write(`${JSON.stringify({ bench: 'matrix', rows: results.map(({ cell, outcome }) => ({ name: cell, outcome, verified: !outcome.startsWith('FAILED') })) })}\n`);
  if (code !== 0) throw new Error(`${results.filter(({ outcome }) => outcome.startsWith('FAILED')).length} cells failed`);
}

/** States down, faults across. */
function matrixTable(results: readonly { cell: string; outcome: string }[]): string {
  const split = results.map(({ cell, outcome }) => ({ state: cell.slice(0, cell.indexOf(': ')), fault: cell.slice(cell.indexOf(': ') + 2), outcome: outcome.startsWith('FAILED') ? 'FAILED' : outcome }));
  const faults = [...new Set(split.map(({ fault }) => fault))];
  const states = [...new Set(split.map(({ state }) => state))];
  return table([['state', ...faults], ...states.map((state) => [state, ...faults.map((fault) => split.find((each) => each.state === state && each.fault === fault)?.outcome ?? '')])]);
}
