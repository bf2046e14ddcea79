/**
 * The hand-over in a simulated world, for as many seeds as DWCP_SIM_SEEDS says; and that a seed is a story: the same each time.
 */
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { runSeeds } from './seeds';

const SEEDS = Number(process.env.DWCP_SIM_SEEDS ?? 2_000);
const FIRST = Number(process.env.DWCP_SIM_FIRST ?? 1);

test('no seed violates anything', async () => {
  const { found } = await runSeeds({ first: FIRST, count: SEEDS });
  expect(
    found.map(({ seed, kind, text }) => `seed ${seed}: ${kind}: ${text}   (npm run bench -- sim --seed ${seed})`),
  ).toEqual([]);
}, 3_600_000);

test('the same seed tells the same story', () => {
  const tell = (): string =>
    execFileSync(process.execPath, [join(__dirname, 'seeds-worker.js'), 'tell', '7', '-1', 'steps'], {
      encoding: 'utf8',
      maxBuffer: 2 ** 28,
    });
  const first = tell();
  expect(first.split('\n').length).toBeGreaterThan(500);
  expect(tell()).toBe(first);
}, 120_000);
