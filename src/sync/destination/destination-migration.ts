/**
 * One migration as its destination sees it: a record on disk, the working images, and the steps of the hand-over that
 * happen here. Every step may be asked for again and gives the same answer. Carries out DESTINATION_TABLE of
 * src/model/ownership-machine.ts: what changes who owns the VM happens inside the VM's lock.
 */
import { type FileHandle, open, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import type { SharedDictionary } from '../../encoder/trained-dictionary';
import { onAbort } from '../../model/abort';
import { DwcpError } from '../../model/errors';
import {
  guestDefinitionSchema,
  guestSpecSchema,
  MEMORY_IMAGE_ID,
  type RamBlock,
  ramBlockSchema,
  sharedFileSchema,
} from '../../model/guest';
import { hostIdSchema, migrationIdSchema, tenantSchema, vmIdSchema, vmTypeSchema } from '../../model/ids';
import { imageSpecSchema, looksOf } from '../../model/image';
import type { BaseStore } from '../../store/base-disks';
import type { BaselineStore } from '../../store/baselines';
import { readIfThere, writeDurably } from '../../store/durable-file';
import { removeDurably } from '../../store/durable-folder';
import type { DictionaryStore } from '../../store/dictionaries';
import {
  DESTINATION_TABLE,
  type DestinationEvent,
  type DestinationState,
  destinationState,
} from '../../model/ownership-machine';
import type { OwnershipJournal } from '../../store/ownership-journal';
import type { VmRegistry } from '../../store/vm-registry';
import { BaseOffer, type OfferedBase } from './base-offer';
import type { ReferenceSource } from '../codec/codec-jobs';
import type { CodecPool } from '../codec/codec-pool';
import {
  DestinationGuest,
  type GuestReceiver,
  NeverRan,
  type StartedGuest,
  type WholePlaces,
} from './destination-guest';
import { OwnStep } from '../hand-over/own-step';
import type { referencesSchema } from '../protocol';
import { sampleOf } from '../source/reference-sources';
import {
  installImage,
  installLinked,
  keepUnjournaled,
  linkInPlace,
  makeWorkFile,
  unlinkFromPlace,
} from './image-places';
import { removeJournal, WorkingImage, type WorkingImageParameters } from './working-image';

/**
 * `migrate`: the VM changes hosts. `warm`: the images become a baseline, the VM stays. `direct`: the library's
 * adapter, images only, no VM changes hands.
 */
export const MODES = ['migrate', 'warm', 'direct'] as const;
export type Mode = (typeof MODES)[number];

export const destinationRecordSchema = z.strictObject({
  migrationId: migrationIdSchema,
  vmId: vmIdSchema,
  vmType: vmTypeSchema.optional(),
  tenant: tenantSchema.optional(),
  mode: z.enum(MODES),
  fence: z.int().min(0),
  generation: z.int().min(0),
  sourceHost: hostIdSchema,
  workflowId: z.string().max(1000).optional(),
  images: z.array(imageSpecSchema.extend({ path: z.string().min(1) })).min(1),
  /** A guest that does not run: how it is started here. */
  definition: guestDefinitionSchema.optional(),
  /** A running guest: how its QEMU is started here, and how its memory lies in its image. */
  guest: z
    .strictObject({
      command: guestDefinitionSchema.shape.command,
      ramBlocks: z.array(ramBlockSchema),
      qmpPath: z.string().min(1),
      sharedFiles: z.array(sharedFileSchema),
      setUp: guestSpecSchema.shape.setUp,
    })
    .optional(),
});
export type DestinationRecord = z.infer<typeof destinationRecordSchema>;

type DestinationStep = OwnStep<DestinationState, DestinationEvent>;

/** Of one migration at a time. */
const MAX_DICTIONARIES = 4;

/** What makes a VM live on this host; the hypervisor's driver is one. */
export interface VmActivator {
  activate(images: DestinationRecord['images']): Promise<void>;
  /** Receives a running guest. */
  receiveGuest(vmId: string, command: readonly string[], ramBlocks: readonly RamBlock[]): GuestReceiver;
}

export interface DestinationContext {
  readonly dataDir: string;
  readonly store: BaselineStore;
  readonly ownership: OwnershipJournal;
  readonly registry: VmRegistry;
  readonly pool: CodecPool;
  readonly dictionaries: DictionaryStore;
  readonly bases: BaseStore;
  readonly activator: VmActivator;
}

export function migrationFolder(dataDir: string): string {
  return join(dataDir, 'incoming');
}

/** The record and what lies beside it; not there again after a crash. */
export async function removeRecord(dataDir: string, migrationId: string): Promise<void> {
  await removeDurably(join(migrationFolder(dataDir), migrationId));
}

export class DestinationMigration {
  readonly record: DestinationRecord;
  readonly #context: DestinationContext;
  readonly #open = new Map<string, Promise<WorkingImage>>();
  readonly #guest: DestinationGuest | undefined;
  #dictionaries: readonly SharedDictionary[] = [];
  readonly #bases: BaseOffer;
  /** What the source has named, and all that may be referred to. */
  #named: readonly ReferenceSource[] = [];
  #references: readonly ReferenceSource[] = [];
  readonly #sharedFiles = new Map<string, FileHandle>();
  #step: Promise<unknown> = Promise.resolve();
  #started: StartedGuest | undefined;
  /** No data is taken in any more: the VM has been taken over, or given up. */
  #closedToData = false;
  #takingOver = 0;
  /** Its record is gone, or going. */
  #forgotten = false;

  constructor(record: DestinationRecord, context: DestinationContext) {
    this.record = record;
    this.#context = context;
    const { guest, vmId, tenant } = record;
    this.#bases = new BaseOffer(context.bases, tenant ?? '');
    this.#guest =
      guest &&
      new DestinationGuest(this.#folder(), context.activator.receiveGuest(vmId, guest.command, guest.ramBlocks));
  }

  /** How the guest began to run here, where one did. */
  get started(): StartedGuest | undefined {
    return this.#started;
  }

  static async load(migrationId: string, context: DestinationContext): Promise<DestinationMigration | undefined> {
    const text = await readIfThere(join(migrationFolder(context.dataDir), migrationId, 'record.json'));
    return text && new DestinationMigration(destinationRecordSchema.parse(JSON.parse(text.toString('utf8'))), context);
  }

  async save(): Promise<void> {
    await writeDurably(join(this.#folder(), 'record.json'), JSON.stringify(this.record, null, 1));
  }

  /** When it was begun here; the Unix time. */
  async savedAtMs(): Promise<number> {
    return (await stat(join(this.#folder(), 'record.json'))).mtimeMs;
  }

  /** Before anything that a source sends is taken in. @throws ABANDONED where the VM is not promised any more */
  async assertTakesData(): Promise<void> {
    const { vmId, migrationId, mode } = this.record;
    const state =
      mode === 'migrate'
        ? destinationState((await this.#context.ownership.last(vmId, migrationId))?.state)
        : 'promised';
    if (!this.takesData || !DESTINATION_TABLE[state].takesData)
      throw new DwcpError(
        'ABANDONED',
        `Migration ${migrationId} of ${vmId} is "${state}" here (${DESTINATION_TABLE[state].meaning}): nothing of it is received any more`,
        { side: 'destination' },
      );
  }

  /** What writes an image: one such thing at a time, and none once the VM is not promised any more. @throws ABANDONED */
  takeIn<T>(work: () => Promise<T>): Promise<T> {
    return this.#inTurn(async () => {
      await this.assertTakesData();
      return work();
    });
  }

  get takesData(): boolean {
    return !this.#closedToData && this.#takingOver === 0;
  }

  /** The working image of an image, opened on first use; one that a full disk has stopped is opened anew. */
  async image(imageId: string, useBaseline: boolean): Promise<WorkingImage> {
    const before = this.#open.get(imageId);
    const known = await before?.catch(() => undefined);
    if (this.#open.get(imageId) !== before) return this.image(imageId, useBaseline);
    if (known && !known.failed) return known;
    if (this.#forgotten)
      throw new DwcpError(
        'ABANDONED',
        `Migration ${this.record.migrationId} is over here: nothing of it is opened any more`,
        { side: 'destination' },
      );
    const opening = this.#openAnew(imageId, useBaseline, known);
    this.#open.set(imageId, opening);
    return opening;
  }

  async #openAnew(imageId: string, useBaseline: boolean, failed: WorkingImage | undefined): Promise<WorkingImage> {
    await failed?.close();
    const image = await WorkingImage.open(
      this.parametersOf(imageId, useBaseline),
      this.#context.store,
      this.#context.pool,
    );
    image.unpacksWith(this.#dictionaries);
    image.refersTo(this.#references);
    return image;
  }

  /** The image of a number that the source uses in batches; undefined while it is not open. */
  async imageByNumber(number: number): Promise<WorkingImage | undefined> {
    const spec = this.record.images[number];
    return spec && this.#open.get(spec.imageId);
  }

  parametersOf(imageId: string, useBaseline: boolean): WorkingImageParameters {
    const spec = this.record.images.find((image) => image.imageId === imageId);
    if (!spec)
      throw new DwcpError('PROTOCOL_VIOLATION', `Migration ${this.record.migrationId} has no image ${imageId}`, {
        side: 'destination',
      });
    const { path: imagePath, ...image } = spec;
    const journalPath = join(this.#folder(), `${imageId}.journal`);
    return {
      migrationId: this.record.migrationId,
      vmId: this.record.vmId,
      image,
      imagePath,
      journalPath,
      useBaseline,
      live: this.record.guest !== undefined,
    };
  }

  /**
   * What the source may refer to from now on: images that are open, and files that this migration names and that are the same here.
   * @returns for each file whether it is
   */
  async referTo({ disks, files }: z.infer<typeof referencesSchema>): Promise<boolean[]> {
    const found = await Promise.all(
      files.map(async (file) =>
        this.record.guest?.sharedFiles.some(({ path }) => path === file.path) ? this.#sameFile(file) : undefined,
      ),
    );
    const sources: ReferenceSource[] = found.filter((source) => source !== undefined);
    for (const { image, from } of disks) {
      const open = await this.imageByNumber(image);
      if (open) sources.push({ fd: open.fd, sizeBytes: open.held.sizeBytes, from });
    }
    await this.#refer(sources);
    return found.map((source) => source !== undefined);
  }

  /** Bases of this host that look like what is going to come; what is referred to them may come from now on. */
  async offerBases(sample: Buffer): Promise<readonly OfferedBase[]> {
    const offered = await this.#bases.offer(sample);
    await this.#refer(this.#named);
    return offered;
  }

  hasBases(): Promise<boolean> {
    return this.#bases.hasAny();
  }

  basePages(name: string): Promise<Buffer | undefined> {
    return this.#bases.pagesOf(name);
  }

  async #refer(named: readonly ReferenceSource[]): Promise<void> {
    this.#named = named;
    this.#references = [...named, ...this.#bases.offered.map(({ source }) => source)].sort((a, b) => a.from - b.from);
    for (const opening of this.#open.values()) (await opening).refersTo(this.#references);
  }

  /** Frames of this migration may be packed with it from now on. */
  async activate(dictionary: SharedDictionary): Promise<void> {
    if (!this.#dictionaries.some(({ id }) => id === dictionary.id))
      this.#dictionaries = [...this.#dictionaries, dictionary].slice(-MAX_DICTIONARIES);
    for (const opening of this.#open.values()) (await opening).unpacksWith(this.#dictionaries);
  }

  /** All images are open: the guest's QEMU is started and fed what is held of its memory before anything is sent. Idempotent. */
  async beginGuestAhead(): Promise<void> {
    const setUp = this.record.guest?.setUp;
    if (!setUp || this.#guest?.begun) return;
    const open = await Promise.all(
      this.record.images.map(async ({ imageId }) => this.#open.get(imageId)?.catch(() => undefined)),
    );
    if (!open.every((image) => image && !image.failed)) return;
    await this.#beginGuest(Buffer.from(setUp.prefix, 'base64'), setUp.sectionId, true);
  }

  /** The set-up of a running guest: its QEMU is started and fed from now on. All its images are open. */
  beginGuest(prefix: Buffer, sectionId: number): Promise<void> {
    return this.#beginGuest(prefix, sectionId, false);
  }

  /** @param ahead nothing is done where somebody has begun it meanwhile */
  #beginGuest(prefix: Buffer, sectionId: number, ahead: boolean): Promise<void> {
    return this.takeIn(async () => {
      if (ahead && this.#theGuest.begun) return;
      await this.#theGuest.forgetState();
      for (const { imageId, path } of this.record.images) if (imageId !== MEMORY_IMAGE_ID) await linkInPlace(path);
      this.#theGuest.begin(prefix, sectionId, await this.image(MEMORY_IMAGE_ID, true));
    });
  }

  /** What a guest's QEMU has not been given yet of its memory. */
  get guestLeftBytes(): number {
    return this.#theGuest.leftBytes;
  }

  /** All images of a guest are verified: its device state is loaded. Idempotent. @param signal the source has given it up: nobody waits for QEMU any more */
  loadGuest(commands: Buffer, devices: Buffer, signal: AbortSignal): Promise<void> {
    return this.#inTurn(async () => {
      signal.throwIfAborted();
      const stopListening = onAbort(signal, () => this.#theGuest.breakOff());
      try {
        await this.#theGuest.load(commands, devices);
      } finally {
        stopListening();
      }
    });
  }

  /** The standard transfer of a running guest begins: its QEMU receives it by its own means, onto empty disks. */
  receiveWholeGuest(): Promise<void> {
    return this.#inTurn(async () => {
      await this.assertTakesData();
      const disks = new Map<string, string>();
      await this.#theGuest.discard();
      for (const { path } of this.record.images) await unlinkFromPlace(path);
      await this.#keepAll();
      for (const { imageId, kind, path, sizeBytes } of this.record.images) {
        if (kind !== 'disk') continue;
        await makeWorkFile(path, sizeBytes);
        await linkInPlace(path);
        disks.set(path, imageId);
      }
      await this.#theGuest.receiveWhole(disks);
    });
  }

  /** Its QEMU has it, disks and all. Idempotent. */
  loadWholeGuest(): Promise<void> {
    return this.#inTurn(() => this.#theGuest.loadWhole());
  }

  /** Where a guest that comes by QEMU's own means is let in. @throws PROTOCOL_VIOLATION where none does */
  get wholePlaces(): WholePlaces {
    const places = this.#theGuest.wholePlaces;
    if (!places)
      throw new DwcpError('PROTOCOL_VIOLATION', `No QEMU waits for the guest of migration ${this.record.migrationId}`, {
        side: 'destination',
      });
    return places;
  }

  /** Closes a working image so that the standard transfer can write its file. */
  async yieldImage(imageId: string): Promise<void> {
    const image = await this.#open.get(imageId)?.catch(() => undefined);
    this.#open.delete(imageId);
    await image?.close();
  }

  /**
   * Takes the VM over: past this the source may never resume. All images are verified, with the roots given.
   * @param dataEnded waits for what is being taken in
   * @throws FENCED, INTEGRITY_MISMATCH, and then nothing has changed; ABANDONED where it will never be started here
   */
  async takeOver(roots: Readonly<Record<string, string>>, dataEnded: () => Promise<void>): Promise<void> {
    // What is looked at stays as it is: nothing new is taken in from here on, unless the look says no.
    this.#takingOver += 1;
    try {
      await dataEnded();
      await this.#exclusively(async (own) => {
        own.assert('take_over');
        if (own.state === 'installed') return;
        if (own.state === 'promised') await this.#becomeMine(own, roots);
        await this.#install(own);
      });
    } finally {
      this.#takingOver -= 1;
    }
  }

  async #becomeMine(own: DestinationStep, roots: Readonly<Record<string, string>>): Promise<void> {
    const { fence, images } = this.record;
    if ((await own.vm.fence()) > fence)
      throw new DwcpError('FENCED', `A newer migration of ${own.vm.vmId} has been here`, { side: 'destination' });
    const whole = await this.#guest?.cameWhole();
    if (!whole) await Promise.all(images.map(({ imageId }) => this.#assertVerified(imageId, roots[imageId])));
    const memoryRoot = this.#guest && !whole ? roots[MEMORY_IMAGE_ID] : undefined;
    await this.#guest?.ensureLoaded(() => this.image(MEMORY_IMAGE_ID, true), memoryRoot);
    await own.happened('take_over', fence, memoryRoot === undefined ? {} : { memoryRoot });
  }

  /** Completes what a crash has left undone behind `mine` or behind the last line; nothing where nothing is. @returns whether the record is done with */
  recover(): Promise<boolean> {
    return this.#exclusively(async (own) => {
      const { atStart } = DESTINATION_TABLE[own.state];
      if (atStart === 'take_over') await this.#install(own);
      else if (atStart === 'installed') await this.#forget();
      else if (atStart === 'abandon' && this.record.mode === 'migrate') await this.#giveUp();
      else return false;
      return true;
    });
  }

  /** Warm-up: what has been verified becomes the baseline. */
  keepAsBaselines(): Promise<void> {
    return this.#inTurn(() => this.#keepAll());
  }

  /** Direct: puts one verified image at its own place. */
  installDirect(imageId: string): Promise<void> {
    return this.#inTurn(async () => {
      const image = await this.image(imageId, true);
      if (image.verifiedRoot === undefined)
        throw new DwcpError('INTEGRITY_MISMATCH', `Image ${imageId} is not verified`, { side: 'destination' });
      await image.close();
      this.#open.delete(imageId);
      await installImage(image.parameters, this.record.generation, this.#context.store, this.#context.pool, image.held);
    });
  }

  /**
   * Promises durably not to start the VM for this migration; keeps what has arrived as baseline.
   * @throws ALREADY_PAST_RETURN where the VM is this host's already
   */
  abandon(): Promise<void> {
    return this.#exclusively(async (own) => {
      if (this.record.mode === 'migrate') {
        own.assert('abandon');
        this.#closedToData = true;
        if (own.state === 'none' || own.state === 'promised') await own.happened('abandon', this.record.fence);
      }
      await this.#giveUp();
    });
  }

  async #giveUp(): Promise<void> {
    this.#closedToData = true;
    await this.#guest?.discard();
    if (this.#guest) for (const { path } of this.record.images) await unlinkFromPlace(path);
    await this.#keepAll();
    await this.#forget();
  }

  /** Closes files; nothing is decided. */
  async close(): Promise<void> {
    this.#guest?.release();
    const open = [...this.#open.values()];
    this.#open.clear();
    await Promise.all(open.map(async (opening) => (await opening.catch(() => undefined))?.close()));
    for (const handle of this.#sharedFiles.values()) await handle.close();
    this.#sharedFiles.clear();
    await this.#bases.close();
  }

  async #sameFile({
    path,
    sizeBytes,
    from,
    sample,
  }: z.infer<typeof referencesSchema>['files'][number]): Promise<ReferenceSource | undefined> {
    try {
      const handle = this.#sharedFiles.get(path) ?? (await open(path, 'r'));
      this.#sharedFiles.set(path, handle);
      const same = (await handle.stat()).size === sizeBytes && (await sampleOf(handle, sizeBytes)) === sample;
      return same ? { fd: handle.fd, sizeBytes, from } : undefined;
    } catch {
      return undefined;
    }
  }

  async #install(own: DestinationStep): Promise<void> {
    const { vmId, fence, generation, guest } = this.record;
    const { store, pool, registry, activator } = this.#context;
    this.#closedToData = true;
    const whole = await this.#guest?.cameWhole();
    // What QEMU brings by itself has no RAM image.
    const images = this.record.images.filter(({ kind }) => !whole || kind === 'disk');
    // A guest waits for nothing but its own start; what is left to do concerns files only.
    this.#started = await this.#start(own);
    for (const { imageId } of images) {
      const parameters = this.parametersOf(imageId, true);
      const image = await this.#open.get(imageId)?.catch(() => undefined);
      await image?.close();
      const held = image?.verifiedRoot === undefined ? undefined : image.held;
      if (whole) await installLinked(parameters, store);
      else if ((await readIfThere(parameters.journalPath)) !== undefined)
        await installImage(parameters, generation, store, pool, held);
    }
    // A guest's RAM image is of no more use for it here, whatever a crash has made of it.
    await activator.activate(guest ? images.filter(({ kind }) => kind === 'disk') : images);
    const definition = guest ? { command: guest.command, qmpPath: guest.qmpPath } : this.record.definition;
    await registry.put({
      vmId,
      images: images.map(({ imageId, kind, path }) => ({ imageId, kind, path })),
      presence: 'here',
      generation,
      ...looksOf(this.record),
      ...(definition && { guest: definition }),
    });
    await own.happened('installed', fence, this.#started && { note: JSON.stringify(this.#started) });
    this.#guest?.release();
    await this.#forget();
  }

  /** Lets the guest run. One that cannot be started here is given back: its source still has it, standing still. @throws ABANDONED then */
  async #start(own: DestinationStep): Promise<StartedGuest | undefined> {
    try {
      return await this.#guest?.start(() => this.image(MEMORY_IMAGE_ID, true), own.entry?.memoryRoot);
    } catch (error) {
      if (!(error instanceof NeverRan)) throw error;
      await own.happened('cannot_start', this.record.fence, { note: error.reason.message });
      await this.#giveUp();
      throw new DwcpError(
        'ABANDONED',
        `This host cannot start ${own.vm.vmId}, and has given it back: ${error.reason.message}`,
        { side: 'destination', cause: error.reason },
      );
    }
  }

  async #keepAll(): Promise<void> {
    for (const { imageId } of this.record.images) {
      const parameters = this.parametersOf(imageId, true);
      if ((await readIfThere(parameters.journalPath)) === undefined) {
        await keepUnjournaled(parameters, this.record.generation, this.#context.store, this.#context.pool);
        continue;
      }
      await (await this.image(imageId, true)).keepAsBaseline(this.record.generation);
      this.#open.delete(imageId);
    }
  }

  async #assertVerified(imageId: string, root: string | undefined): Promise<void> {
    const image = await this.image(imageId, true);
    if (root !== undefined && image.verifiedRoot === root) return;
    throw new DwcpError(
      'INTEGRITY_MISMATCH',
      `Image ${imageId} has not been verified here with the root that the source names`,
      { side: 'destination' },
    );
  }

  /** Ends the record of a migration that needs it no more: what is being opened is waited for, and nothing is opened afterwards. */
  async #forget(): Promise<void> {
    this.#forgotten = true;
    await this.close();
    for (const { imageId } of this.record.images) await removeJournal(this.parametersOf(imageId, true).journalPath);
    await removeRecord(this.#context.dataDir, this.record.migrationId);
  }

  get #theGuest(): DestinationGuest {
    if (!this.#guest)
      throw new DwcpError('PROTOCOL_VIOLATION', `Migration ${this.record.migrationId} moves no running guest`, {
        side: 'destination',
      });
    return this.#guest;
  }

  /** One step at a time: an activity that is tried again waits for the attempt before it. */
  #inTurn<T>(step: () => Promise<T>): Promise<T> {
    const next = this.#step.catch(() => undefined).then(step);
    this.#step = next;
    return next;
  }

  /** As inTurn(), and inside the VM's lock. */
  #exclusively<T>(step: (own: DestinationStep) => Promise<T>): Promise<T> {
    const { vmId, migrationId } = this.record;
    return this.#inTurn(() =>
      this.#context.ownership.exclusively(vmId, async (vm) =>
        step(
          new OwnStep(vm, migrationId, await vm.last(migrationId), 'destination', DESTINATION_TABLE, destinationState),
        ),
      ),
    );
  }

  #folder(): string {
    return join(migrationFolder(this.#context.dataDir), this.record.migrationId);
  }
}
