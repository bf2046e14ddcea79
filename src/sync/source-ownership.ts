/**
 * The source's half of the hand-over: claiming a VM for a migration, handing it over, releasing it or taking it back.
 * Each step is durable before its effect and may be asked for again. States: src/store/ownership-journal.ts.
 */
import { rm } from 'node:fs/promises';
import { DwcpError } from '../model/errors';
import { type GuestDefinition, type GuestSpec, MEMORY_IMAGE_ID, RamLayout, type StoppedGuest } from '../model/guest';
import { type VmImage } from '../model/image';
import type { BaselineStore } from '../store/baselines';
import { exists } from '../store/durable-file';
import type { Manifest } from '../store/manifest';
import { isOpenState, type OwnershipEntry, type OwnershipJournal } from '../store/ownership-journal';
import type { VmRecord, VmRegistry } from '../store/vm-registry';
import type { CodecPool } from './codec-pool';
import { measureFile } from './measure-file';

/** Keeps a VM from running, and lets it; the hypervisor's driver is one. */
export interface VmHolder {
  inspect(images: readonly VmImage[]): Promise<readonly InspectedImage[]>;
  hold(images: readonly VmImage[]): Promise<void>;
  resume(images: readonly VmImage[]): Promise<void>;
  isGuestUp(definition: GuestDefinition): boolean;
  inspectStopped(definition: GuestDefinition, disks: readonly VmImage[]): Promise<{ readonly images: readonly InspectedImage[]; readonly rawDisks: readonly string[] }>;
  inspectGuest(vmId: string, definition: GuestDefinition, images: readonly VmImage[], force: boolean): Promise<{ readonly spec: GuestSpec; readonly disks: readonly { readonly imageId: string; readonly sizeBytes: number }[] }>;
  /** Takes back what a migration did to a guest. @returns false where its QEMU is gone */
  resumeGuest(definition: GuestDefinition): Promise<boolean>;
  /** Ends the QEMU of a guest that does not run here any more. @throws GUEST_REFUSED where it runs */
  quitGuest(definition: GuestDefinition): Promise<void>;
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
  /** Set where a QEMU runs it: then it is moved while it runs. */
  readonly guest?: GuestSpec | undefined;
  /** Set where it is a guest that does not run. */
  readonly stoppedGuest?: StoppedGuest | undefined;
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
  async inspect(vmId: string, force = false): Promise<{ vm: VmRecord; images: readonly InspectedImage[]; guest?: GuestSpec | undefined; stoppedGuest?: StoppedGuest | undefined }> {
    const { registry, holder } = this.#context;
    const vm = await registry.getHere(vmId);
    const disks = vm.images.filter(({ kind }) => kind === 'disk');
    if (!vm.guest) return { vm, images: await holder.inspect(vm.images) };
    // What memory a stopped guest had is of the past.
    if (!holder.isGuestUp(vm.guest)) {
      const diskPaths = Object.fromEntries(disks.map(({ imageId, path }) => [imageId, path]));
      const { images, rawDisks } = await holder.inspectStopped(vm.guest, disks);
      return { vm, images, stoppedGuest: { command: vm.guest.command, diskPaths, rawDisks: [...rawDisks] } };
    }
    const { spec, disks: sizes } = await holder.inspectGuest(vmId, vm.guest, disks, force);
    const memory = { imageId: MEMORY_IMAGE_ID, kind: 'memory' as const, path: registry.imagePath(vm, vmId, MEMORY_IMAGE_ID), sizeBytes: new RamLayout(spec.ramBlocks).sizeBytes };
    const sized = disks.map((image) => ({ ...image, sizeBytes: sizes.find(({ imageId }) => imageId === image.imageId)?.sizeBytes ?? 0 }));
    return { vm, images: spec.notUnderstood === undefined ? [...sized, memory] : sized, guest: spec };
  }

  /**
   * Makes the VM this migration's: it does not run, or is a guest that is moved while it runs; no other migration gets it.
   * @throws VM_UNKNOWN, VM_NOT_HERE, VM_BUSY, VM_RUNNING, IMAGE_UNREADABLE
   */
  async claim(vmId: string, migrationId: string, force = false): Promise<ClaimedVm> {
    const { registry, ownership, holder } = this.#context;
    const mine = await ownership.last(vmId, migrationId);
    if (mine?.state === 'released') return { vm: await registry.get(vmId), images: [], fence: mine.fence, alreadyMoved: true };
    const last = await ownership.last(vmId);
    const open = last && isOpenState(last.state) ? last : undefined;
    if (open && open.migrationId !== migrationId) throw new DwcpError('VM_BUSY', `VM ${vmId} belongs to migration ${open.migrationId} (${open.state})`, { side: 'source' });
    const { vm, images, guest, stoppedGuest } = await this.inspect(vmId, force);
    if (open) return { vm, images, guest, stoppedGuest, fence: open.fence, alreadyMoved: false };
    if (!guest) await holder.hold(images);
    const claimed = await ownership.append(vmId, 'claimed', migrationId, (await ownership.fence(vmId)) + 1);
    return { vm, images, guest, stoppedGuest, fence: claimed.fence, alreadyMoved: false };
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
    const { registry, ownership, store, pool, holder } = this.#context;
    const last = await this.#own(vmId, migrationId);
    if (last.state === 'released') return;
    if (last.state !== 'handed_over') throw new DwcpError('ABANDONED', `Migration ${migrationId} of ${vmId} was rolled back here`, { side: 'source' });
    const known = await registry.get(vmId);
    if (known.guest && holder.isGuestUp(known.guest)) await holder.quitGuest(known.guest);
    const vm = known.guest ? withMemory(known, registry.imagePath(known, vmId, MEMORY_IMAGE_ID)) : known;
    for (const { imageId, kind, path } of vm.images) {
      if (!(await exists(path))) continue;
      const [inspected] = await this.#context.holder.inspect([{ imageId, kind, path }]);
      if (!inspected) continue;
      const sent = manifests.get(imageId);
      // A file of another form than its content (qcow2) stays where it is and is no baseline.
      if (sent && sent.sizeBytes !== inspected.sizeBytes && vm.guest) continue;
      const manifest = sent?.sizeBytes === inspected.sizeBytes ? sent : await measureFile(path, inspected.sizeBytes, pool);
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
    if (!vm.guest) return;
    await holder.resumeGuest(vm.guest);
    // What the stream had brought of its memory is at the destination; here it only takes space.
    await rm(registry.imagePath(vm, vmId, MEMORY_IMAGE_ID), { force: true });
  }

  async #own(vmId: string, migrationId: string): Promise<OwnershipEntry> {
    const last = await this.#context.ownership.last(vmId, migrationId);
    if (last) return last;
    throw new DwcpError('MIGRATION_UNKNOWN', `Migration ${migrationId} has no claim on ${vmId} on this host`, { side: 'source' });
  }
}

function withMemory(vm: VmRecord, path: string): VmRecord {
  if (vm.images.some(({ imageId }) => imageId === MEMORY_IMAGE_ID)) return vm;
  return { ...vm, images: [...vm.images, { imageId: MEMORY_IMAGE_ID, kind: 'memory', path }] };
}
