/**
 * Keeps copies of what has arrived beside a VM, after its migration: old bytes for deltas on the way back. A failure
 * here costs bytes next time, nothing else.
 */
import type { DestinationActivities } from '../activities';
import { onDestination } from './activity-proxies';

export interface KeepBaselinesInput {
  readonly vmId: string;
  readonly hostId: string;
  readonly imageIds: readonly string[];
}

export async function keepBaselines({
  vmId,
  hostId,
  imageIds,
}: KeepBaselinesInput): Promise<Awaited<ReturnType<DestinationActivities['keepBaselineCopies']>>> {
  const call = { activityId: 'keep-copies', summary: `${hostId}: clone or copy the images of ${vmId}` };
  return onDestination(hostId, 'courtesy', call).keepBaselineCopies({
    vmId,
    images: imageIds.map((imageId) => ({ imageId })),
  });
}
