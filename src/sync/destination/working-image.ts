/**
 * An image while it is being received: a working file beside the image's own place, the hashes of what it holds, and the
 * journal of what of that is durable. Nothing is seen at the image's own place before it is complete and verified.
 *
 *   opening:  journal there?  yes -> what it promises is trusted, all else measured   (resume: nothing durable comes again)
 *                             no  -> the baseline's content becomes the working file, by rename, and is measured;
 *                                    without one an empty sparse file
 *   then:     batches -> verify -> (promised before? retract) -> write -> (sync, journal) ... finish(root) -> image-places.ts,
 *             or keepAsBaseline()
 *
 * Measuring, not remembering, is what makes a torn write or a tampered baseline harmless. `held` is true to the file at any
 * time: set behind each write, measured again where a write may have been broken off, and at opening promised only by a
 * journal that takes every promise back before the block is overwritten.
 */
import { type FileHandle, writeFile } from 'node:fs/promises';
import { namedBlocks } from '../../encoder/batch-format';
import type { SharedDictionary } from '../../encoder/trained-dictionary';
import { DwcpError, toDwcpError } from '../../model/errors';
import type { BaselineStore } from '../../store/baselines';
import type { BlockJournal, JournalledBlock } from '../../store/block-journal';
import { readIfThere, writeDurably } from '../../store/durable-file';
import { removeDurably } from '../../store/durable-folder';
import type { Manifest } from '../../store/manifest';
import { until } from '../../system/wait';
import type { Frame } from '../../transport/frame';
import type { ReferenceSource } from '../codec/codec-jobs';
import type { CodecPool } from '../codec/codec-pool';
import { measure } from '../codec/measure-file';
import type { WorkingState } from '../protocol';
import { BaselineProof } from './baseline-proof';
import { forgetAtPlace, keepAtPlace, openAtPlace, withoutOthers } from './device-image';
import { ImageMode } from './image-mode';
import { NewestBatch } from './newest-batch';
import { provenPath, removeJournal, verifiedPath, type WorkFiles, type WorkingImageParameters } from './work-files';

/** Data that may wait for its sync: bounds what a crash of this agent can cost. */
export const COMMIT_AFTER_BLOCKS = 1024;
const COMMIT_AFTER_MS = 250;

export class WorkingImage {
  readonly parameters: WorkingImageParameters;
  readonly #opened: WorkingState;
  readonly held: Manifest;
  readonly proof: BaselineProof;
  readonly #store: BaselineStore;
  readonly #pool: CodecPool;
  readonly #handle: FileHandle;
  readonly #journal: BlockJournal;
  #pending: JournalledBlock[] = [];
  #timer: NodeJS.Timeout | undefined;
  #committing: Promise<void> = Promise.resolve();
  #decoding = 0;
  readonly #mode: ImageMode;
  readonly #covers: boolean;
  #received = false;
  readonly #order: NewestBatch;
  /** One byte a block: 1 where the journal promises it, or is about to. */
  readonly #promised: Uint8Array;
  /** Something of the file may not have reached the disk, also what an earlier agent has left in memory. */
  #unsynced = true;
  #onAccepted: ((blocks: readonly number[]) => void) | undefined;
  #references: readonly ReferenceSource[] = [];
  #dictionaries: readonly SharedDictionary[] = [];

  private constructor(parameters: WorkingImageParameters, files: WorkFiles, store: BaselineStore, pool: CodecPool) {
    const { handle, journal, held, promised, resumed, proven, covers = false } = files;
    this.parameters = parameters;
    this.#covers = covers;
    this.#opened = resumed ? 'resumed' : journal.head.base;
    this.held = held;
    this.proof = new BaselineProof(held, provenPath(parameters.journalPath), proven);
    this.#promised = promised;
    this.#store = store;
    this.#pool = pool;
    this.#handle = handle;
    this.#journal = journal;
    this.#mode = new ImageMode(parameters.image.imageId);
    this.#order = new NewestBatch(parameters.live ?? false);
  }

  /** Opens or creates the working image and learns what it holds. @throws DISK_FULL, IMAGE_UNWRITABLE, JOURNAL_CORRUPT */
  static async open(parameters: WorkingImageParameters, store: BaselineStore, pool: CodecPool): Promise<WorkingImage> {
    const files = await openAtPlace(parameters, store, pool);
    const image = new WorkingImage(parameters, files, store, pool);
    try {
      if (files.resumed) await image.#recallVerified();
      return image;
    } catch (error) {
      await image.close();
      throw toDwcpError(error, 'IMAGE_UNWRITABLE', { side: 'destination' });
    }
  }

