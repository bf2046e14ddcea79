/**
 * One migration as its destination sees it: a record on disk, the working images, and the steps of the hand-over that
 * happen here. Every step may be asked for again and gives the same answer. Carries out DESTINATION_TABLE of
 * src/model/ownership-machine.ts: what changes who owns the VM happens inside the VM's lock.
 */
import type { WholePlaces } from '../../hypervisor/contract';
import { onAbort } from '../../model/abort';
import { DwcpError } from '../../model/errors';
import { MEMORY_IMAGE_ID } from '../../model/guest';
import { ownValue } from '../../model/own-value';
import { DESTINATION_TABLE, destinationState } from '../../model/ownership-machine';
import type { OwnedVm } from '../../store/ownership-journal';
import { type DestinationStep, destinationStep } from '../hand-over/own-step';
import { DestinationGuest, NeverRan, type StartedGuest } from './destination-guest';
import {
  type DestinationContext,
  type DestinationRecord,
  livingHere,
  readRecord,
  recordFolder,
  recordWrittenAtMs,
  removeRecord,
  setUpOf,
  writeRecord,
} from './destination-record';
import { unlinkFromPlace } from './image-places';
import { OpenImages } from './open-images';
import { refusal } from './permitted';
import type { WorkingImage } from './working-image';

export class DestinationMigration {
  readonly record: DestinationRecord;
  readonly images: OpenImages;
  readonly #folder: string;
  readonly #context: DestinationContext;
  readonly #guest: DestinationGuest | undefined;
  #step: Promise<unknown> = Promise.resolve();
  #started: StartedGuest | undefined;
  /** No data is taken in any more: the VM has been taken over, or given up. */
  #closedToData = false;
  #settlements = 0;

  constructor(record: DestinationRecord, context: DestinationContext) {
    this.record = record;
    this.#context = context;
    this.#folder = recordFolder(context.dataDir, record.migrationId);
    this.images = new OpenImages(record, context);
    const { guest, vmId, images, mode } = record;
    // Nothing runs for a warm-up or a plan, nor for a session that a peer has made itself.
    if (mode !== 'migrate' || !guest) return;
    const receiver = context.activator.receiveGuest(vmId, guest.command, guest.ramBlocks, images, guest.hardware);
    this.#guest = new DestinationGuest(this.#folder, receiver);
  }

  /** How the guest began to run here, where one did. */
  get started(): StartedGuest | undefined {
    return this.#started;
  }

  static async load(migrationId: string, context: DestinationContext): Promise<DestinationMigration | undefined> {
    const record = await readRecord(context.dataDir, migrationId);
    return record && new DestinationMigration(record, context);
  }

  readonly save = (): Promise<void> => writeRecord(this.#context.dataDir, this.record);

  readonly savedAtMs = (): Promise<number> => recordWrittenAtMs(this.#context.dataDir, this.record);

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
    return !this.#closedToData && this.#settlements === 0;
  }

  /** All images are open: the guest's QEMU is started and fed what is held of its memory before anything is sent. Idempotent. */
  async beginGuestAhead(): Promise<void> {
    const setUp = setUpOf(this.record);
    if (!setUp || !this.#guest || this.#guest.begun || !(await this.images.allOpen())) return;
    await this.#beginGuest(setUp.prefix, setUp.sectionId, 'ahead');
  }

  /** Before anything is sent: its QEMU has started here and taken the set-up. @throws GUEST_REFUSED with QEMU's reason */
  async guestReady(): Promise<void> {
    await this.beginGuestAhead();
    await this.#theGuest.ready();
  }

  /** The set-up of a running guest: its QEMU is started and fed from now on. All its images are open. */
  beginGuest(prefix: Buffer, sectionId: number): Promise<void> {
    return this.#beginGuest(prefix, sectionId, 'in order');
  }

  /** @param when ahead: nothing is done where somebody has begun it meanwhile */
  #beginGuest(prefix: Buffer, sectionId: number, when: 'ahead' | 'in order'): Promise<void> {
    return this.takeIn(async () => {
      if (when === 'ahead' && this.#theGuest.begun) return;
      await this.#theGuest.forgetState();
      await this.images.linkDisks();
      this.#theGuest.begin(prefix, sectionId, await this.images.image(MEMORY_IMAGE_ID));
    });
  }

  /** The source does not know what an image was begun from: that goes back to where it lay, and the image begins empty. */
  withoutBaseline(imageId: string): Promise<WorkingImage> {
    return this.takeIn(async () => {
      if (!(await this.images.image(imageId, 'empty')).proof.isGiven) {
        if (this.#guest?.begun) await this.#guest.discard();
        await unlinkFromPlace(this.images.parametersOf(imageId).imagePath);
        await this.images.yieldImage(imageId);
      }
      return this.images.image(imageId, 'empty');
    });
  }

  /** What a guest's QEMU has not been given yet of its memory. */
  get guestLeftBytes(): number {
    return this.#theGuest.leftBytes;
  }

  /**
   * All images of a guest are verified: its device state is loaded. Idempotent.
   * @param signal the source has given it up: nobody waits for QEMU any more
   */
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
      await this.#theGuest.discard();
      await this.#theGuest.receiveWhole(await this.images.emptyDisks(), setUpOf(this.record));
    });
  }

