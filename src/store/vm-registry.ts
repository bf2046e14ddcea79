/**
 * The VMs a host knows: one JSON file each, with the images' places on this host and whether the VM lives here. A VM
 * that has moved away stays known, so that it comes back to its own places. Who may change what during a migration is
 * the ownership journal's matter.
 */
import { randomUUID } from 'node:crypto';
import { join } from 'node:path';
import { z } from 'zod';
import { DwcpError } from '../model/errors';
import { guestDefinitionSchema } from '../model/guest';
import { hostIdSchema, tenantSchema, vmIdSchema, vmTypeSchema, vmUuidSchema } from '../model/ids';
import { type VmImage, vmImageSchema } from '../model/image';
import { readIfThere, writeDurably } from './durable-file';
import { removeDurably } from './durable-folder';
import { assertSameId, idPath, idsIn } from './id-path';

const recordSchema = z.strictObject({
  vmId: vmIdSchema,
  /** VMs of one type share a dictionary. */
  vmType: vmTypeSchema.optional(),
  tenant: tenantSchema.optional(),
  uuid: vmUuidSchema.optional(),
  /** A guest may have none: then its memory is all there is to move. */
  images: z.array(vmImageSchema),
  presence: z.enum(['here', 'away']),
  /** Host it has moved to; only while away. */
  movedTo: hostIdSchema.optional(),
  /** Generation of its images: counts completed migrations. */
  generation: z.int().min(0),
  /** Where a QEMU runs it; without it the VM is a set of image files. */
  guest: guestDefinitionSchema.optional(),
});
export type VmRecord = z.infer<typeof recordSchema>;

export class VmRegistry {
  readonly #folder: string;
  readonly #imagesFolder: string;

  readonly #runFolder: string;

  constructor(dataDir: string) {
    this.#runFolder = join(dataDir, 'run');
    this.#folder = join(dataDir, 'vms');
    this.#imagesFolder = join(dataDir, 'images');
  }

  async find(vmId: string): Promise<VmRecord | undefined> {
    const path = idPath(this.#folder, vmId, '.json');
    const text = await readIfThere(path);
    if (!text) return undefined;
    const record = recordSchema.parse(JSON.parse(text.toString('utf8')));
    assertSameId(path, vmId, record.vmId);
    return record;
  }

  /** @throws VM_UNKNOWN */
  async get(vmId: string): Promise<VmRecord> {
    const record = await this.find(vmId);
    if (!record) throw new DwcpError('VM_UNKNOWN', `This host knows no VM ${vmId}`);
    return record;
  }

  /** @throws VM_UNKNOWN, VM_NOT_HERE */
  async getHere(vmId: string): Promise<VmRecord> {
    const record = await this.get(vmId);
    if (record.presence === 'here') return record;
    throw new DwcpError('VM_NOT_HERE', `VM ${vmId} has moved to ${record.movedTo ?? 'another host'}`);
  }

  /** As getHere(); one that an earlier release has put here gets its uuid now. */
  async identify(vmId: string): Promise<VmRecord> {
    const record = await this.getHere(vmId);
    if (record.uuid !== undefined) return record;
    await this.put(record);
    return this.get(vmId);
  }

  /** Without a uuid it is the VM that is known by this name, or a new one. */
  async put(given: VmRecord): Promise<void> {
    const known = given.uuid ?? (await this.find(given.vmId).catch(() => undefined))?.uuid;
    const record = { ...given, uuid: known ?? randomUUID() };
    await writeDurably(idPath(this.#folder, record.vmId, '.json'), JSON.stringify(recordSchema.parse(record), null, 1));
  }

  async remove(vmId: string): Promise<void> {
    await removeDurably(idPath(this.#folder, vmId, '.json'));
  }

  async list(): Promise<VmRecord[]> {
    const records = await Promise.all((await idsIn(this.#folder, '.json')).map((vmId) => this.find(vmId)));
    return records.flatMap((record) => record ?? []);
  }

  /** Where the sockets and logs of a VM's QEMU lie on this host. */
  runFolder(vmId: string): string {
    return idPath(this.#runFolder, vmId);
  }

  /** Where an image lives on this host: its own place if the VM has been here, else one in this host's image folder. */
  imagePath(known: VmRecord | undefined, vmId: string, imageId: string): string {
    return (
      known?.images.find((image: VmImage) => image.imageId === imageId)?.path ??
      idPath(idPath(this.#imagesFolder, vmId), imageId, '.img')
    );
  }
}
