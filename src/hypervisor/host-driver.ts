/**
 * A host's driver: stopped VMs as image files, running guests through their QEMU. It knows where on this host a guest's
 * sockets and logs lie; what a migration does with a guest is decided elsewhere.
 */
import { mkdirSync } from 'node:fs';
import { DwcpError } from '../model/errors';
import { type GuestDefinition, type RamBlock, RamLayout } from '../model/guest';
import type { VmImage } from '../model/image';
import { ImageFilesDriver } from './image-files';
import { runPlaces } from './qemu/guest-command';
import { quitGuest } from './qemu/guest-process';
import { IncomingGuest } from './qemu/incoming-guest';
import { askAhead } from './qemu/preflight';
import { type InspectedGuest, resumeGuest, SourceGuest } from './qemu/source-guest';

export class HostDriver extends ImageFilesDriver {
  readonly #runFolder: (vmId: string) => string;

  /** @param runFolder where the sockets and logs of a VM's QEMU lie */
  constructor(runFolder: (vmId: string) => string) {
    super();
    this.#runFolder = runFolder;
  }

  isGuestUp(definition: GuestDefinition): boolean {
    return SourceGuest.isUp(definition);
  }

  /** @throws GUEST_LOST where its QEMU is gone */
  async connectGuest(vmId: string, definition: GuestDefinition): Promise<SourceGuest> {
    if (!SourceGuest.isUp(definition)) throw new DwcpError('GUEST_LOST', `The QEMU of ${vmId} has ended: nobody listens at ${definition.qmpPath}`, { side: 'source' });
    const folder = this.#runFolder(vmId);
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    return SourceGuest.connect(definition, runPlaces(folder));
  }

  async inspectGuest(vmId: string, definition: GuestDefinition, images: readonly VmImage[], force: boolean): Promise<InspectedGuest> {
    const guest = await this.connectGuest(vmId, definition);
    try {
      return await guest.inspect(images, force);
    } finally {
      guest.close();
    }
  }

  resumeGuest(definition: GuestDefinition): Promise<boolean> {
    return resumeGuest(definition);
  }

  async quitGuest(definition: GuestDefinition): Promise<void> {
    await quitGuest(definition.qmpPath);
    void askAhead(definition.command);
  }

  receiveGuest(vmId: string, command: readonly string[], ramBlocks: readonly RamBlock[]): IncomingGuest {
    return new IncomingGuest({ command, runFolder: this.#runFolder(vmId), layout: new RamLayout(ramBlocks) });
  }
}
