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
import { keptImageSchema, type VmImage } from '../model/image';
import { isDeviceBelow, isDevicePath } from '../system/block-device';
import { liesBelow } from '../system/open-beneath';
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
  images: z.array(keptImageSchema),
  presence: z.enum(['here', 'away']),
  /** Host it has moved to; only while away. */
  movedTo: hostIdSchema.optional(),
  /** Generation of its images: counts completed migrations. */
  generation: z.int().min(0),
  /** Where a QEMU runs it; without it the VM is a set of image files. */
  guest: guestDefinitionSchema.optional(),
});
export type VmRecord = z.infer<typeof recordSchema>;

/** In a data folder: where QEMUs make their sockets. */
export const RUN_FOLDER = 'run';
/** Beside the run folders, and no longer than they: sockets lie in both. */
export const TRY_FOLDER = 'try';

export class VmRegistry {
  readonly #folder: string;
  readonly #imagesFolder: string;

  readonly #runFolder: string;
  readonly #tryFolder: string;
  readonly #imageRoots: readonly string[];

  /** @param imageRoots folders that images may lie below, besides the data folder's; without any, wherever they were said to */
  constructor(dataDir: string, imageRoots: readonly string[] = []) {
    this.#imageRoots = imageRoots;
    this.#runFolder = join(dataDir, RUN_FOLDER);
    this.#tryFolder = join(dataDir, TRY_FOLDER);
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

  /** @throws VM_UNKNOWN, VM_NOT_HERE; CONFIG_INVALID as assertPlaces() */
  async getHere(vmId: string): Promise<VmRecord> {
    const record = await this.get(vmId);
    if (record.presence === 'here') {
      this.assertPlaces(record.images);
      return record;
    }
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

  /** Before an image is read or made there. @throws CONFIG_INVALID where one lies below none of this host's image roots */
  assertPlaces(images: readonly Pick<VmImage, 'path'>[]): void {
    if (this.#imageRoots.length === 0) return;
    const outside = images.find(({ path }) => !this.isInRoots(path) && !liesBelow(path, [this.#imagesFolder]));
    if (outside)
      throw new DwcpError('CONFIG_INVALID', `${outside.path} lies below none of this host’s imageRoots`, {
        hint: 'Put the image there, or name its folder',
      });
  }

  /** Whether this host's configuration names a folder, of files or of devices, for a place. */
  isInRoots(path: string): boolean {
    return isDevicePath(path) ? isDeviceBelow(path, this.#imageRoots) : liesBelow(path, this.#imageRoots);
  }

  /** Beside what a copy of an image is kept: itself, where it is a file. */
  copyPlace(vmId: string, { imageId, path }: Pick<VmImage, 'imageId' | 'path'>): string {
    return isDevicePath(path) ? this.ownPlace(vmId, imageId) : path;
  }

  /** Where images lie that nobody has said a place of. */
  get imagesFolder(): string {
    return this.#imagesFolder;
  }

  /** Where the sockets and logs of a VM's QEMU lie on this host. */
  runFolder(vmId: string): string {
    return idPath(this.#runFolder, vmId);
  }

  /** Where it is tried whether a VM would start here. */
  tryFolder(vmId: string): string {
    return idPath(this.#tryFolder, vmId);
  }

  /** Where an image lives on this host: its own place if the VM has been here, else one in this host's image folder. */
  imagePath(known: VmRecord | undefined, vmId: string, imageId: string): string {
    return known?.images.find((image: VmImage) => image.imageId === imageId)?.path ?? this.ownPlace(vmId, imageId);
  }

  /** In this host's image folder. */
  ownPlace(vmId: string, imageId: string): string {
    return idPath(idPath(this.#imagesFolder, vmId), imageId, '.img');
  }
}
