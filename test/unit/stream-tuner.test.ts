/** The tuner on simulated paths: what it finds, keeps up and leaves alone. */
import { SCENARIOS } from '../../bench/tuner-scenarios';
import { type Outcome, type Scenario, simulate } from '../../bench/tuner-simulator';
import { AdaptiveTuner } from '../../src/transport/stream-tuner';

const MOST = 256;
const SEEDS = [1, 2, 3, 4, 5];
/** Enough that a mean over them says something of the rule, not of the noise. */
const MANY_SEEDS = Array.from({ length: 20 }, (_, index) => index + 1);

function runs(scenario: Scenario, seeds: readonly number[]): Outcome[] {
  return seeds.map((seed) => simulate(scenario, new AdaptiveTuner({ initial: 8, min: 4, max: MOST }), MOST, seed));
}

function mean(outcomes: readonly Outcome[], pick: (outcome: Outcome) => number): number {
  return outcomes.reduce((sum, outcome) => sum + pick(outcome), 0) / outcomes.length;
}

test.each(SCENARIOS)(
  '$name: from eight streams to what the best fixed number gives, and it stays there',
  (scenario) => {
    const outcomes = runs(scenario, MANY_SEEDS);
    expect(mean(outcomes, ({ lastMinuteShare }) => lastMinuteShare)).toBeGreaterThan(0.94);
    expect(mean(outcomes, ({ share }) => share)).toBeGreaterThan(0.8);
  },
);

test('a path that one stream fills keeps its few streams', () => {
  const [clean] = SCENARIOS.filter(({ name }) => name.startsWith('clean'));
  for (const { maxStreams, lastStreams } of runs(clean!, SEEDS))
    expect([maxStreams <= 32, lastStreams <= 32]).toEqual([true, true]);
});

/** Drives the rule against a link that gives `goodput(n)` bytes a second at n streams. */
function drive(
  goodput: (streams: number) => number,
  seconds: number,
  extra: { lossRatio?: number; notTheStreams?: boolean; limitBytesPerSecond?: number; hostLimited?: boolean } = {},
): { targets: number[]; lines: string[] } {
  const lines: string[] = [];
  const tuner = new AdaptiveTuner({ initial: 8, min: 4, max: MOST }, (line) => lines.push(line));
  const targets: number[] = [];
  let arrivedBytes = 0;
  for (let atMs = 0; atMs < seconds * 1000; atMs += 200) {
    arrivedBytes += goodput(tuner.target) / 5;
    targets.push(tuner.observe({ atMs, arrivedBytes, rttMs: 50, notTheStreams: false, ...extra }));
  }
  return { targets, lines };
}

test('learns nothing while the source or the limit is the brake', () => {
  expect(new Set(drive((streams) => streams * 1e6, 30, { notTheStreams: true }).targets)).toEqual(new Set([8]));
});

test('climbs no further than the bandwidth limit, nor where the host itself is the brake', () => {
  expect(Math.max(...drive((streams) => Math.min(streams * 1e6, 8e6), 60, { limitBytesPerSecond: 8e6 }).targets)).toBe(
    8,
  );
  expect(Math.max(...drive((streams) => streams * 1e6, 60, { hostLimited: true }).targets)).toBe(8);
});

test('comes to few streams on a path that hardly loses, and leaves them alone on one that does', () => {
  const lastOf64 = (lossRatio: number): number => {
    const tuner = new AdaptiveTuner({ initial: 64, min: 4, max: MOST });
    let arrivedBytes = 0;
    let before = tuner.target;
    for (let atMs = 0; atMs < 58_000; atMs += 200) {
      // Half of the streams have not grown into the place of the others yet when they are looked at; a smaller step is not seen.
      const halved = tuner.target === 32 && before >= 64;
      if (tuner.target !== 32) before = tuner.target;
      arrivedBytes += (halved ? 20e6 : Math.min(tuner.target * 5e6, 40e6)) / 5;
      tuner.observe({ atMs, arrivedBytes, rttMs: 50, notTheStreams: false, lossRatio });
    }
    return tuner.target;
  };
  expect(lastOf64(1e-4)).toBeLessThanOrEqual(16);
  expect(lastOf64(1e-3)).toBeGreaterThanOrEqual(45);
});

test('leaves streams alone that the receive windows of the destination hold, and says so', () => {
  const lines: string[] = [];
  const lastOf64 = (windowLimitedShare: number): number => {
    const tuner = new AdaptiveTuner({ initial: 64, min: 4, max: MOST }, (line) => lines.push(line));
    let arrivedBytes = 0;
    for (let atMs = 0; atMs < 58_000; atMs += 200) {
      arrivedBytes += Math.min(tuner.target * 5e6, 40e6) / 5;
      tuner.observe({ atMs, arrivedBytes, rttMs: 50, notTheStreams: false, lossRatio: 1e-5, windowLimitedShare });
    }
    return tuner.target;
  };
  expect(lastOf64(0.05)).toBeLessThanOrEqual(16);
  expect(lines.some((line) => line.includes('receive windows'))).toBe(false);
  expect(lastOf64(0.4)).toBeGreaterThanOrEqual(64);
  expect(lines.some((line) => line.includes("held by the destination's receive windows for 40 % of the time"))).toBe(
    true,
  );
});

test('says each decision in one line, with its figures', () => {
  const { lines } = drive((streams) => Math.min(streams, 64) * 1e6, 60);
  expect(lines.slice(0, 3)).toEqual([
    '16 streams, 128.0 Mbit/s: tried',
    '32 streams, 256.0 Mbit/s: tried',
    '64 streams, 512.0 Mbit/s: tried',
  ]);
  expect(lines.some((line) => line.endsWith('confirmed'))).toBe(true);
});
