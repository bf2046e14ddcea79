/**
 * What the move of a running guest will take, and how long it will stand still: disks, memory, rounds and pause gone through with the
 * rule that ends the rounds (convergence.ts), on what was measured of its images, its writing, the link and the processors. Three
 * times: as measured, and with all that is uncertain to the better and to the worse, which is the range. Pure.
 *
 *   an image     slowness x max( bytes on the link / rate, the encoder's time )      of the level at which that is least
 *   time         set-up + ramp + disks + memory + rounds + pause + end    downtime = what the rule expects of the last round
 */
import { z } from 'zod';
import { type ConvergenceOptions, decideRound, MOST_THROTTLE } from './convergence';
import type { DirtyGrowth } from './dirty-growth';
import { PAGE_SIZE_BYTES } from './image';

/** One way to pack an image. */
export interface PackedAt {
  readonly level: number;
  readonly linkBytes: number;
  /** Of all threads that the host has left, as they are now. */
  readonly encodeSeconds: number;
}

export interface ImageLoad {
  readonly imageId: string;
  readonly kind: 'disk' | 'memory';
  readonly sizeBytes: number;
  /** At least one. */
  readonly ways: readonly PackedAt[];
  /** Of one standard error, the share of `linkBytes`: how much of the image was looked at. */
  readonly uncertain: number;
}

export interface GuestLoad {
  readonly images: readonly ImageLoad[];
  /** Memory that the guest changes, before encoding. */
  readonly dirty: DirtyGrowth;
  /** Bytes on the link for each of those. */
  readonly dirtyLinkShare: number;
  readonly rateBytesPerSecond: number;
  readonly rttMs: number;
  /** What comes before the first byte, as this plan has seen it. */
  readonly setUpSeconds: number;
  /** How much longer pauses have been than expected. */
  readonly downtimeFactor: number;
  /** How much longer moves have taken than link or encoder alone would. */
  readonly slowness: number;
  readonly options: ConvergenceOptions;
}

export const guestForecastSchema = z.object({
  seconds: z.number(),
  secondsLow: z.number(),
  secondsHigh: z.number(),
  downtimeMs: z.number(),
  downtimeMsLow: z.number(),
  downtimeMsHigh: z.number(),
  linkBytes: z.number(),
  rounds: z.number(),
  /** False where no round gets short enough for the pause allowed: it would park. */
  converges: z.boolean(),
  /** In a first second, before encoding. */
  dirtyBytesPerSecond: z.number(),
  rateBytesPerSecond: z.number(),
  /** That the source's host has left. */
  processors: z.number(),
  /** What it rests on, and what could not be measured; for people. */
  basis: z.array(z.string().max(400)).max(16),
});
export type GuestForecast = z.infer<typeof guestForecastSchema>;

/** One course of it. */
export interface Course {
  readonly seconds: number;
  readonly downtimeMs: number;
  readonly linkBytes: number;
  readonly rounds: number;
  readonly converges: boolean;
}

/** Streams open their windows: round trips until the link is full (docs/transport.md). */
const RAMP_ROUND_TRIPS = 10;
/** What QEMU's stream takes on its way into the RAM image, on the main thread (bench `ram-image`). */
const STREAM_BYTES_PER_SECOND = 700e6;
/** Between two looks at what is left: no round is shorter. */
const LOOK_SECONDS = 0.1;
/** Behind the pause: release, the result. */
const END_SECONDS = 0.5;
/** Of what a plan needs before it can begin: a move does part of it beside the transfer (bench forecast: 1.8 s of 3.6 s, 6.7 s of 16 s). */
const SET_UP_SHARE = 0.5;
const FIRST_THROTTLE = 0.2;
const FURTHER_THROTTLE = 0.1;
const MOST_ROUNDS = 100;
/** Beside what the sample says: the link and the processors of the minutes to come are not those of now. */
const LINK_UNCERTAIN = 0.1;
const DIRTY_UNCERTAIN = 0.3;
const DOWNTIME_UNCERTAIN = 0.2;

/** What of a load is otherwise than measured: shares of it. */
interface Otherwise {
  readonly link: number;
  readonly dirty: number;
  readonly errors: number;
}

const AS_MEASURED: Otherwise = { link: 1, dirty: 1, errors: 0 };
const BETTER: Otherwise = { link: 1 + LINK_UNCERTAIN, dirty: 1 - DIRTY_UNCERTAIN, errors: -1 };
const WORSE: Otherwise = { link: 1 - LINK_UNCERTAIN, dirty: 1 + DIRTY_UNCERTAIN, errors: 1 };

