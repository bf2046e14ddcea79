/**
 * What a migration may read of a VM at its source, as this host itself knows it: the registry says where images lie, the journal
 * whose the VM is. Workflows name images by id and never by path, and a migration that has no claim on the VM reads nothing of it;
 * a warm-up or a plan claims nothing, and reads what the registry has.
 */
import type { InspectedImage } from '../src/hypervisor/contract';
import type { LinkInput } from '../src/model/activity-inputs';
import { DwcpError } from '../src/model/errors';
import { MEMORY_IMAGE_ID } from '../src/model/guest';
import type { ImageSpec } from '../src/model/image';
import type { VmRecord } from '../src/store/vm-registry';
import type { FoundVm } from '../src/sync/source-hub';
import type { SourceDependencies } from './source-inputs';

export class SourceVms {
  readonly #parts: Pick<SourceDependencies, 'hub' | 'journal' | 'registry' | 'ownership'>;

  constructor(parts: Pick<SourceDependencies, 'hub' | 'journal' | 'registry' | 'ownership'>) {
    this.#parts = parts;
  }

  /** @throws ABANDONED where this migration has no claim on the VM, or none any more; FENCED where a newer one has come */
  async assertClaimed(vmId: string, migrationId: string): Promise<void> {
    const { journal } = this.#parts;
    const own = await journal.last(vmId, migrationId);
    if (own?.state !== 'claimed')
      throw new DwcpError(
        'ABANDONED',
        `Migration ${migrationId} has no claim on ${vmId} any more (${own?.state ?? 'none'})`,
        { side: 'source' },
      );
    if ((await journal.last(vmId))?.migrationId !== migrationId)
      throw new DwcpError('FENCED', `A newer migration of ${vmId} has been here`, { side: 'source' });
  }

  /** The VM, where this migration may read it. @throws as assertClaimed(); VM_UNKNOWN, VM_NOT_HERE */
  async readable({ vmId, migrationId, mode = 'migrate' }: LinkInput): Promise<VmRecord> {
    if (mode === 'migrate') await this.assertClaimed(vmId, migrationId);
    return this.#parts.registry.getHere(vmId);
  }

  /** An image by its own place on this host. @throws INVALID_INPUT for one that the VM does not have */
  locate<T extends ImageSpec>(vm: VmRecord, image: T): T & InspectedImage {
    return { ...image, path: this.#pathOf(vm, image) };
  }

  located<T extends ImageSpec>(vm: VmRecord, images: readonly T[]): (T & InspectedImage)[] {
    return images.map((image) => this.locate(vm, image));
  }

  /**
   * What this host has found of a running guest when it claimed it; found again by an agent that was not there then. Nobody
   * else may have its monitor.
   * @throws GUEST_LOST; IMAGE_CHANGED where it is not what the destination was prepared for
   */
  async guestOf(
    { vmId, migrationId, options }: LinkInput,
    images: readonly ImageSpec[],
  ): Promise<{ readonly images: readonly InspectedImage[]; readonly guest: NonNullable<FoundVm['guest']> }> {
    const { hub, ownership } = this.#parts;
    let found = hub.found(migrationId, vmId);
    if (!found) {
      // A look takes a guest that runs, and the agent before this one may have left it standing still.
      await ownership.resumeClaimed(vmId, migrationId);
      found = { vmId, ...(await ownership.inspect(vmId, options.force)) };
    }
    const { guest } = found;
    if (!guest) throw new DwcpError('GUEST_LOST', `The guest of ${vmId} has ended`, { side: 'source' });
    const own = images.map(({ imageId, sizeBytes }) => {
      const image = found.images.find((each) => each.imageId === imageId);
      if (image?.sizeBytes === sizeBytes) return image;
      throw new DwcpError('IMAGE_CHANGED', `Image ${imageId} of ${vmId} is not what it was when it was claimed`, {
        side: 'source',
      });
    });
    return { images: own, guest };
  }

  #pathOf(vm: VmRecord, { imageId, kind }: ImageSpec): string {
    const known = vm.images.find((image) => image.imageId === imageId && image.kind === kind);
    // A running guest's memory is no image of its own: it comes to the place where its RAM image is kept.
    const isMemory = vm.guest !== undefined && imageId === MEMORY_IMAGE_ID && kind === 'memory';
    if (known || isMemory) return known?.path ?? this.#parts.registry.imagePath(vm, vm.vmId, imageId);
    throw new DwcpError('INVALID_INPUT', `VM ${vm.vmId} has no ${kind} ${imageId} on this host`, { side: 'source' });
  }
}
