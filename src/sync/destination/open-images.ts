/**
 * The images of one migration that are open at its destination, and what they share: the dictionaries their frames are
 * unpacked with, and what else on this host their pages may refer to. When they are opened, and what becomes of the VM,
 * is destination-migration.ts's.
 */
import { type FileHandle, open } from 'node:fs/promises';
import type { z } from 'zod';
import type { SharedDictionary } from '../../encoder/trained-dictionary';
import { DwcpError } from '../../model/errors';
import { DIRECT_OWNER, ownerOf } from '../../store/baselines';
import { readIfThere } from '../../store/durable-file';
import { idPath } from '../../store/id-path';
import { deviceNumber, isDevicePath } from '../../system/block-device';
import type { ReferenceSource } from '../codec/codec-jobs';
import { sampleOf } from '../codec/file-sample';
import type { referencesSchema } from '../protocol';
import { BaseOffer, type OfferedBase } from './base-offer';
import { bookkeepingBytes } from './bookkeeping';
import { type DestinationContext, type DestinationRecord, recordFolder } from './destination-record';
import { takeDevice } from './device-image';
import {
  installImage,
  installLinked,
  keepUnjournaled,
  linkInPlace,
  makeWorkFile,
  unlinkFromPlace,
} from './image-places';
import { giveBackUnproven, removeJournal, type StartFrom, type WorkingImageParameters } from './work-files';
import { WorkingImage } from './working-image';

/** Of one migration at a time. */
const MAX_DICTIONARIES = 4;

export class OpenImages {
  readonly #record: DestinationRecord;
  readonly #context: DestinationContext;
  readonly #open = new Map<string, Promise<WorkingImage>>();
  #dictionaries: readonly SharedDictionary[] = [];
  readonly #bases: BaseOffer;
  /** What the source has named, and all that may be referred to. */
  #named: readonly ReferenceSource[] = [];
  #references: readonly ReferenceSource[] = [];
  readonly #sharedFiles = new Map<string, FileHandle>();
  /** The migration's record is gone, or going. */
  #over = false;

  constructor(record: DestinationRecord, context: DestinationContext) {
    this.#record = record;
    this.#context = context;
    this.#bases = new BaseOffer(context.bases, record.tenant);
  }

