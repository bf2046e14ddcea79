/**
 * Whether a running guest may be paused as far as its disks go: one pure rule, asked after each round of them with what the guest has
 * written meanwhile. Memory has a rule of its own (convergence.ts), and what both leave is looked at together before a pause.
 *
 *   short enough?  little is left, or rounds no longer shrink -> small enough;  else another round
 *   too long?      rounds shrink -> another round;  may slow its writes -> slow down;  the third that does not shrink -> cannot converge
 */
import { expectedDowntimeMs, GAINS_BELOW, SHRINKS_BELOW } from './convergence';
import { formatBitRate, formatBytes, formatDuration, MIB } from './units';

/** A round below this is left to the last one, with the guest stopped. */
export const SMALL_DISK_ROUND_BYTES = 2 * MIB;
/** Of the pause that is allowed: the rest is memory's, and what a switchover takes. */
const PAUSE_SHARE = 0.5;
/** Rounds one behind the other that do not shrink: a burst is no guest that outruns the link. */
const ROUNDS_STALLED = 3;
/** Of what the link carries: what a slowed guest may write, so that a round leaves a third to the next. */
const LEFT_TO_THE_NEXT = 0.3;
/** Below this a guest's file systems time out rather than slow down. */
const LEAST_WRITES_BYTES_PER_SECOND = 64 * 1024;

export interface DiskRoundMeasurement {
  /** Written since the round before began, as it lies on the disks and as it will travel: after encoding. */
  readonly writtenBytes: number;
  readonly wireBytes: number;
  /** `wireBytes` of the round before; undefined after the first. */
  readonly wireBytesBefore?: number | undefined;
  readonly seconds: number;
  /** How fast bytes are acknowledged. */
  readonly rateBytesPerSecond: number;
  readonly rttMs: number;
  /** Rounds before this one, one behind the other, that did not shrink. */
  readonly stalledBefore: number;
  /** What the guest may write to all its disks, as it is now; undefined where it is not slowed down. */
  readonly limitBytesPerSecond?: number | undefined;
}

export interface DiskRoundOptions {
  readonly maxDowntimeMs: number;
  readonly maySlowDown: boolean;
}

export interface DiskRoundDecision {
  readonly next: 'small enough' | 'another round' | 'slow down' | 'cannot converge';
  /** What is `stalledBefore` of the next. */
  readonly stalled: number;
  /** With `slow down`: what the guest may write from now on. */
  readonly limitBytesPerSecond?: number;
  /** For people: with the figures that decided. */
  readonly reason: string;
}

export function decideDiskRound(measured: DiskRoundMeasurement, options: DiskRoundOptions): DiskRoundDecision {
  const { writtenBytes, wireBytes, wireBytesBefore, seconds, rateBytesPerSecond, limitBytesPerSecond } = measured;
  const reason = figures(measured, options);
  const shrinks = wireBytesBefore === undefined || wireBytes <= SHRINKS_BELOW * wireBytesBefore;
  const isSmall = writtenBytes <= SMALL_DISK_ROUND_BYTES || !shrinks;
  if (fitsIntoAPause({ ...measured, remainingBytes: wireBytes }, options))
    return { next: isSmall ? 'small enough' : 'another round', stalled: 0, reason };
  if (shrinks && wireBytesBefore !== undefined) return { next: 'another round', stalled: 0, reason };
  const stalled = measured.stalledBefore + 1;
  const wireBytesPerSecond = wireBytes / Math.max(0.001, seconds);
  // One that writes over the same range again and again seems no faster than the link, whose rounds are as long as that range takes.
  if (stalled === 1 && wireBytesPerSecond < GAINS_BELOW * rateBytesPerSecond)
    return { next: 'another round', stalled, reason };
  if (options.maySlowDown) {
    const limit = limitFor(measured, wireBytesPerSecond);
    if (limitBytesPerSecond === undefined || limit < 0.9 * limitBytesPerSecond)
      return { next: 'slow down', stalled: 0, limitBytesPerSecond: limit, reason };
  }
  return { next: stalled < ROUNDS_STALLED ? 'another round' : 'cannot converge', stalled, reason };
}

/** What disks leave takes no more than their share of the pause. */
export function fitsIntoAPause(
  measured: Parameters<typeof expectedDowntimeMs>[0],
  { maxDowntimeMs }: Pick<DiskRoundOptions, 'maxDowntimeMs'>,
): boolean {
  const withoutMs = expectedDowntimeMs({ ...measured, remainingBytes: 0 });
  return expectedDowntimeMs(measured) - withoutMs <= PAUSE_SHARE * Math.max(0, maxDowntimeMs - withoutMs);
}

/** What is dirtied is blocks, and what is limited is writes: a guest that writes here and there is limited by what came of the last limit. */
function limitFor(
  { writtenBytes, wireBytes, rateBytesPerSecond, limitBytesPerSecond }: DiskRoundMeasurement,
  wireBytesPerSecond: number,
): number {
  const goal = LEFT_TO_THE_NEXT * rateBytesPerSecond;
  const share = writtenBytes === 0 ? 1 : wireBytes / writtenBytes;
  const limit =
    limitBytesPerSecond === undefined
      ? goal / Math.max(0.01, share)
      : limitBytesPerSecond * Math.min(0.5, goal / Math.max(1, wireBytesPerSecond));
  return Math.round(Math.max(LEAST_WRITES_BYTES_PER_SECOND, limit));
}

function figures(
  { wireBytes, seconds, rateBytesPerSecond, rttMs, limitBytesPerSecond }: DiskRoundMeasurement,
  { maxDowntimeMs }: DiskRoundOptions,
): string {
  const downtimeMs = expectedDowntimeMs({ remainingBytes: wireBytes, rateBytesPerSecond, rttMs });
  const slowed =
    limitBytesPerSecond === undefined ? '' : ` although its writes are held to ${formatBitRate(limitBytesPerSecond)}`;
  return (
    `the guest writes to its disks at ${formatBitRate(wireBytes / Math.max(0.001, seconds))}${slowed}, sent at ` +
    `${formatBitRate(rateBytesPerSecond)}, ${formatBytes(wireBytes)} left, pause expected ` +
    `${formatDuration(downtimeMs)} of at most ${formatDuration(maxDowntimeMs)}`
  );
}