  /** Its QEMU has it, disks and all. Idempotent. */
  loadWholeGuest(): Promise<void> {
    return this.#inTurn(() => this.#theGuest.loadWhole());
  }

  /** Where a guest that comes by QEMU's own means is let in. @throws PROTOCOL_VIOLATION where none does */
  get wholePlaces(): WholePlaces {
    const places = this.#theGuest.wholePlaces;
    if (!places) throw refusal(`No QEMU waits for the guest of migration ${this.record.migrationId}`);
    return places;
  }

  /**
   * Takes the VM over: past this the source may never resume. All images are verified, with the roots given.
   * @param dataEnded waits for what is being taken in
   * @throws FENCED, INTEGRITY_MISMATCH, and then nothing has changed; ABANDONED where it will never be started here
   */
  async takeOver(roots: Readonly<Record<string, string>>, dataEnded: () => Promise<void>): Promise<void> {
    await this.#settling(dataEnded, async (own) => {
      own.assert('take_over');
      if (own.state === 'installed') return;
      if (own.state === 'promised') await this.#becomeMine(own, roots);
      await this.#install(own);
    });
  }

  async #becomeMine(own: DestinationStep, roots: Readonly<Record<string, string>>): Promise<void> {
    const { fence, images } = this.record;
    if ((await own.vm.fence()) > fence)
      throw new DwcpError('FENCED', `A newer migration of ${own.vm.vmId} has been here`, { side: 'destination' });
    const whole = await this.#guest?.cameWhole();
    if (!whole)
      await Promise.all(images.map(({ imageId }) => this.images.assertVerified(imageId, ownValue(roots, imageId))));
    const memoryRoot = this.#guest && !whole ? ownValue(roots, MEMORY_IMAGE_ID) : undefined;
    await this.#guest?.ensureLoaded(() => this.images.image(MEMORY_IMAGE_ID), memoryRoot);
    await own.happened('take_over', fence, memoryRoot === undefined ? {} : { memoryRoot });
  }

  /**
   * Completes what a crash has left undone behind `mine` or behind the last line; nothing where nothing is.
   * @returns whether the record is done with
   */
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
    return this.#inTurn(() => this.images.keepAll());
  }

  /** Direct: puts one verified image at its own place. */
  installDirect(imageId: string): Promise<void> {
    return this.#inTurn(() => this.images.install(imageId));
  }

  /**
   * Promises durably not to start the VM for this migration; keeps what has arrived as baseline.
   * @param dataEnded waits for what is being taken in @throws ALREADY_PAST_RETURN where the VM is this host's already
   */
  abandon(dataEnded: () => Promise<void>): Promise<void> {
    return this.#settling(dataEnded, async (own) => {
      if (this.record.mode === 'migrate') {
        own.assert('abandon');
        this.#closedToData = true;
        if (own.state === 'none' || own.state === 'promised') await own.happened('abandon', this.record.fence);
      }
      await this.#giveUp();
    });
  }

  /**
   * The source has rolled its claim back and claimed the VM again, for the same migration: what has arrived is kept as baseline, and
   * `promise` puts the newer claim's record in the place of this one before anybody else has a turn.
   */
  giveWay<T>(promise: (vm: OwnedVm) => Promise<T>): Promise<T> {
    return this.#exclusively(async (own) => {
      own.assert('prepare');
      if (own.state === 'promised') {
        await this.#keepWhatArrived();
        await this.images.end();
      }
      return promise(own.vm);
    });
  }

  async #giveUp(): Promise<void> {
    await this.#keepWhatArrived();
    await this.#forget();
  }

  async #keepWhatArrived(): Promise<void> {
    this.#closedToData = true;
    await this.#guest?.discard();
    if (this.#guest) await this.images.leavePlaces();
    await this.images.keepAll();
  }

  /** Closes files; nothing is decided. */
  async close(): Promise<void> {
    this.#guest?.release();
    await this.images.close();
  }

  async #install(own: DestinationStep): Promise<void> {
    const { fence, guest } = this.record;
    const { registry, activator } = this.#context;
    this.#closedToData = true;
    const whole = await this.#guest?.cameWhole();
    // What QEMU brings by itself has no RAM image.
    const images = this.record.images.filter(({ kind }) => !whole || kind === 'disk');
    // A guest waits for nothing but its own start; what is left to do concerns files only.
    this.#started = await this.#start(own);
    if (this.#started) this.#context.onStarted?.(this.record, this.#started.resumedAtMs);
    await this.images.putInPlace(images, whole ? 'brought by QEMU' : 'journalled');
    // A guest's RAM image is of no more use for it here, whatever a crash has made of it.
    await activator.activate(guest ? images.filter(({ kind }) => kind === 'disk') : images);
    await registry.put(livingHere(this.record, images));
    await own.happened('installed', fence, this.#started && { note: JSON.stringify(this.#started) });
    this.#guest?.release();
    await this.#forget();
  }

  /** Lets the guest run. One that cannot be started here is given back: its source still has it, standing still. @throws ABANDONED then */
  async #start(own: DestinationStep): Promise<StartedGuest | undefined> {
    try {
      return await this.#guest?.start(() => this.images.image(MEMORY_IMAGE_ID), own.entry?.memoryRoot);
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

  /** Ends the record of a migration that needs it no more. */
  async #forget(): Promise<void> {
    this.#guest?.release();
    await this.images.end();
    await removeRecord(this.#context.dataDir, this.record.migrationId);
  }

  get #theGuest(): DestinationGuest {
    if (!this.#guest) throw refusal(`Migration ${this.record.migrationId} moves no running guest`);
    return this.#guest;
  }

  /** One step at a time: an activity that is tried again waits for the attempt before it. */
  #inTurn<T>(step: () => Promise<T>): Promise<T> {
    const next = this.#step.catch(() => undefined).then(step);
    this.#step = next;
    return next;
  }

  /** What is looked at stays as it is: nothing new is taken in from here on, unless the look says no. */
  async #settling<T>(dataEnded: () => Promise<void>, settle: (own: DestinationStep) => Promise<T>): Promise<T> {
    this.#settlements += 1;
    try {
      await dataEnded();
      return await this.#exclusively(settle);
    } finally {
      this.#settlements -= 1;
    }
  }

  /** As inTurn(), and inside the VM's lock. */
  #exclusively<T>(step: (own: DestinationStep) => Promise<T>): Promise<T> {
    const { vmId, migrationId } = this.record;
    return this.#inTurn(() =>
      this.#context.ownership.exclusively(vmId, async (vm) => step(await destinationStep(vm, migrationId))),
    );
  }
}
