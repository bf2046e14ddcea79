/**
 * When the memory rounds of a running guest end: one pure rule, asked after each round with what was measured. What
 * follows from its answer (a switchover, throttling, parking) is done elsewhere.
 *
 *   expected downtime = remaining / rate + what a switchover takes at any size
 *
 *   short enough?  few pages left, the last round allowed, or rounds no longer shrink -> switch over;  else another round
 *   too long?      the link gains on the guest -> another round;  may throttle -> throttle;  else cannot converge
 */
import { formatBitRate, formatBytes, formatDuration } from './units';

/** Measured with a link of no length: device state, both journals, `cont`. */
const SWITCHOVER_MS = 150;
const SWITCHOVER_ROUND_TRIPS = 3;
/** Of what a switchover takes at any size: what is left would lengthen the pause by less, and a further round takes longer than that. */
const HARDLY_LONGER = 1 / 3;
/** A round that leaves more than this share of what the round before left gains nothing worth its time. */
export const SHRINKS_BELOW = 0.8;
/** Of the rate: a guest that dirties less than this leaves a small part of a round for the next. */
const OUTRUN_SHARE = 0.2;
/** Above this share of the rate, what is dirtied meanwhile eats the round up. */
export const GAINS_BELOW = 0.9;
export const MOST_THROTTLE = 0.99;

export interface RoundMeasurement {
  /** Rounds that have ended, from 1. */
  readonly round: number;
  /** What is dirty now, as it will travel: after encoding. */
  readonly remainingBytes: number;
  readonly remainingPages: number;
  /** `remainingBytes` of the round before; undefined after the first. */
  readonly remainingBytesBefore?: number | undefined;
  /** How fast the guest makes such bytes, and how fast they are acknowledged. */
  readonly dirtyBytesPerSecond: number;
  readonly rateBytesPerSecond: number;
  readonly rttMs: number;
  /** Share of its processor time that the guest is kept from using, 0 to 1. */
  readonly throttle: number;
}

export interface ConvergenceOptions {
  readonly maxDowntimeMs: number;
  readonly memoryIterations: number;
  readonly dirtyPageThreshold: number;
  readonly mayThrottle: boolean;
}

export interface ConvergenceDecision {
  readonly next: 'another round' | 'switch over' | 'throttle' | 'cannot converge';
  readonly expectedDowntimeMs: number;
  /** For people: with the figures that decided. */
  readonly reason: string;
}

export function expectedDowntimeMs({
  remainingBytes,
  rateBytesPerSecond,
  rttMs,
}: Pick<RoundMeasurement, 'remainingBytes' | 'rateBytesPerSecond' | 'rttMs'>): number {
  const sending = remainingBytes === 0 ? 0 : (1000 * remainingBytes) / Math.max(1, rateBytesPerSecond);
  return SWITCHOVER_MS + SWITCHOVER_ROUND_TRIPS * rttMs + sending;
}

/** The pause is about as long as one with nothing left: a further round would take longer than what it saves. */
export function isHardlyLonger(measured: Parameters<typeof expectedDowntimeMs>[0]): boolean {
  return expectedDowntimeMs(measured) <= (1 + HARDLY_LONGER) * expectedDowntimeMs({ ...measured, remainingBytes: 0 });
}

export function decideRound(measured: RoundMeasurement, options: ConvergenceOptions): ConvergenceDecision {
  const downtimeMs = expectedDowntimeMs(measured);
  const decide = (next: ConvergenceDecision['next'], why: string): ConvergenceDecision => ({
    next,
    expectedDowntimeMs: downtimeMs,
    reason: `${why}: ${figures(measured, downtimeMs, options)}`,
  });
  const {
    round,
    remainingBytes,
    remainingPages,
    remainingBytesBefore,
    dirtyBytesPerSecond,
    rateBytesPerSecond,
    throttle,
  } = measured;
  // On a slow link a round may end with as much as the one before because it was looked at early; what counts is
  // whether the next one can be shorter.
  const outrun = dirtyBytesPerSecond <= OUTRUN_SHARE * rateBytesPerSecond;
  const shrinks = remainingBytesBefore === undefined || remainingBytes <= SHRINKS_BELOW * remainingBytesBefore;
  if (downtimeMs <= options.maxDowntimeMs) {
    if (remainingPages < options.dirtyPageThreshold) return decide('switch over', 'few pages are left');
    if (isHardlyLonger(measured)) return decide('switch over', 'the pause is hardly longer than with nothing left');
    if (round >= options.memoryIterations) return decide('switch over', 'the last round allowed is done');
    if (!shrinks && !outrun) return decide('switch over', 'rounds no longer shrink');
    return decide('another round', 'a further round shortens the pause');
  }
  const gains = dirtyBytesPerSecond < GAINS_BELOW * rateBytesPerSecond;
  if (gains && (shrinks || round < options.memoryIterations))
    return decide('another round', 'the pause would be too long, and the link gains on the guest');
  const why = gains
    ? 'further rounds would not make the pause short enough'
    : 'the guest dirties memory faster than the link carries it';
  if (options.mayThrottle && throttle < MOST_THROTTLE) return decide('throttle', why);
  return decide('cannot converge', why);
}

function figures(
  { remainingBytes, dirtyBytesPerSecond, rateBytesPerSecond, round }: RoundMeasurement,
  downtimeMs: number,
  { maxDowntimeMs }: ConvergenceOptions,
): string {
  return (
    `round ${round}, ${formatBytes(remainingBytes)} left, dirtied at ${formatBitRate(dirtyBytesPerSecond)}, sent ` +
    `at ${formatBitRate(rateBytesPerSecond)}, pause expected ${formatDuration(downtimeMs)} of at most ` +
    formatDuration(maxDowntimeMs)
  );
}
