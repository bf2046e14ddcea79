/**
 * Images and VMs as data: what a VM consists of and how images are cut into blocks. No file is touched here.
 */
import { z } from 'zod';
import { imageIdSchema, imageKindSchema, tenantSchema, vmIdSchema, vmTypeSchema } from './ids';
import { KIB } from './units';

/** The unit of comparison, verification and journaling, for disks and memory alike. */
export const BLOCK_SIZE_BYTES = 64 * KIB;
/** The second level of the manifest: what is looked at inside a block that differs. */
export const PAGE_SIZE_BYTES = 4 * KIB;
/** Of what a disk's size is a multiple, whatever its file's is. */
export const SECTOR_BYTES = 512;
export const PAGES_PER_BLOCK = BLOCK_SIZE_BYTES / PAGE_SIZE_BYTES;

/** Disks and saved states, as a VM is defined by them. */
export const MAX_IMAGES = 64;

/** 8 TiB: keeps block numbers in 27 bits and every byte offset exact in a double. */
export const MAX_IMAGE_BYTES = 2 ** 43;

/** Fences and generations grow by one a migration: a VM that moves each second reaches this in 68 years. */
export const countSchema = z
  .int()
  .min(0)
  .max(2 ** 31 - 1);

/** Of a VM on its way: a running guest's memory goes beside what it is defined by. */
export const MAX_VM_IMAGES = MAX_IMAGES + 1;

export const imageSpecSchema = z.strictObject({
  imageId: imageIdSchema,
  kind: imageKindSchema,
  sizeBytes: z.int().min(1).max(MAX_IMAGE_BYTES),
});
export type ImageSpec = z.infer<typeof imageSpecSchema>;

/** What each image takes where it lies, without its holes; of some it is not known. */
export const allocatedBytesSchema = z
  .record(imageIdSchema, z.int().min(0).max(MAX_IMAGE_BYTES))
  .refine((images) => Object.keys(images).length <= MAX_VM_IMAGES, 'more images than a VM has');
export type AllocatedBytes = z.infer<typeof allocatedBytesSchema>;

export function blockCount(sizeBytes: number): number {
  return Math.ceil(sizeBytes / BLOCK_SIZE_BYTES);
}

/** Pages of all blocks of an image; those behind its end are counted. */
export function pagesOfBlocks(sizeBytes: number): number {
  return blockCount(sizeBytes) * PAGES_PER_BLOCK;
}

/** As QEMU sees a raw file of that size: up to a whole sector, the rest of it zeros. */
export function wholeSectors(bytes: number): number {
  return Math.ceil(bytes / SECTOR_BYTES) * SECTOR_BYTES;
}

/** Length of one block: the last of an image may be short. */
export function blockLength(sizeBytes: number, block: number): number {
  return Math.min(BLOCK_SIZE_BYTES, sizeBytes - block * BLOCK_SIZE_BYTES);
}

export const vmImageSchema = z.strictObject({
  imageId: imageIdSchema,
  kind: imageKindSchema,
  path: z.string().min(1).max(4096).startsWith('/', 'an image path is absolute'),
});

/** As a host keeps it. */
export const keptImageSchema = vmImageSchema.extend({
  /** Of a device that is larger: so much of it, from its beginning, is the image. */
  sizeBytes: imageSpecSchema.shape.sizeBytes.optional(),
});
export type VmImage = z.infer<typeof keptImageSchema>;

export const vmDefinitionSchema = z
  .strictObject({
    vmId: vmIdSchema,
    vmType: vmTypeSchema.optional(),
    tenant: tenantSchema.optional(),
    images: z.array(vmImageSchema).max(MAX_IMAGES),
  })
  .refine(
    (vm) => new Set(vm.images.map((image) => image.imageId)).size === vm.images.length,
    'two images of a VM have the same id',
  );
export type VmDefinition = z.infer<typeof vmDefinitionSchema>;

/** What a VM has in common with others, and what it is recognised by; it goes with the VM. */
export interface VmLooks {
  readonly vmType?: string;
  readonly tenant?: string;
  /** Not that of another VM of its name. */
  readonly uuid?: string;
}

export function looksOf({
  vmType,
  tenant,
  uuid,
}: {
  readonly [K in keyof VmLooks]?: VmLooks[K] | undefined;
}): VmLooks {
  return {
    ...(vmType !== undefined && { vmType }),
    ...(tenant !== undefined && { tenant }),
    ...(uuid !== undefined && { uuid }),
  };
}
