/**
 * Training dictionaries on the host that has the VMs: samples are read here and stay here; through Temporal goes what came
 * of it.
 */
import type { ActivityInput } from '../src/model/activity-inputs';
import { type BaselineListing, type BaselineStore, isOf } from '../src/store/baselines';
import { type DictionaryKey, type DictionaryStore, dictionaryKeyOf } from '../src/store/dictionaries';
import type { VmRecord, VmRegistry } from '../src/store/vm-registry';
import type { CodecPool } from '../src/sync/codec/codec-pool';
import { refreshDictionary, type TrainingReport } from '../src/sync/upkeep/train-dictionary';
import type { WarrantJudge } from '../src/trust/warrant-judge';
import { type AuditHeadNow, behindBorder } from './border';
import { withHeartbeat } from './heartbeat';

export interface DictionaryDependencies {
  readonly registry: VmRegistry;
  readonly store: BaselineStore;
  readonly dictionaries: DictionaryStore;
  readonly pool: CodecPool;
  /** Undefined where nobody proves anything (insecureDataPlane). */
  readonly judge: WarrantJudge | undefined;
  readonly auditHead?: AuditHeadNow | undefined;
}

export function createDictionaryActivities({
  registry,
  store,
  dictionaries,
  pool,
  judge,
  auditHead,
}: DictionaryDependencies) {
  return behindBorder(
    {
      /**
       * Samples the VMs of a type on this host, images and what is kept of their memory, and trains: for each tenant apart, and for
       * each VM without one.
       */
      refreshDictionary: async ({ vmType }: ActivityInput<'refreshDictionary'>): Promise<readonly TrainingReport[]> =>
        withHeartbeat(
          () => ({ doing: `training dictionaries for ${vmType}` }),
          async (signal) => {
            const known = (await registry.list()).filter((vm) => vm.vmType === vmType);
            const vms = await Promise.all(
              known.map((vm) => (vm.presence === 'here' ? registry.identify(vm.vmId) : Promise.resolve(vm))),
            );
            const baselines = await store.list();
            const reports: TrainingReport[] = [];
            for (const { key, of } of groupsOf(vms)) {
              signal.throwIfAborted();
              const paths = of.flatMap((vm) => pathsOf(vm, baselines));
              reports.push(await refreshDictionary(key, [...new Set(paths)], dictionaries, pool));
            }
            return reports;
          },
        ),
    },
    { side: 'source', judge, auditHead },
  );
}

export type DictionaryActivities = ReturnType<typeof createDictionaryActivities>;

/** VMs that may share a dictionary. */
function groupsOf(vms: readonly VmRecord[]): { readonly key: DictionaryKey; readonly of: VmRecord[] }[] {
  const groups = new Map<string, { key: DictionaryKey; of: VmRecord[] }>();
  for (const vm of vms) {
    const key = dictionaryKeyOf(vm);
    if (!key) continue;
    const name = `${key.of}/${key.name}`;
    const group = groups.get(name) ?? { key, of: [] };
    group.of.push(vm);
    groups.set(name, group);
  }
  return [...groups.values()];
}

/** What there is to sample of a VM: its images where it is here, and what is kept of it. Sealed pages are noise. */
function pathsOf(vm: VmRecord, baselines: readonly BaselineListing[]): string[] {
  const kept = baselines.filter((baseline) => baseline.vmId === vm.vmId && isOf(baseline, vm));
  return [
    ...(vm.presence === 'here' ? vm.images.map(({ path }) => path) : []),
    ...kept.flatMap(({ contentPath, seal }) => (contentPath === undefined || seal ? [] : contentPath)),
  ];
}
