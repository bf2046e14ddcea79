/**
 * Keeps the baselines of hosts within a limit, oldest first: of those listed, or of all that migrations have named.
 * Started by a schedule (src/control/schedules.ts); a host that is away is left out and named.
 */
import { z } from 'zod';
import { hostIdSchema } from '../src/model/ids';
import { onControl, onDestination } from './activity-proxies';
import { Authority } from './authority';
import { parseArgument, toCoded } from './failures';

/** limitBytes 0: each host's own limit. */
const inputSchema = z.strictObject({ hosts: z.array(hostIdSchema).max(1000), limitBytes: z.number().min(0) });
export type PruneInput = z.infer<typeof inputSchema>;

export interface PruneResult {
  readonly removed: readonly { readonly hostId: string; readonly baselines: readonly string[] }[];
  readonly away: readonly string[];
}

export async function pruneBaselines(argument: PruneInput): Promise<PruneResult> {
  const { hosts, limitBytes } = parseArgument(inputSchema, argument);
  const removed: { hostId: string; baselines: string[] }[] = [];
  const away: string[] = [];
  const listed =
    hosts.length > 0
      ? hosts
      : await onControl({ activityId: 'known-hosts', summary: 'Which hosts have migrations named?' }).knownHosts();
  for (const hostId of listed) {
    try {
      const authority = new Authority({ mode: 'upkeep', sourceHost: hostId });
      const call = { activityId: `prune-${hostId}`, summary: `${hostId}: remove the least recently used baselines` };
      const baselines = await onDestination(hostId, 'courtesy', call, authority).pruneBaselines({ limitBytes });
      removed.push({ hostId, baselines: baselines.map(({ vmId, imageId }) => `${vmId}/${imageId}`) });
    } catch (error) {
      away.push(`${hostId}: ${toCoded(error).code}`);
    }
  }
  return { removed, away };
}
