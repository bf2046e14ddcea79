/**
 * What DWCP asks of whatever holds a stopped VM. A driver knows how a VM's images are reached and how the VM is kept from
 * running; it knows nothing of links, baselines or Temporal. Every driver passes test/contract/hypervisor-driver.suite.ts.
 * Running guests: qemu/source-guest.ts and qemu/incoming-guest.ts, put beside it by host-driver.ts.
 */
import type { ImageSpec, VmImage } from '../model/image';

export interface InspectedImage extends ImageSpec {
  readonly path: string;
}

export interface HypervisorDriver {
  readonly name: string;

  /**
   * Says what the VM consists of now. Changes nothing.
   * @returns every image with its size, in the order given
   * @throws IMAGE_UNREADABLE where one cannot be opened for reading
   */
  inspect(images: readonly VmImage[]): Promise<readonly InspectedImage[]>;

  /**
   * Makes sure that nothing writes to the images until resume(). Idempotent.
   * On success the VM is stopped and stays so. On failure it is as it was before.
   * @throws VM_RUNNING where the driver cannot stop it
   */
  hold(images: readonly VmImage[]): Promise<void>;

  /** Undoes hold() at the source after a roll-back: the VM is as it was before the migration. Idempotent. */
  resume(images: readonly VmImage[]): Promise<void>;

  /**
   * Lets the VM live here; called on the destination, and only past the point of no return. Idempotent.
   * All images are complete and at their own places.
   */
  activate(images: readonly VmImage[]): Promise<void>;
}
