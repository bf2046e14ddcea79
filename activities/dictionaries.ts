/**
 * Training dictionaries on the host that has the VMs: samples are read here and stay here; through Temporal goes what came
 * of it.
 */
import type { ActivityInput } from '../src/model/activity-inputs';
import type { BaselineStore } from '../src/store/baselines';
import type { DictionaryStore } from '../src/store/dictionaries';
import type { VmRegistry } from '../src/store/vm-registry';
import type { CodecPool } from '../src/sync/codec/codec-pool';
import { refreshDictionary, type TrainingReport } from '../src/sync/upkeep/train-dictionary';
import { behindBorder } from './border';
import { withHeartbeat } from './heartbeat';

export interface DictionaryDependencies {
  readonly registry: VmRegistry;
  readonly store: BaselineStore;
  readonly dictionaries: DictionaryStore;
  readonly pool: CodecPool;
}

export function createDictionaryActivities({ registry, store, dictionaries, pool }: DictionaryDependencies) {
  return behindBorder(
    {
      /** Samples the VMs of a type on this host, images and what is kept of their memory, and trains. */
      refreshDictionary: async ({ vmType }: ActivityInput<'refreshDictionary'>): Promise<TrainingReport> =>
        withHeartbeat(
          () => ({ doing: `training a dictionary for ${vmType}` }),
          async () => {
            const vms = (await registry.list()).filter((vm) => vm.vmType === vmType);
            const ids = new Set(vms.map(({ vmId }) => vmId));
            // Sealed pages are noise.
            const baselines = (await store.list())
              .filter(({ vmId }) => ids.has(vmId))
              .flatMap(({ contentPath, seal }) => (contentPath === undefined || seal ? [] : contentPath));
            const images = vms
              .filter(({ presence }) => presence === 'here')
              .flatMap((vm) => vm.images.map(({ path }) => path));
            return refreshDictionary(vmType, [...new Set([...images, ...baselines])], dictionaries, pool);
          },
        ),
    },
    { side: 'source' },
  );
}

export type DictionaryActivities = ReturnType<typeof createDictionaryActivities>;
