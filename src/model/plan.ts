/**
 * The plan: what a migration is expected to send and take, from a measured link and a sample of each image, set beside
 * the standard transfer; and the verdict on its goals afterwards. Pure arithmetic.
 *
 *   expected link bytes = changed share x size x packed share
 *   expected time       = max( link bytes / min(bandwidth, limit), size / scan rate ) + a few round trips
 *   standard transfer   = (size - zeros) / what one TCP stream carries, which is the Mathis bound under a loss-based
 *                         controller: 1.22 x MSS / (rtt x sqrt(loss))     (Mathis et al. 1997)
 */
import { z } from 'zod';
import { type GuestForecast, guestForecastSchema } from './guest-forecast';
import type { LevelAndStreams, LinkMeasurement } from './tiers';

export interface ImageSample {
  readonly imageId: string;
  readonly sizeBytes: number;
  readonly began: 'empty' | 'baseline' | 'resumed';
  readonly sampledBlocks: number;
  readonly zeroBlocks: number;
  readonly unchangedBlocks: number;
  readonly changedBlocks: number;
  readonly changedBytes: number;
  readonly packedBytes: number;
}

export const imagePlanSchema = z.object({
  imageId: z.string(),
  sizeBytes: z.number(),
  kind: z.enum(['full', 'delta', 'resume']),
  zeroShare: z.number(),
  heldShare: z.number(),
  expectedLinkBytes: z.number(),
});
export type ImagePlan = z.infer<typeof imagePlanSchema>;

export const migrationPlanSchema = z.object({
  images: z.array(imagePlanSchema),
  expectedLinkBytes: z.number(),
  expectedSeconds: z.number(),
  /** A stopped VM has none; of a running one only its forecast knows. */
  expectedDowntimeSeconds: z.number(),
  standardSeconds: z.number(),
  expectedSpeedup: z.number(),
  /** Of a running guest that was looked at: a plan does, a migration does not wait for it. */
  forecast: guestForecastSchema.optional(),
});
export type MigrationPlan = z.infer<typeof migrationPlanSchema>;

/** What the workflow that only plans comes to. */
export interface PlanResult {
  readonly plan: MigrationPlan;
  readonly link: LinkMeasurement;
  readonly start: LevelAndStreams;
}

/** What two cores read and hash when nothing has to be sent; measured, bench "loopback". */
const SCAN_BYTES_PER_SECOND = 400e6;
const MSS_BYTES = 1448;
const FIXED_ROUND_TRIPS = 12;
/** Taken where the link showed no loss so far: one stream is then bounded by what the probe saw, not by Mathis. */
const NO_LOSS = 0;

export function planImage(sample: ImageSample): ImagePlan {
  const seen = Math.max(1, sample.sampledBlocks);
  const packedShare = sample.changedBytes === 0 ? 0 : sample.packedBytes / sample.changedBytes;
  const kinds = { empty: 'full', baseline: 'delta', resumed: 'resume' } as const;
  return {
    imageId: sample.imageId,
    sizeBytes: sample.sizeBytes,
    kind: kinds[sample.began],
    zeroShare: sample.zeroBlocks / seen,
    heldShare: sample.unchangedBlocks / seen,
    expectedLinkBytes: Math.round((sample.changedBlocks / seen) * sample.sizeBytes * packedShare),
  };
}

/** What one TCP stream carries on this link, bytes a second. */
export function singleStreamBytesPerSecond(link: LinkMeasurement, limitBytesPerSecond: number): number {
  const loss = link.lossRatio ?? NO_LOSS;
  const lossBased = !(link.congestionControl?.startsWith('bbr') ?? false);
  const mathis = loss > 0 && lossBased ? (1.22 * MSS_BYTES) / ((link.rttMs / 1000) * Math.sqrt(loss)) : Infinity;
  return Math.min(mathis, bandwidthWithin(link, limitBytesPerSecond));
}

function bandwidthWithin(link: LinkMeasurement, limitBytesPerSecond: number): number {
  const bandwidth = link.bandwidthBytesPerSecond > 0 ? link.bandwidthBytesPerSecond : 12.5e6;
  return limitBytesPerSecond > 0 ? Math.min(bandwidth, limitBytesPerSecond) : bandwidth;
}

export function planMigration(
  samples: readonly ImageSample[],
  link: LinkMeasurement,
  limitBytesPerSecond: number,
  forecast?: GuestForecast,
): MigrationPlan {
  const images = samples.map(planImage);
  const imageBytes = images.reduce((sum, image) => sum + image.expectedLinkBytes, 0);
  const expectedLinkBytes = forecast?.linkBytes ?? imageBytes;
  const sizeBytes = images.reduce((sum, image) => sum + image.sizeBytes, 0);
  const nonZeroBytes = images.reduce((sum, image) => sum + image.sizeBytes * (1 - image.zeroShare), 0);
  const expectedSeconds =
    forecast?.seconds ??
    Math.max(expectedLinkBytes / bandwidthWithin(link, limitBytesPerSecond), sizeBytes / SCAN_BYTES_PER_SECOND) +
      (FIXED_ROUND_TRIPS * link.rttMs) / 1000;
  const standardSeconds =
    nonZeroBytes / singleStreamBytesPerSecond(link, limitBytesPerSecond) + (4 * link.rttMs) / 1000;
  return {
    images,
    expectedLinkBytes,
    expectedSeconds,
    expectedDowntimeSeconds: (forecast?.downtimeMs ?? 0) / 1000,
    standardSeconds,
    expectedSpeedup: standardSeconds / expectedSeconds,
    ...(forecast && { forecast }),
  };
}

export interface GoalVerdict {
  readonly met: boolean;
  readonly reason: string;
}

/** Met or missed, and why, for one goal. */
export function judgeGoal(
  name: string,
  reached: number,
  wanted: number,
  format: (value: number) => string,
): GoalVerdict {
  const met = reached >= wanted;
  return { met, reason: `${name} ${format(reached)}, ${met ? 'at least' : 'below'} the goal of ${format(wanted)}` };
}
