/**
 * Refreshes the dictionary of a VM type on hosts: of those listed, or of all that migrations have named. Each host trains on its
 * own VMs, each tenant's apart; a destination gets the version that a migration uses from its source. Started by a schedule for each type
 * (`dwcp dictionary schedule`), or by hand; a host that is away is left out and named.
 */
import { z } from 'zod';
import type { TrainResult } from '../src/model/dictionary-training';
import { hostIdSchema, vmTypeSchema } from '../src/model/ids';
import { onControl, onDictionaries } from './activity-proxies';
import { Authority } from './authority';
import { parseArgument, toCoded } from './failures';

const inputSchema = z.strictObject({ vmType: vmTypeSchema, hosts: z.array(hostIdSchema).max(1000) });
export type TrainInput = z.infer<typeof inputSchema>;

export async function trainDictionary(argument: TrainInput): Promise<TrainResult> {
  const { vmType, hosts } = parseArgument(inputSchema, argument);
  const listed =
    hosts.length > 0
      ? hosts
      : await onControl({ activityId: 'known-hosts', summary: 'Which hosts have migrations named?' }).knownHosts();
  const away: string[] = [];
  const reports = await Promise.all(
    listed.map(async (hostId) => {
      try {
        const authority = new Authority({ mode: 'upkeep', sourceHost: hostId });
        const call = {
          activityId: `train-${hostId}`,
          summary: `${hostId}: samples of its ${vmType} VMs, a dictionary, what it gains`,
        };
        const trained = await onDictionaries(hostId, call, authority).refreshDictionary({ vmType });
        return trained.map(({ of, name, kept, reason, version, gain, samples }) => ({
          hostId,
          ...(name !== undefined && { of: of === 'tenants' ? `tenant ${name}` : `VM ${name}` }),
          kept,
          reason,
          version: version?.version,
          gain,
          samples,
        }));
      } catch (error) {
        const coded = toCoded(error);
        away.push(`${hostId}: ${coded.code}: ${coded.message}`);
        return [];
      }
    }),
  );
  return { trained: reports.flat(), away };
}
