/**
 * `bench -- tuner`: the tuner and fixed numbers of streams on simulated paths, as shares of what the best fixed number would
 * have brought there. A rule is compared here in seconds; on a path, `bench -- wan` does it.
 */
import { table } from '../src/cli/output';
import { AdaptiveTuner, type StreamTuner } from '../src/transport/stream-tuner';
import { SCENARIOS } from './tuner-scenarios';
import { simulate } from './tuner-simulator';

const MIN = 4;
const MOST = 256;
const SEEDS = 10;

const RULES: Readonly<Record<string, () => StreamTuner>> = {
  'tuner from 8': () => new AdaptiveTuner({ initial: 8, min: MIN, max: MOST }),
  'tuner from 64': () => new AdaptiveTuner({ initial: 64, min: MIN, max: MOST }),
  ...Object.fromEntries(
    [4, 16, 64, 256].map((streams) => [`fixed ${streams}`, () => ({ target: streams, observe: () => streams })]),
  ),
};

const percent = (share: number): string => `${(100 * share).toFixed(1)} %`;

export function benchTuner(json: boolean): Promise<void> {
  const rows = Object.entries(RULES).flatMap(([rule, make]) =>
    SCENARIOS.map((scenario) => {
      const outcomes = Array.from({ length: SEEDS }, (_, seed) => simulate(scenario, make(), MOST, seed + 1));
      const mean = (pick: (outcome: (typeof outcomes)[number]) => number): number =>
        outcomes.reduce((sum, outcome) => sum + pick(outcome), 0) / SEEDS;
      return {
        name: `${rule} ${scenario.name}`,
        share: mean(({ share }) => share),
        lastMinuteShare: mean(({ lastMinuteShare }) => lastMinuteShare),
        streams: mean(({ meanStreams }) => meanStreams),
      };
    }),
  );
  const cells = rows.map(({ name, share, lastMinuteShare, streams }) => [
    name,
    percent(share),
    percent(lastMinuteShare),
    streams.toFixed(0),
  ]);
  process.stdout.write(`${table([['row', 'of the best', 'last minute', 'streams'], ...cells])}\n`);
  if (json) process.stdout.write(`${JSON.stringify({ bench: 'tuner', rows })}\n`);
  return Promise.resolve();
}