  /**
   * The working image of an image, opened on first use; one that a full disk has stopped is opened anew.
   * @throws ABANDONED where it is over
   */
  async image(imageId: string, startFrom: StartFrom = 'baseline'): Promise<WorkingImage> {
    const before = this.#open.get(imageId);
    const known = await before?.catch(() => undefined);
    if (this.#open.get(imageId) !== before) return this.image(imageId, startFrom);
    if (known && !known.failed) return known;
    if (this.#over)
      throw new DwcpError(
        'ABANDONED',
        `Migration ${this.#record.migrationId} is over here: nothing of it is opened any more`,
        { side: 'destination' },
      );
    const opening = this.#openAnew(imageId, startFrom, known);
    this.#open.set(imageId, opening);
    return opening;
  }

  async #openAnew(imageId: string, startFrom: StartFrom, failed: WorkingImage | undefined): Promise<WorkingImage> {
    await failed?.close();
    const { store, pool } = this.#context;
    const parameters = this.parametersOf(imageId, startFrom);
    const giveBack = this.#context.bookkeeping.take(
      bookkeepingBytes(parameters.image, parameters.live ?? false),
      `Image ${imageId} of ${parameters.vmId}`,
    );
    const opening = WorkingImage.open({ ...parameters, onClosed: giveBack }, store, pool);
    opening.catch(giveBack);
    const image = await opening;
    image.unpacksWith(this.#dictionaries);
    image.refersTo(this.#references);
    return image;
  }

  /** One that is open or being opened, and could be; undefined for any other. */
  async ifOpen(imageId: string): Promise<WorkingImage | undefined> {
    return this.#open.get(imageId)?.catch(() => undefined);
  }

  /** The image of a number that the source uses in batches; undefined while it is not open, or what it began from not proven. */
  async byNumber(number: number): Promise<WorkingImage | undefined> {
    const spec = this.#record.images[number];
    const image = spec && (await this.#open.get(spec.imageId));
    return image?.proof.isGiven ? image : undefined;
  }

  async allOpen(): Promise<boolean> {
    const open = await Promise.all(this.#record.images.map(({ imageId }) => this.ifOpen(imageId)));
    return open.every((image) => image !== undefined && !image.failed);
  }

  parametersOf(imageId: string, startFrom: StartFrom = 'baseline'): WorkingImageParameters {
    const { migrationId, vmId, images, guest, mode, overwriteDisks: mayOverwrite = false } = this.#record;
    const spec = images.find((image) => image.imageId === imageId);
    if (!spec)
      throw new DwcpError('PROTOCOL_VIOLATION', `Migration ${migrationId} has no image ${imageId}`, {
        side: 'destination',
      });
    const { path: imagePath, ...image } = spec;
    const journalPath = idPath(recordFolder(this.#context.dataDir, migrationId), imageId, '.journal');
    const owner = mode === 'direct' ? DIRECT_OWNER : ownerOf(this.#record);
    const live = guest !== undefined;
    return { migrationId, vmId, image, owner, imagePath, journalPath, startFrom, live, mayOverwrite };
  }

  /**
   * What the source may refer to from now on: images that are open, and files that this migration names and that are the same here.
   * @returns for each file whether it is
   */
  async referTo({ key, disks, files }: z.infer<typeof referencesSchema>): Promise<boolean[]> {
    const { sharedFiles = [] } = this.#record.guest ?? {};
    const found = await Promise.all(
      files.map(async (file) =>
        sharedFiles.some(({ path }) => path === file.path) ? this.#sameFile(file, Buffer.from(key, 'hex')) : undefined,
      ),
    );
    const sources: ReferenceSource[] = found.filter((source) => source !== undefined);
    for (const { image, from } of disks) {
      const open = await this.byNumber(image);
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

  /** Page hashes that the source is told, or tells, are made with it. */
  get pageKey(): Buffer {
    return this.#bases.pageKey;
  }

  hasBases(): Promise<boolean> {
    return this.#bases.hasAny();
  }

  basePages(name: string): Promise<Buffer | undefined> {
    return this.#bases.pagesOf(name);
  }

  /** Frames of this migration may be packed with it from now on. */
  async activate(dictionary: SharedDictionary): Promise<void> {
    if (!this.#dictionaries.some(({ id }) => id === dictionary.id))
      this.#dictionaries = [...this.#dictionaries, dictionary].slice(-MAX_DICTIONARIES);
    for (const opening of this.#open.values()) (await opening).unpacksWith(this.#dictionaries);
  }

  /**
   * Closes a working image so that another can write its file, or it begins anew: what it began from and nobody has proven to know
   * goes back.
   */
  async yieldImage(imageId: string): Promise<void> {
    const image = await this.ifOpen(imageId);
    this.#open.delete(imageId);
    await image?.close();
    await giveBackUnproven(this.parametersOf(imageId), this.#context.store);
  }

  /** @throws INTEGRITY_MISMATCH */
  async assertVerified(imageId: string, root: string | undefined): Promise<void> {
    const image = await this.image(imageId);
    if (root !== undefined && image.verifiedRoot === root) return;
    throw new DwcpError(
      'INTEGRITY_MISMATCH',
      `Image ${imageId} has not been verified here with the root that the source names`,
      { side: 'destination' },
    );
  }

  /** Puts one verified image at its own place. @throws INTEGRITY_MISMATCH */
  async install(imageId: string): Promise<void> {
    const image = await this.image(imageId);
    if (image.verifiedRoot === undefined)
      throw new DwcpError('INTEGRITY_MISMATCH', `Image ${imageId} is not verified`, { side: 'destination' });
    await image.close();
    this.#open.delete(imageId);
    const { store, pool } = this.#context;
    await installImage(image.parameters, this.#record.generation, store, pool, image.held);
  }

  /** What has arrived becomes the baselines. */
  async keepAll(): Promise<void> {
    const { store, pool } = this.#context;
    for (const { imageId } of this.#record.images) {
      const parameters = this.parametersOf(imageId);
      // A device that has been taken away has taken with it what had come.
      if (isDevicePath(parameters.imagePath) && (await deviceNumber(parameters.imagePath)) === undefined) continue;
      if ((await readIfThere(parameters.journalPath)) === undefined) {
        await keepUnjournaled(parameters, this.#record.generation, store, pool);
        continue;
      }
      await (await this.image(imageId)).keepAsBaseline(this.#record.generation);
      this.#open.delete(imageId);
    }
  }

  /** A guest's disks under the names that it has for them. A source may begin it before it has asked for one of its images. */
  async linkDisks(): Promise<void> {
    for (const { imageId, kind, path } of this.#record.images) {
      if (kind !== 'disk') continue;
      await this.image(imageId);
      await linkInPlace(path);
    }
  }

  /** No QEMU that waits for a guest finds them any more; the content stays. */
  async leavePlaces(): Promise<void> {
    for (const { path } of this.#record.images) await unlinkFromPlace(path);
  }

  /** Past the point of no return: complete, and at their own places. */
  async putInPlace(images: DestinationRecord['images'], how: 'journalled' | 'brought by QEMU'): Promise<void> {
    const { store, pool } = this.#context;
    for (const { imageId } of images) {
      const parameters = this.parametersOf(imageId);
      const image = await this.ifOpen(imageId);
      await image?.close();
      const held = image?.verifiedRoot === undefined ? undefined : image.held;
      if (how === 'brought by QEMU') await installLinked(parameters, store);
      else if ((await readIfThere(parameters.journalPath)) !== undefined)
        await installImage(parameters, this.#record.generation, store, pool, held);
    }
  }

  /** Empty files in the places of all disks, for a QEMU that brings their content itself. @returns image ids by path */
  async emptyDisks(): Promise<Map<string, string>> {
    const disks = new Map<string, string>();
    await this.leavePlaces();
    await this.keepAll();
    const { store, pool } = this.#context;
    for (const { imageId, kind, path, sizeBytes } of this.#record.images) {
      if (kind !== 'disk') continue;
      if (isDevicePath(path)) await (await takeDevice(this.parametersOf(imageId), store, pool)).close();
      else await makeWorkFile(path, sizeBytes);
      await linkInPlace(path);
      disks.set(path, imageId);
    }
    return disks;
  }

  /** The migration is over here: what is being opened is waited for, nothing is opened afterwards, and the journals go. */
  async end(): Promise<void> {
    this.#over = true;
    await this.close();
    for (const { imageId } of this.#record.images) await removeJournal(this.parametersOf(imageId).journalPath);
  }

  /** Closes files; nothing is decided. */
  async close(): Promise<void> {
    const open = [...this.#open.values()];
    this.#open.clear();
    await Promise.all(open.map(async (opening) => (await opening.catch(() => undefined))?.close()));
    for (const handle of this.#sharedFiles.values()) await handle.close();
    this.#sharedFiles.clear();
    await this.#bases.close();
  }

  async #refer(named: readonly ReferenceSource[]): Promise<void> {
    this.#named = named;
    this.#references = [...named, ...this.#bases.offered.map(({ source }) => source)].sort((a, b) => a.from - b.from);
    for (const opening of this.#open.values()) (await opening).refersTo(this.#references);
  }

  async #sameFile(
    { path, sizeBytes, from, sample }: z.infer<typeof referencesSchema>['files'][number],
    key: Buffer,
  ): Promise<ReferenceSource | undefined> {
    try {
      const handle = this.#sharedFiles.get(path) ?? (await open(path, 'r'));
      this.#sharedFiles.set(path, handle);
      const same = (await handle.stat()).size === sizeBytes && (await sampleOf(handle, sizeBytes, key)) === sample;
      return same ? { fd: handle.fd, sizeBytes, from } : undefined;
    } catch {
      return undefined;
    }
  }
}