  /** What it holds, seen by somebody who asks now: once blocks have come in for this migration, that is `resumed`. */
  get state(): WorkingState {
    return this.#received ? 'resumed' : this.#opened;
  }

  /** Nothing has come, and nothing else is there: all of it reads as zeros. */
  get isBlank(): boolean {
    return this.state === 'empty' && !this.#covers;
  }

  /** True after a failure of the disk: close it and open it again to go on. */
  get failed(): boolean {
    return this.#mode.failure !== undefined;
  }

  /** Root of the finished image, once finish() has agreed. */
  get verifiedRoot(): string | undefined {
    return this.#mode.verifiedRoot;
  }

  /** Descriptor of the working file. */
  get fd(): number {
    return this.#handle.fd;
  }

  /** What blocks may refer to, by rising addresses. */
  refersTo(sources: readonly ReferenceSource[]): void {
    this.#references = sources;
  }

  /** What frames may be packed with. */
  unpacksWith(dictionaries: readonly SharedDictionary[]): void {
    this.#dictionaries = dictionaries;
  }

  /** Called with blocks whose new content is in the file. */
  onAccepted(handler: (blocks: readonly number[]) => void): void {
    this.#onAccepted = handler;
  }

  /** A source begins anew: what it sends now is newer than anything before, and what was verified may change again. */
  async beginPass(): Promise<void> {
    while (this.#mode.comparison) await this.#mode.comparison;
    if (this.#mode.step === 'closed') return;
    await this.#idle();
    this.#order.beginAnew();
    if (this.#mode.receiveAgain()) await removeDurably(verifiedPath(this.parameters.journalPath));
  }

  /**
   * Takes in a checked BATCH frame.
   * @returns the blocks that must come again in full; @throws what the disk says, SUPERSEDED where nothing is written here any more
   */
  async take(frame: Frame): Promise<readonly number[]> {
    // What is being compared must not change under it.
    while (this.#mode.comparison) await this.#mode.comparison;
    if (this.#mode.failure) throw this.#mode.failure;
    if (this.#mode.step !== 'receiving') return this.#takeLate(frame);
    this.#decoding += 1;
    try {
      return await this.#inOrder(frame);
    } finally {
      this.#decoding -= 1;
    }
  }

  /** A second copy of what is here is as good as taken in. Of anything else nobody may believe that it was: it is not written. */
  #takeLate({ meta, sequence }: Frame): readonly number[] {
    const isHere = namedBlocks(meta).every(
      ({ block, hash }) =>
        block < this.held.blocks && (this.held.hashOf(block).equals(hash) || this.#order.isNewer(block, sequence)),
    );
    if (isHere) return [];
    throw new DwcpError(
      'SUPERSEDED',
      `Image ${this.parameters.image.imageId} is ${this.#mode.step === 'closed' ? 'closed' : 'complete'}: batch ${sequence} came too late`,
      { side: 'destination' },
    );
  }

  async #inOrder(frame: Frame): Promise<readonly number[]> {
    const named = namedBlocks(frame.meta).filter(({ block }) => block < this.held.blocks);
    const blocks = named.map(({ block }) => block);
    const refused = await this.#order.inOrder(blocks, frame.sequence, () => {
      const overwritten = named.filter(
        ({ block, hash }) => this.#promised[block] === 1 && !this.held.hashOf(block).equals(hash),
      );
      return this.#write(
        frame,
        blocks,
        overwritten.map(({ block }) => block),
      );
    });
    return refused ?? [];
  }

  /** Takes promises back before it overwrites what was promised; where it is broken off, looks at what is there now. */
  async #write(frame: Frame, blocks: readonly number[], overwritten: readonly number[]): Promise<readonly number[]> {
    try {
      await this.#journal.retract(overwritten);
    } catch (error) {
      throw this.#fail(error);
    }
    try {
      return await this.#decode(frame);
    } catch (error) {
      await this.#lookAgain(blocks);
      throw error;
    }
  }

  async #lookAgain(blocks: readonly number[]): Promise<void> {
    try {
      for (const block of blocks)
        await this.#pool.run({ kind: 'measure', file: this.#file(), first: block, count: 1, hashes: this.held.memory });
      this.#onAccepted?.(blocks);
    } catch (error) {
      this.#fail(error);
    }
  }

