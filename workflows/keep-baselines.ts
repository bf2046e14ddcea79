/**
 * Keeps copies of what has arrived beside a VM, after its migration: old bytes for deltas on the way back. A failure
 * here costs bytes next time, nothing else.
 */
import { z } from 'zod';
import type { ActivityResult } from '../src/model/activity-results';
import { hostIdSchema, imageIdSchema, vmIdSchema } from '../src/model/ids';
import { MAX_VM_IMAGES } from '../src/model/image';
import { onDestination } from './activity-proxies';
import { Authority } from './authority';
import { parseArgument } from './failures';

const inputSchema = z.strictObject({
  vmId: vmIdSchema,
  hostId: hostIdSchema,
  imageIds: z.array(imageIdSchema).max(MAX_VM_IMAGES),
});
export type KeepBaselinesInput = z.infer<typeof inputSchema>;

export async function keepBaselines(argument: KeepBaselinesInput): Promise<ActivityResult<'keepBaselineCopies'>> {
  const { vmId, hostId, imageIds } = parseArgument(inputSchema, argument);
  const authority = new Authority({ mode: 'upkeep', sourceHost: hostId });
  const call = { activityId: 'keep-copies', summary: `${hostId}: clone or copy the images of ${vmId}` };
  return onDestination(hostId, 'courtesy', call, authority).keepBaselineCopies({
    vmId,
    images: imageIds.map((imageId) => ({ imageId })),
  });
}
