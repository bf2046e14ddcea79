/**
 * One agent a host id: two that take work from one queue would each do half of a migration. Told apart by the id of their data
 * folder, as Temporal shows who polls the queue.
 */
import type { Client } from '@temporalio/client';
import { temporal } from '@temporalio/proto';
import { DwcpError } from '../model/errors';
import { hostQueue } from '../model/names';
import type { HostParts } from './host';

/** A poll lasts a minute at most; one that has not been seen for longer is gone. */
const SEEN_LATELY_MS = 75_000;

export function identityOf(hostId: string): string {
  return `agent ${hostId}`;
}

/** @throws CONFIG_INVALID where an agent with another data folder takes work for this host id */
export async function assertAlone(
  { workflowService, options: { namespace } }: Client,
  { hostId, instance: { instanceId } }: Pick<HostParts, 'hostId' | 'instance'>,
): Promise<void> {
  const { pollers } = await workflowService.describeTaskQueue({
    namespace,
    taskQueue: { name: hostQueue(hostId) },
    taskQueueType: temporal.api.enums.v1.TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY,
  });
  const other = pollers.find(({ identity, lastAccessTime }) => {
    const seenMs = Number(lastAccessTime?.seconds ?? 0) * 1000;
    return (
      identity?.startsWith(`${identityOf(hostId)} `) &&
      !identity.endsWith(instanceId) &&
      Date.now() - seenMs < SEEN_LATELY_MS
    );
  });
  if (!other) return;
  throw new DwcpError(
    'CONFIG_INVALID',
    `Another agent takes work for host id ${hostId}, on another data folder: ${other.identity ?? ''}`,
    {
      hint:
        'Give each host an id of its own (--host-id); if that agent has just been stopped for good, wait ' +
        `${Math.ceil(SEEN_LATELY_MS / 1000)} s`,
    },
  );
}
