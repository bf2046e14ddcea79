/**
 * The hand-over in a simulated world, for as many seeds as DWCP_SIM_SEEDS says; and that a seed is a story: the same each time.
 */
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { tooFewArrivals } from './arrivals';
import { runSeeds } from './seeds';

const SEEDS = Number(process.env.DWCP_SIM_SEEDS ?? 2_000);
const FIRST = Number(process.env.DWCP_SIM_FIRST ?? 1);

test('no seed violates anything, and migrations arrive', async () => {
  const { found, arrivals } = await runSeeds({ first: FIRST, count: SEEDS });
  expect(
    found.map(({ seed, kind, text }) => `seed ${seed}: ${kind}: ${text}   (npm run bench -- sim --seed ${seed})`),
  ).toEqual([]);
  expect(tooFewArrivals(arrivals)).toEqual([]);
}, 3_600_000);

test('a product that moves hardly anything is found, and a few seeds are no product', () => {
  const arrivals = { running: { seeds: 160, arrived: 134 }, stopped: { seeds: 40, arrived: 39 } };
  expect(tooFewArrivals(arrivals)).toEqual([]);
  expect(tooFewArrivals({ ...arrivals, running: { seeds: 160, arrived: 80 } })).toHaveLength(1);
  expect(tooFewArrivals({ ...arrivals, stopped: { seeds: 40, arrived: 0 } })).toHaveLength(1);
  expect(tooFewArrivals({ running: { seeds: 8, arrived: 0 }, stopped: { seeds: 2, arrived: 0 } })).toEqual([]);
});

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