  async #decode(frame: Frame): Promise<readonly number[]> {
    const { accepted, refused } = await this.#pool.run({
      kind: 'decode',
      file: this.#file(),
      held: this.held.memory,
      references: this.#references,
      dictionaries: this.#dictionaries,
      frame: {
        memory: frame.meta.buffer,
        offset: frame.meta.byteOffset,
        metaBytes: frame.metaBytes,
        payloadBytes: frame.payloadBytes,
      },
    });
    this.#received ||= accepted.length > 0;
    this.#onAccepted?.(accepted);
    if (this.#isVolatile) return refused;
    this.#unsynced ||= accepted.length > 0;
    for (const block of accepted) {
      this.#promised[block] = 1;
      this.#pending.push({ block, hash: Buffer.from(this.held.hashOf(block)) });
    }
    this.#scheduleCommit();
    return refused;
  }

  /** A guest's memory is worth nothing after a crash of the host, and a crash of the agent leaves the file as it is. */
  get #isVolatile(): boolean {
    return (this.parameters.live ?? false) && this.parameters.image.kind === 'memory';
  }

  async #idle(): Promise<void> {
    await until(() => this.#decoding === 0, { everyMs: 2 });
  }

  async pageDigests(list: readonly number[]): Promise<Uint8Array> {
    return withoutOthers(await this.#pool.run({ kind: 'pageDigests', file: this.#file(), list }), list, this.held);
  }

  /**
   * Makes all durable and compares roots. Calling it again gives the same answer.
   * @throws INTEGRITY_MISMATCH: the image has then been measured anew, and `held` is what its file really holds
   */
  async finish(root: string): Promise<void> {
    if (this.verifiedRoot !== root) await this.#mode.comparing(root, () => this.#compare(root));
  }

  async #compare(root: string): Promise<void> {
    await this.#idle();
    await this.#commit();
    const found = await this.#pool.run({ kind: 'root', hashes: this.held.memory, sizeBytes: this.held.sizeBytes });
    if (found !== root) {
      await measure(this.#handle.fd, this.held, this.#pool);
      throw new DwcpError(
        'INTEGRITY_MISMATCH',
        `Image ${this.parameters.image.imageId} has root ${found.slice(0, 16)} here and ${root.slice(0, 16)} at the source`,
        { side: 'destination' },
      );
    }
    if (this.#isVolatile) await writeFile(verifiedPath(this.parameters.journalPath), root);
    else await writeDurably(verifiedPath(this.parameters.journalPath), root);
  }

  /** Ends the reception and keeps what has arrived as baseline; complete where finish() had agreed. Zeros alone are none. */
  async keepAsBaseline(generation: number): Promise<void> {
    const { vmId, image, owner, journalPath } = this.parameters;
    const { imageId, kind, sizeBytes } = image;
    await this.close();
    if (this.#opened === 'empty' && this.verifiedRoot === undefined && this.held.isOfZeros) {
      await forgetAtPlace(this.parameters);
      await removeJournal(journalPath);
      return;
    }
    const record = { vmId, imageId, kind, sizeBytes, ...owner, generation, complete: this.verifiedRoot !== undefined };
    await keepAtPlace(this.parameters, record, this.held, this.#store);
    await removeJournal(journalPath);
  }

  /** Stops; what has arrived and is not durable yet is made so, where the disk lets it. */
  async close(): Promise<void> {
    if (!(await this.#mode.close())) return;
    await this.#idle();
    await this.#commit().catch(() => undefined);
    clearTimeout(this.#timer);
    try {
      await this.#journal.close();
      await this.#handle.close();
    } finally {
      this.parameters.onClosed?.();
    }
  }

  async #recallVerified(): Promise<void> {
    const root = (await readIfThere(verifiedPath(this.parameters.journalPath)))?.toString('utf8');
    if (root === undefined) return;
    const found = await this.#pool.run({ kind: 'root', hashes: this.held.memory, sizeBytes: this.held.sizeBytes });
    if (found === root) this.#mode.verified(root);
  }

  #file(): { fd: number; sizeBytes: number } {
    return { fd: this.#handle.fd, sizeBytes: this.held.sizeBytes };
  }

  #scheduleCommit(): void {
    if (this.#pending.length >= COMMIT_AFTER_BLOCKS) void this.#commit().catch(() => undefined);
    else this.#timer ??= setTimeout(() => void this.#commit().catch(() => undefined), COMMIT_AFTER_MS);
  }

  /** Syncs the data, then promises it in the journal; one commit at a time. A failure is kept for the next take(). */
  #commit(): Promise<void> {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#committing = this.#committing
      .catch(() => undefined)
      .then(async () => {
        const blocks = this.#pending.splice(0);
        if (!this.#unsynced || this.#isVolatile) return;
        this.#unsynced = false;
        try {
          await this.#handle.datasync();
          await this.#journal.append(blocks);
        } catch (error) {
          throw this.#fail(error);
        }
      });
    return this.#committing;
  }

  /** Kept for the next take(); the image has to be closed, and opened again. */
  #fail(error: unknown): DwcpError {
    return this.#mode.fail(toDwcpError(error, 'IMAGE_UNWRITABLE', { side: 'destination' }));
  }
}
