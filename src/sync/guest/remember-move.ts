/**
 * What the move of a running guest has come to, for the forecast of its next one. What cannot be written down is said and forgotten: no
 * move fails for it.
 */
import { messageOf } from '../../model/errors';
import { type GuestResult, MEMORY_IMAGE_ID } from '../../model/guest';
import type { ImageResult } from '../../model/migration';
import type { SourceContext } from '../source/source-context';

export interface MovedVm {
  readonly migrationId: string;
  readonly vmId: string;
  readonly destinationHost: string;
  /** What the rule of rounds had expected when the guest was let be paused. */
  readonly expectedDowntimeMs: number;
  readonly rttMs: number;
  /** What was measured of it before anything was sent. */
  readonly linkBytesPerSecond: number;
}

/** Never throws. */
export async function rememberMove(
  { moves, pool, explain }: SourceContext,
  { migrationId, vmId, destinationHost, expectedDowntimeMs, rttMs, linkBytesPerSecond }: MovedVm,
  { guest, images }: { readonly guest: GuestResult; readonly images: readonly ImageResult[] },
): Promise<void> {
  const memory = images.find(({ imageId }) => imageId === MEMORY_IMAGE_ID);
  if (!memory || guest.downtimeMs === undefined) return;
  const linkBytes = images.reduce((sum, image) => sum + image.linkBytes, 0);
  const encoderMs = images.reduce((sum, { encoder: { times } }) => sum + sumOf(times), 0);
  const linkSeconds = linkBytesPerSecond > 0 ? linkBytes / linkBytesPerSecond : 0;
  const row = {
    vmId,
    destinationHost,
    atMs: Date.now(),
    rttMs,
    expectedDowntimeMs,
    downtimeMs: Math.max(0, guest.downtimeMs),
    seconds: Math.max(...images.map(({ seconds }) => seconds)),
    leastSeconds: Math.max(linkSeconds, encoderMs / 1000 / pool.threads),
    memory: { began: memory.began, totalBytes: memory.totalBytes, linkBytes: memory.linkBytes },
  };
  await moves
    .add(row)
    .catch((error: unknown) => explain?.(migrationId, `what was learnt of the move is not kept: ${messageOf(error)}`));
}

function sumOf(times: ImageResult['encoder']['times']): number {
  return times.readMs + times.chooseMs + times.deltaMs + times.packMs;
}
