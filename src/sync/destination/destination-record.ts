/**
 * What a destination has on record of a migration, where that lies, and what the migration works with on its host.
 */
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import type { GuestSetUp, VmActivator } from '../../hypervisor/contract';
import { guestDefinitionSchema, guestSpecSchema } from '../../model/guest';
import { guestConsolesSchema } from '../../model/guest-console';
import { hostIdSchema, migrationIdSchema, tenantSchema, vmIdSchema, vmTypeSchema, vmUuidSchema } from '../../model/ids';
import { imageSpecSchema, looksOf, MAX_VM_IMAGES } from '../../model/image';
import type { BaseStore } from '../../store/base-disks';
import type { BaselineStore } from '../../store/baselines';
import type { DictionaryStore } from '../../store/dictionaries';
import { readIfThere, writeDurably } from '../../store/durable-file';
import { removeDurably } from '../../store/durable-folder';
import { assertSameId, idPath } from '../../store/id-path';
import type { OwnershipJournal } from '../../store/ownership-journal';
import type { VmRecord, VmRegistry } from '../../store/vm-registry';
import { isDevicePath } from '../../system/block-device';
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
    .max(MAX_VM_IMAGES),
  /** What lies on the devices that its disks are put on may go, whatever it is. */
  overwriteDisks: z.boolean().optional(),
  /** A guest that does not run: how it is started here. */
  definition: guestDefinitionSchema.optional(),
  /** Where a guest's consoles are here. */
  consoles: guestConsolesSchema.optional(),
  /** A running guest: how its QEMU is started here, and how its memory lies in its image. */
  guest: z
    .strictObject({
      command: guestDefinitionSchema.shape.command,
      ramBlocks: guestSpecSchema.shape.ramBlocks,
      qmpPath: z.string().min(1),
      sharedFiles: guestSpecSchema.shape.sharedFiles,
      setUp: guestSpecSchema.shape.setUp,
      hardware: guestSpecSchema.shape.hardware.optional(),
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
  /** Hears that a guest runs here, at once. */
  readonly onStarted?: (record: DestinationRecord, resumedAtMs: number | undefined) => void;
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

export async function writeRecord(dataDir: string, record: DestinationRecord): Promise<void> {
  await writeDurably(recordFile(dataDir, record.migrationId), JSON.stringify(record, null, 1));
}

/** Unix time. */
export async function recordWrittenAtMs(dataDir: string, { migrationId }: DestinationRecord): Promise<number> {
  return (await stat(recordFile(dataDir, migrationId))).mtimeMs;
}

function recordFile(dataDir: string, migrationId: string): string {
  return join(recordFolder(dataDir, migrationId), 'record.json');
}

/** @returns undefined where there is none @throws what does not fit in it */
export async function readRecord(dataDir: string, migrationId: string): Promise<DestinationRecord | undefined> {
  const path = recordFile(dataDir, migrationId);
  const text = await readIfThere(path);
  if (!text) return undefined;
  const record = destinationRecordSchema.parse(JSON.parse(text.toString('utf8')));
  assertSameId(path, migrationId, record.migrationId);
  return record;
}

/** The VM as it is from now on. @param images those that it has here */
export function livingHere(record: DestinationRecord, images: DestinationRecord['images']): VmRecord {
  const { vmId, generation, guest } = record;
  const definition = guest ? { command: guest.command, qmpPath: guest.qmpPath } : record.definition;
  return {
    vmId,
    images: images.map(({ imageId, kind, path, sizeBytes }) => ({
      imageId,
      kind,
      path,
      ...(isDevicePath(path) && { sizeBytes }),
    })),
    presence: 'here',
    generation,
    ...looksOf(record),
    ...(definition && { guest: definition }),
  };
}

/** How the guest's stream began when it was looked at; undefined where that was not understood, or there is no running guest. */
export function setUpOf({ guest }: DestinationRecord): GuestSetUp | undefined {
  return guest?.setUp && { prefix: Buffer.from(guest.setUp.prefix, 'base64'), sectionId: guest.setUp.sectionId };
}
