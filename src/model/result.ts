/**
 * The result of a migration from what its steps gave: sums, the speedup as measured, the verdict on the goals. Pure.
 */
import type { z } from 'zod';
import type { errorReportSchema } from './errors';
import type { GuestResult } from './guest';
import type { GuestConsole } from './guest-console';
import type { ImageResult, MigrationResult } from './migration';
import type { MigrationOptions } from './options';
import { judgeGoal, type MigrationPlan } from './plan';
import type { LinkMeasurement, TierName } from './tiers';
import { formatBytes } from './units';

export interface ResultParts {
  readonly identity: {
    readonly migrationId: string;
    readonly vmId: string;
    readonly sourceHost: string;
    readonly destinationHost: string;
  };
  readonly path: MigrationResult['path'];
  readonly fallbackReason?: z.infer<typeof errorReportSchema>;
  readonly tier?: TierName;
  readonly link?: LinkMeasurement;
  readonly plan?: MigrationPlan;
  readonly images: readonly ImageResult[];
  readonly guest?: GuestResult;
  readonly consoles?: readonly GuestConsole[];
  readonly totalSeconds: number;
  readonly options: MigrationOptions;
}

export function assembleResult({
  identity,
  path,
  fallbackReason,
  tier,
  link,
  plan,
  images,
  guest,
  consoles = [],
  totalSeconds,
  options,
}: ResultParts): MigrationResult {
  const { migrationId, vmId, sourceHost, destinationHost } = identity;
  const totalBytes = images.reduce((sum, image) => sum + image.totalBytes, 0);
  const linkBytes = images.reduce((sum, image) => sum + image.linkBytes, 0);
  const seconds = images.map((image) => image.seconds);
  // One image after the other; those of a running guest all at once.
  const transferSeconds = Math.max(0.001, guest ? Math.max(...seconds) : seconds.reduce((sum, each) => sum + each, 0));
  const speedup = path === 'dwcp' && plan ? plan.standardSeconds / transferSeconds : 1;
  return {
    migrationId,
    vmId,
    sourceHost,
    destinationHost,
    outcome: 'completed',
    path,
    ...(fallbackReason && { fallbackReason }),
    ...(tier && { tier }),
    ...(link && { link }),
    ...(plan && { plan }),
    images: [...images],
    ...(guest && { guest }),
    ...(consoles.length > 0 && { consoles: [...consoles] }),
    totalSeconds,
    totalBytes,
    linkBytes,
    ratio: totalBytes / Math.max(1, linkBytes),
    speedup,
    goals: {
      speedup: judgeGoal('speedup', speedup, options.targetSpeedup, (value) => `${value.toFixed(1)} times`),
      transferRate: judgeGoal(
        'transfer rate',
        totalBytes / transferSeconds,
        options.targetTransferRate,
        (value) => `${formatBytes(value)}/s`,
      ),
    },
  };
}