export function forecastGuest(
  load: GuestLoad,
  { processors, basis }: Pick<GuestForecast, 'processors' | 'basis'>,
): GuestForecast {
  const [course, best, worst] = [AS_MEASURED, BETTER, WORSE].map((otherwise) => courseOf(load, otherwise)) as [
    Course,
    Course,
    Course,
  ];
  return {
    seconds: course.seconds,
    secondsLow: Math.min(course.seconds, best.seconds),
    secondsHigh: Math.max(course.seconds, worst.seconds),
    downtimeMs: Math.round(course.downtimeMs),
    downtimeMsLow: Math.round(Math.min(course.downtimeMs, best.downtimeMs) * (1 - DOWNTIME_UNCERTAIN)),
    downtimeMsHigh: Math.round(Math.max(course.downtimeMs, worst.downtimeMs) * (1 + DOWNTIME_UNCERTAIN)),
    linkBytes: Math.round(course.linkBytes),
    rounds: course.rounds,
    converges: course.converges,
    dirtyBytesPerSecond: Math.round(load.dirty(1)),
    rateBytesPerSecond: Math.round(load.rateBytesPerSecond),
    processors,
    basis,
  };
}

/** The way that takes least, where the encoder has what the others leave it. */
function wayOf(
  { ways, uncertain }: ImageLoad,
  { rate, slowness, errors }: { readonly rate: number; readonly slowness: number; readonly errors: number },
): { readonly linkBytes: number; readonly seconds: number } {
  const factor = Math.max(0.1, 1 + errors * uncertain);
  const all = ways.map(({ linkBytes, encodeSeconds }) => ({
    linkBytes: linkBytes * factor,
    seconds: slowness * factor * Math.max(linkBytes / rate, encodeSeconds),
    chosenBy: Math.max(linkBytes / rate, slowness * encodeSeconds),
  }));
  return all.reduce((least, each) => (each.chosenBy < least.chosenBy ? each : least));
}

export function courseOf(load: GuestLoad, { link, dirty, errors }: Otherwise = AS_MEASURED): Course {
  const { images, rttMs, dirtyLinkShare, slowness, options } = load;
  const rate = Math.max(1, load.rateBytesPerSecond * link);
  let [seconds, linkBytes] = [0, 0];
  // Disks first, then memory: what the guest writes to its memory meanwhile goes with it anyway.
  for (const image of images.filter(({ kind }) => kind === 'disk')) {
    const way = wayOf(image, { rate, slowness, errors });
    seconds += way.seconds;
    linkBytes += way.linkBytes;
  }
  let roundSeconds = 0;
  for (const image of images.filter(({ kind }) => kind === 'memory')) {
    const way = wayOf(image, { rate, slowness, errors });
    roundSeconds += Math.max(way.seconds, image.sizeBytes / STREAM_BYTES_PER_SECOND);
    linkBytes += way.linkBytes;
  }
  let throttle = 0;
  let before: number | undefined;
  for (let round = 1; ; round += 1) {
    seconds += roundSeconds;
    const changedBytes = load.dirty(Math.max(LOOK_SECONDS, roundSeconds)) * dirty * (1 - throttle);
    const remainingBytes = changedBytes * dirtyLinkShare;
    const perSecond = load.dirty(1) * dirty * (1 - throttle) * dirtyLinkShare;
    const decision = decideRound(
      {
        round,
        remainingBytes,
        remainingPages: Math.ceil(changedBytes / PAGE_SIZE_BYTES),
        remainingBytesBefore: before,
        dirtyBytesPerSecond: perSecond,
        rateBytesPerSecond: rate,
        rttMs,
        throttle,
      },
      options,
    );
    linkBytes += remainingBytes;
    if (decision.next === 'switch over' || decision.next === 'cannot converge' || round >= MOST_ROUNDS) {
      const downtimeMs = decision.expectedDowntimeMs * load.downtimeFactor;
      const fixed = SET_UP_SHARE * load.setUpSeconds + END_SECONDS + (RAMP_ROUND_TRIPS * rttMs) / 1000;
      return {
        seconds: fixed + seconds + downtimeMs / 1000,
        downtimeMs,
        linkBytes,
        rounds: round,
        converges: decision.next === 'switch over',
      };
    }
    if (decision.next === 'throttle')
      throttle = Math.min(MOST_THROTTLE, throttle === 0 ? FIRST_THROTTLE : throttle + FURTHER_THROTTLE);
    before = remainingBytes;
    roundSeconds = LOOK_SECONDS + remainingBytes / rate;
  }
}
