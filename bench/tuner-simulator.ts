/**
 * A link for tuners alone: what n streams of a given age bring on a path, from the published laws, with noise. Hundreds of
 * seconds in milliseconds; says what a rule does, not what a path does, which only `bench -- transport` does.
 *
 *   a stream       min( Mathis 1.22 MSS / (rtt sqrt p), window / rtt ), above that while slow start's momentum lasts
 *   all of them    min( sum, capacity x n / (n + competing streams) ) x what the host manages with n
 */
import type { LinkSample } from '../src/transport/measuring-window';
import type { StreamTuner } from '../src/transport/stream-tuner';

export interface Scenario {
  readonly name: string;
  readonly seconds: number;
  readonly rttMs: number;
  readonly capacityBytesPerSecond: (atSeconds: number) => number;
  /** 0 for a path without random loss; one stream fills it. */
  readonly loss: (atSeconds: number) => number;
  /** Paced by a model of the path: loss does not slow a stream down. */
  readonly bbr?: boolean;
  readonly windowBytes?: number;
  readonly competingStreams?: number;
  /** Share of the path's rate that the host manages with n streams. */
  readonly hostShare?: (streams: number) => number;
  /** Share of the time in which the source has nothing ready. */
  readonly sourceIdle?: (atSeconds: number) => boolean;
}

export interface Outcome {
  /** Delivered, of what the best fixed number would have delivered, which knows the path and settles at once. */
  readonly share: number;
  /** The same of the last 60 s. */
  readonly lastMinuteShare: number;
  readonly meanStreams: number;
  readonly lastStreams: number;
  readonly maxStreams: number;
}

const TICK_MS = 200;
const MSS_BYTES = 1448;
const MATHIS = 1.22;
/** Rate of a stream that has just left slow start, against what it keeps up. */
const MOMENTUM = 4;
const NOISE = 0.08;
const NOISE_CORRELATION = 0.8;

/** Numbers from 0 to 1, the same for the same seed (mulberry32). */
function randomFrom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

function normal(random: () => number): number {
  return Math.sqrt(-2 * Math.log(Math.max(1e-12, random()))) * Math.cos(2 * Math.PI * random());
}

/** What one settled stream keeps up at most. */
function streamRate(
  { rttMs, loss, bbr = false, windowBytes = Infinity, capacityBytesPerSecond }: Scenario,
  at: number,
): number {
  const mathis =
    loss(at) > 0 && !bbr ? (MATHIS * MSS_BYTES) / ((rttMs / 1000) * Math.sqrt(loss(at))) : capacityBytesPerSecond(at);
  return Math.min(mathis, windowBytes / (rttMs / 1000));
}

function together(scenario: Scenario, at: number, streams: number, sum: number): number {
  const { capacityBytesPerSecond, competingStreams = 0, hostShare = (): number => 1 } = scenario;
  return Math.min(sum, (capacityBytesPerSecond(at) * streams) / (streams + competingStreams)) * hostShare(streams);
}

/** What the best fixed number brings at a moment. */
function oracle(scenario: Scenario, at: number, most: number): number {
  let best = 0;
  for (let streams = 1; streams <= most; streams += 1)
    best = Math.max(best, together(scenario, at, streams, streams * streamRate(scenario, at)));
  return best;
}

export function simulate(scenario: Scenario, tuner: StreamTuner, most: number, seed: number): Outcome {
  const random = randomFrom(seed);
  const ages: number[] = [];
  let [arrivedBytes, bestBytes, lateBytes, lateBestBytes, noise, streamTicks, maxStreams] = [0, 0, 0, 0, 0, 0, 0];
  const ticks = (1000 * scenario.seconds) / TICK_MS;
  const bests = new Map<string, number>();
  const bestAt = (at: number): number => {
    const key = `${scenario.capacityBytesPerSecond(at)}/${scenario.loss(at)}`;
    const best = bests.get(key) ?? oracle(scenario, at, most);
    bests.set(key, best);
    return best;
  };
  for (let tick = 0; tick < ticks; tick += 1) {
    const at = (tick * TICK_MS) / 1000;
    const { rttMs } = scenario;
    while (ages.length < tuner.target) ages.push(0);
    ages.length = tuner.target;
    const settled = streamRate(scenario, at);
    const loss = scenario.loss(at);
    const momentumMs = loss > 0 && scenario.bbr !== true ? Math.min(10_000, rttMs / Math.sqrt(loss)) : 1;
    const sum = ages.reduce(
      (all, age) => all + settled * Math.min(1, age / (6 * rttMs)) * (1 + (MOMENTUM - 1) * Math.exp(-age / momentumMs)),
      0,
    );
    const idle = scenario.sourceIdle?.(at) ?? false;
    noise = NOISE_CORRELATION * noise + Math.sqrt(1 - NOISE_CORRELATION ** 2) * NOISE * normal(random);
    const bytes = idle ? 0 : Math.max(0, together(scenario, at, ages.length, sum) * (1 + noise)) * (TICK_MS / 1000);
    const best = idle ? 0 : bestAt(at) * (TICK_MS / 1000);
    arrivedBytes += bytes;
    bestBytes += best;
    if (at >= scenario.seconds - 60) [lateBytes, lateBestBytes] = [lateBytes + bytes, lateBestBytes + best];
    streamTicks += ages.length;
    maxStreams = Math.max(maxStreams, ages.length);
    for (let index = 0; index < ages.length; index += 1) ages[index] = (ages[index] ?? 0) + TICK_MS;
    const sample: LinkSample = {
      atMs: tick * TICK_MS,
      arrivedBytes,
      rttMs,
      lossRatio: loss > 0 ? loss : undefined,
      notTheStreams: idle,
    };
    tuner.observe(sample);
  }
  return {
    share: arrivedBytes / bestBytes,
    lastMinuteShare: lateBytes / lateBestBytes,
    meanStreams: streamTicks / ticks,
    lastStreams: tuner.target,
    maxStreams,
  };
}
