/**
 * Tiers: what a measured link starts with. Starting points only; the level controller and the stream tuner move on
 * from them. Table: docs/transport.md.
 */
import { z } from 'zod';
import { clamp } from './units';

export type TierName = 'local' | 'regional' | 'global';

export interface Tier {
  readonly name: TierName;
  /** Highest zstd level that may be used; a lower one is taken where the processor does not keep up with the link. */
  readonly maxLevel: number;
  /** Where a transfer starts within, when nothing is known of the path. */
  readonly minStreams: number;
  readonly maxStreams: number;
}

/** `local` has the fastest levels only: what it sends may not wait for the processor. */
export const TIERS: Readonly<Record<TierName, Tier>> = {
  local: { name: 'local', maxLevel: 1, minStreams: 4, maxStreams: 16 },
  regional: { name: 'regional', maxLevel: 3, minStreams: 16, maxStreams: 64 },
  global: { name: 'global', maxLevel: 10, minStreams: 64, maxStreams: 256 },
};

/** The rungs that pay (docs/encoding.md, level): between them size and speed hardly differ. */
export const LEVEL_LADDER = [-5, -1, 1, 3, 6, 9, 10] as const;

/** Of one session. */
export const streamCountSchema = z.int().min(1).max(256);

export const linkMeasurementSchema = z
  .strictObject({
    rttMs: z.number().min(0).max(3_600_000),
    /** Bottleneck estimate in bytes a second; a lower bound when the probe was too short to fill the path. */
    bandwidthBytesPerSecond: z.number().min(0).max(1e15),
    /** Share of segments that the kernel sent again, 0 to 1; undefined where it cannot be seen. */
    lossRatio: z.number().min(0).max(100).optional(),
    congestionControl: z.string().max(40).optional(),
    /** How many streams the source's agent expects the path to need, and what makes it think so. */
    expectedStreams: streamCountSchema.optional(),
    expectedBecause: z.string().max(1000).optional(),
  })
  .readonly();
export type LinkMeasurement = z.infer<typeof linkMeasurementSchema>;

export function classifyTier(rttMs: number): Tier {
  if (rttMs < 10) return TIERS.local;
  return rttMs <= 50 ? TIERS.regional : TIERS.global;
}

export interface StreamBounds {
  readonly minStreams: number;
  readonly maxStreams: number;
  readonly initialStreams: number;
}

/** What zstd has. */
const levelSchema = z.int().min(-7).max(22);

export const levelAndStreamsSchema = z
  .strictObject({
    tier: z.enum(['local', 'regional', 'global']),
    /** False sends changed units as they are. */
    compress: z.boolean(),
    maxLevel: levelSchema,
    /** This level and no other: for measurements. */
    fixedLevel: levelSchema.optional(),
    minStreams: streamCountSchema,
    maxStreams: streamCountSchema,
    initialStreams: streamCountSchema,
    reason: z.string().max(2000),
  })
  .readonly();
export type LevelAndStreams = z.infer<typeof levelAndStreamsSchema>;

/** The `select_level` node: where the transfer starts, from the tier and what is expected of the path, within what the request allows. */
export function selectLevelAndStreams(
  link: LinkMeasurement,
  bounds: StreamBounds,
  compression: boolean,
): LevelAndStreams {
  const tier = classifyTier(link.rttMs);
  const { minStreams, maxStreams } = bounds;
  const initialStreams = clamp(
    link.expectedStreams ?? clamp(bounds.initialStreams, tier.minStreams, tier.maxStreams),
    minStreams,
    maxStreams,
  );
  return {
    tier: tier.name,
    compress: compression,
    maxLevel: tier.maxLevel,
    minStreams,
    maxStreams,
    initialStreams,
    reason:
      `${link.rttMs.toFixed(1)} ms round trip: ${tier.name} tier; ` +
      `${link.expectedBecause ?? 'nothing known of the path'}: ${initialStreams} streams to begin with`,
  };
}
