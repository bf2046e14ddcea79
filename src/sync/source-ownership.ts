/**
 * The source's half of the hand-over: claiming a VM for a migration, handing it over, releasing it or taking it back.
 * Each step is durable before its effect and may be asked for again. States: src/store/ownership-journal.ts.
 */
import { access } from 'node:fs/promises';
import { DwcpError } from '../model/errors';
import { type VmImage } from '../model/image';
import type { BaselineStore } from '../store/baselines';
import type { Manifest } from '../store/manifest';
import { isOpenState, type OwnershipEntry, type OwnershipJournal } from '../store/ownership-journal';
import type { VmRecord, VmRegistry } from '../store/vm-registry';
import type { CodecPool } from './codec-pool';
import { measureFile } from './working-image';

/** Keeps a VM from running, and lets it; the hypervisor's driver is one. */
export interface VmHolder {
  inspect(images: readonly VmImage[]): Promise<readonly InspectedImage[]>;
  hold(images: readonly VmImage[]): Promise<void>;
  resume(images: readonly VmImage[]): Promise<void>;
}

export interface InspectedImage extends VmImage {
  readonly sizeBytes: number;
}

export interface ClaimedVm {
  readonly vm: VmRecord;
  readonly images: readonly InspectedImage[];
  readonly fence: number;
  /** True where this migration has moved the VM already: a workflow was reset behind the point of no return. */
  readonly alreadyMoved: boolean;
}

export interface SourceOwnershipContext {
  readonly registry: VmRegistry;
  readonly ownership: OwnershipJournal;
  readonly store: BaselineStore;
  readonly pool: CodecPool;
  readonly holder: VmHolder;
}

export class SourceOwnership {
  readonly #context: SourceOwnershipContext;

  constructor(context: SourceOwnershipContext) {
    this.#context = context;
  }

  /** The VM as it is, with sizes; changes nothing. @throws VM_UNKNOWN, VM_NOT_HERE, IMAGE_UNREADABLE */
  async inspect(vmId: string): Promise<{ vm: VmRecord; images: readonly InspectedImage[] }> {
    const vm = await this.#context.registry.getHere(vmId);
    return { vm, images: await this.#context.holder.inspect(vm.images) };
  }

  /**
   * Makes the VM this migration's: it does not run, and no other migration gets it.
   * @throws VM_UNKNOWN, VM_NOT_HERE, VM_BUSY, VM_RUNNING, IMAGE_UNREADABLE
   */
  async claim(vmId: string, migrationId: string): Promise<ClaimedVm> {
    const { registry, ownership, holder } = this.#context;
    const mine = await ownership.last(vmId, migrationId);
    if (mine?.state === 'released') return { vm: await registry.get(vmId), images: [], fence: mine.fence, alreadyMoved: true };
    const { vm, images } = await this.inspect(vmId);
    const last = await ownership.last(vmId);
    if (last && isOpenState(last.state)) {
      if (last.migrationId === migrationId) return { vm, images, fence: last.fence, alreadyMoved: false };
      throw new DwcpError('VM_BUSY', `VM ${vmId} belongs to migration ${last.migrationId} (${last.state})`, { side: 'source' });
    }
    await holder.hold(vm.images);
    const claimed = await ownership.append(vmId, 'claimed', migrationId, (await ownership.fence(vmId)) + 1);
    return { vm, images, fence: claimed.fence, alreadyMoved: false };
  }

  /** Says durably that the VM is handed over: from here on this host may not let it run by itself. @throws ABANDONED */
  async handOver(vmId: string, migrationId: string): Promise<OwnershipEntry> {
    const last = await this.#own(vmId, migrationId);
    if (last.state === 'handed_over' || last.state === 'released') return last;
    if (last.state !== 'claimed') throw new DwcpError('ABANDONED', `Migration ${migrationId} of ${vmId} was rolled back here`, { side: 'source' });
    return this.#context.ownership.append(vmId, 'handed_over', migrationId, last.fence);
  }

  /** The destination runs it: the images become baselines, the VM is away. */
  async release(vmId: string, migrationId: string, movedTo: string, generation: number, manifests: ReadonlyMap<string, Manifest>): Promise<void> {
    const { registry, ownership, store, pool } = this.#context;
    const last = await this.#own(vmId, migrationId);
    if (last.state === 'released') return;
    if (last.state !== 'handed_over') throw new DwcpError('ABANDONED', `Migration ${migrationId} of ${vmId} was rolled back here`, { side: 'source' });
    const vm = await registry.get(vmId);
    for (const { imageId, kind, path } of vm.images) {
      if (!(await exists(path))) continue;
      const [inspected] = await this.#context.holder.inspect([{ imageId, kind, path }]);
      if (!inspected) continue;
      const known = manifests.get(imageId);
      const manifest = known?.sizeBytes === inspected.sizeBytes ? known : await measureFile(path, inspected.sizeBytes, pool);
      await store.adopt(path, path, { vmId, imageId, kind, sizeBytes: inspected.sizeBytes, generation, complete: true }, manifest);
    }
    await registry.put({ ...vm, presence: 'away', movedTo, generation });
    await ownership.append(vmId, 'released', migrationId, last.fence);
  }

  /** After a warm-up: remembers the hashes that both sides hold, so that the next question needs no manifest. */
  async recordSent(vmId: string, images: readonly InspectedImage[], manifests: ReadonlyMap<string, Manifest>): Promise<void> {
    const vm = await this.#context.registry.getHere(vmId);
    for (const { imageId, kind, sizeBytes } of images) {
      const manifest = manifests.get(imageId);
      if (!manifest) continue;
      await this.#context.store.forget(vmId, imageId, false);
      await this.#context.store.put({ vmId, imageId, kind, sizeBytes, generation: vm.generation, complete: true }, manifest);
    }
  }

  /**
   * Takes the VM back: as it was before the migration.
   * @param destinationAbandoned the destination has promised durably not to start it; needed once it was handed over
   * @throws HANDOVER_IN_DOUBT where it was handed over and nothing is promised; ALREADY_PAST_RETURN after release
   */
  async rollBack(vmId: string, migrationId: string, destinationAbandoned: boolean, note?: string): Promise<void> {
    const { registry, ownership, holder } = this.#context;
    const last = await ownership.last(vmId, migrationId);
    if (!last || last.state === 'rolled_back') return;
    if (last.state === 'released') throw new DwcpError('ALREADY_PAST_RETURN', `VM ${vmId} has moved already`, { side: 'source' });
    if (last.state === 'handed_over' && !destinationAbandoned) {
      throw new DwcpError('HANDOVER_IN_DOUBT', `VM ${vmId} was handed over, and the destination has not promised to leave it`, { side: 'source' });
    }
    const vm = await registry.get(vmId);
    await ownership.append(vmId, 'rolled_back', migrationId, last.fence, note);
    await holder.resume(vm.images);
  }

  async #own(vmId: string, migrationId: string): Promise<OwnershipEntry> {
    const last = await this.#context.ownership.last(vmId, migrationId);
    if (last) return last;
    throw new DwcpError('MIGRATION_UNKNOWN', `Migration ${migrationId} has no claim on ${vmId} on this host`, { side: 'source' });
  }
}

async function exists(path: string): Promise<boolean> {
  return access(path).then(() => true, () => false);
}
