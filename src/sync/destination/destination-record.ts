/**
 * What a destination has on record of a migration, where that lies, and what the migration works with on its host.
 */
import { join } from 'node:path';
import { z } from 'zod';
import type { VmActivator } from '../../hypervisor/contract';
import { guestDefinitionSchema, guestSpecSchema } from '../../model/guest';
import { hostIdSchema, migrationIdSchema, tenantSchema, vmIdSchema, vmTypeSchema, vmUuidSchema } from '../../model/ids';
import { imageSpecSchema, MAX_IMAGES } from '../../model/image';
import type { BaseStore } from '../../store/base-disks';
import type { BaselineStore } from '../../store/baselines';
import type { DictionaryStore } from '../../store/dictionaries';
import { removeDurably } from '../../store/durable-folder';
import { idPath } from '../../store/id-path';
import type { OwnershipJournal } from '../../store/ownership-journal';
import type { VmRegistry } from '../../store/vm-registry';
import type { CodecPool } from '../codec/codec-pool';
import type { Bookkeeping } from './bookkeeping';

/**
 * `migrate`: the VM changes hosts. `warm`: the images become a baseline, the VM stays. `direct`: the library's
 * adapter, images only, no VM changes hands.
 */
const MODES = ['migrate', 'warm', 'direct'] as const;

export type Mode = (typeof MODES)[number];

export const destinationRecordSchema = z.strictObject({
  migrationId: migrationIdSchema,
  vmId: vmIdSchema,
  vmType: vmTypeSchema.optional(),
  tenant: tenantSchema.optional(),
  uuid: vmUuidSchema.optional(),
  mode: z.enum(MODES),
  fence: z.int().min(0),
  generation: z.int().min(0),
  sourceHost: hostIdSchema,
  workflowId: z.string().max(1000).optional(),
  images: z
    .array(imageSpecSchema.extend({ path: z.string().min(1) }))
    .min(1)
    .max(MAX_IMAGES),
  /** A guest that does not run: how it is started here. */
  definition: guestDefinitionSchema.optional(),
  /** A running guest: how its QEMU is started here, and how its memory lies in its image. */
  guest: z
    .strictObject({
      command: guestDefinitionSchema.shape.command,
      ramBlocks: guestSpecSchema.shape.ramBlocks,
      qmpPath: z.string().min(1),
      sharedFiles: guestSpecSchema.shape.sharedFiles,
      setUp: guestSpecSchema.shape.setUp,
    })
    .optional(),
});

export type DestinationRecord = z.infer<typeof destinationRecordSchema>;

export interface DestinationContext {
  readonly dataDir: string;
  readonly store: BaselineStore;
  readonly ownership: OwnershipJournal;
  readonly registry: VmRegistry;
  readonly pool: CodecPool;
  readonly bookkeeping: Bookkeeping;
  readonly dictionaries: DictionaryStore;
  readonly bases: BaseStore;
  readonly activator: VmActivator;
}

export function migrationFolder(dataDir: string): string {
  return join(dataDir, 'incoming');
}

/** Where the record of one lies, and the journals of its images. */
export function recordFolder(dataDir: string, migrationId: string): string {
  return idPath(migrationFolder(dataDir), migrationId);
}

/** The record and what lies beside it; not there again after a crash. */
export async function removeRecord(dataDir: string, migrationId: string): Promise<void> {
  await removeDurably(recordFolder(dataDir, migrationId));
}
