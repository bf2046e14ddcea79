/**
 * The destination's half of the standard transfer: one connection, stretches of the image in order, each verified
 * before it is written, the whole measured at the end. Independent of the encoder, the session and its streams; it
 * resumes at the last offset that is durable.
 *
 *   REQUEST begin {imageId} -> {offset}    EXTENT ... EXTENT    EVENT written {offset}    REQUEST finish {root} -> {}
 *   a running guest:    REQUEST guest -> {}    (tunnels: destination-hub.ts)    REQUEST guest_loaded -> {}
 */
import { constants, type FileHandle } from 'node:fs/promises';
import { dirname } from 'node:path';
import { z } from 'zod';
import { DwcpError, toDwcpError } from '../../model/errors';
import { imageIdSchema } from '../../model/ids';
import { workPathOf } from '../../store/baselines';
import { readIfThere, writeDurably } from '../../store/durable-file';
import { makeFolderDurably, removeDurably, syncFolder } from '../../store/durable-folder';
import { setSparseSize } from '../../store/system-calls';
import { isDevicePath } from '../../system/block-device';
import { openImage } from '../../system/image-roots';
import type { Connection, Received } from '../../transport/connection';
import { buildFrame, type Frame, type FrameType } from '../../transport/frame';
import { readMeta } from '../../transport/hello';
import type { Slab } from '../../transport/slab';
import type { DestinationMigration } from './destination-migration';
import type { DestinationContext } from './destination-record';
import { takeDevice } from './device-image';
import { sealWorkFile } from './image-places';
import { assertPermitted } from './permitted';
import { removeJournal, type WorkingImageParameters } from './work-files';

const FRAMES: ReadonlySet<FrameType> = new Set(['request', 'extent']);
const COMMIT_EVERY_MS = 1_000;

const requestSchema = z.discriminatedUnion('method', [
  z.looseObject({ method: z.literal('begin'), imageId: imageIdSchema }),
  z.looseObject({ method: z.literal('finish'), root: z.string().min(1).max(64) }),
  z.looseObject({ method: z.literal('guest') }),
  z.looseObject({ method: z.literal('guest_loaded') }),
]);
const progressSchema = z.object({ offset: z.int().min(0) });

interface OpenFile {
  readonly migration: DestinationMigration;
  readonly parameters: WorkingImageParameters;
  readonly handle: FileHandle;
  offset: number;
  durableOffset: number;
  committedAt: number;
}

export interface StandardReception {
  readonly connection: Connection;
  readonly slab: Slab;
  readonly context: DestinationContext;
  readonly migration: () => Promise<DestinationMigration>;
  /** What has to be done first: an earlier connection of the same migration puts its file away. */
  readonly before: Promise<void>;
  /** Called once the file has been put away. */
  readonly onEnd: () => void;
}

export class StandardReceiver {
  readonly #connection: Connection;
  readonly #slab: Slab;
  readonly #context: DestinationContext;
  readonly #migration: () => Promise<DestinationMigration>;
  #file: OpenFile | undefined;
  #queue: Promise<void>;
  #ended = false;

  constructor({ connection, slab, context, migration, before, onEnd }: StandardReception) {
    this.#queue = before;
    this.#connection = connection;
    this.#slab = slab;
    this.#context = context;
    this.#migration = migration;
    connection.use(
      FRAMES,
      (received) => this.#enqueue(received),
      () => {
        this.#ended = true;
        // What could not be put away has been counted to the last commit only.
        void this.yield()
          .catch(() => undefined)
          .finally(onEnd);
      },
      slab,
    );
  }

  /** Ends the connection. */
  end(error: DwcpError): void {
    this.#connection.destroy(error);
  }

  /** Closes the file, after what has been received so far has been written. */
  yield(): Promise<void> {
    // A file that did not close must not be in the way of what comes next.
    this.#queue = this.#queue.catch(() => undefined).then(() => this.#closeFile());
    return this.#queue;
  }

  #enqueue({ frame, run }: Received): void {
    this.#queue = this.#queue
      .catch(() => undefined)
      .then(() => (this.#ended ? undefined : this.#take(frame)))
      .catch((error: unknown) => this.#refuse(frame, toDwcpError(error, 'INTERNAL', { side: 'destination' })))
      .catch((error: unknown) => this.end(toDwcpError(error, 'INTERNAL', { side: 'destination' })))
      .finally(() => run && this.#slab.free(run));
  }

  /** A request is answered with its error; an extent that fails tells it and ends the connection. */
  #refuse(frame: Frame, error: DwcpError): void {
    if (frame.type === 'request') this.#answer(frame, { ok: false, error: error.report() });
    else {
      void this.#connection.write(
        buildFrame('event', 0, Buffer.from(JSON.stringify({ event: 'failed', error: error.report() }))),
      );
      this.#ended = true;
    }
  }

  async #take(frame: Frame): Promise<void> {
    if (frame.type === 'extent') return this.#takeExtent(frame);
    const request = readMeta(requestSchema, frame);
    const migration = await this.#migration();
    assertPermitted(request.method, migration.record);
    if (request.method === 'begin') {
      this.#answer(frame, { ok: true, offset: await migration.takeIn(() => this.#begin(migration, request.imageId)) });
      return;
    }
    if (request.method === 'finish') await migration.takeIn(() => this.#finish(request.root));
    else if (request.method === 'guest') await migration.receiveWholeGuest();
    else await migration.loadWholeGuest();
    this.#answer(frame, { ok: true });
  }

  async #begin(migration: DestinationMigration, imageId: string): Promise<number> {
    await this.#closeFile();
    await migration.images.yieldImage(imageId);
    const parameters = migration.images.parametersOf(imageId, 'empty');
    await removeJournal(parameters.journalPath);
    const handle = await this.#openWork(parameters);
    try {
      const saved = await readIfThere(progressPath(parameters));
      const offset = saved ? progressSchema.parse(JSON.parse(saved.toString('utf8'))).offset : 0;
      this.#file = { migration, parameters, handle, offset, durableOffset: offset, committedAt: performance.now() };
      return offset;
    } catch (error) {
      await handle.close();
      throw error;
    }
  }

  async #openWork(parameters: WorkingImageParameters): Promise<FileHandle> {
    const { imagePath, image } = parameters;
    if (isDevicePath(imagePath)) return takeDevice(parameters, this.#context.store, this.#context.pool);
    await makeFolderDurably(dirname(imagePath));
    const handle = await openImage(workPathOf(imagePath), constants.O_RDWR | constants.O_CREAT);
    try {
      setSparseSize(handle.fd, image.sizeBytes);
      await syncFolder(dirname(imagePath));
      return handle;
    } catch (error) {
      await handle.close();
      throw error;
    }
  }

  async #takeExtent(frame: Frame): Promise<void> {
    const file = this.#open();
    if (!file.migration.takesData) await file.migration.assertTakesData();
    const { end } = await this.#context.pool.run({
      kind: 'writeExtent',
      file: { fd: file.handle.fd, sizeBytes: file.parameters.image.sizeBytes },
      frame: {
        memory: frame.meta.buffer,
        offset: frame.meta.byteOffset,
        metaBytes: frame.metaBytes,
        payloadBytes: frame.payloadBytes,
      },
    });
    file.offset = end;
    if (performance.now() - file.committedAt >= COMMIT_EVERY_MS) await this.#commit(file);
    void this.#connection.write(
      buildFrame('event', 0, Buffer.from(JSON.stringify({ event: 'written', offset: file.offset }))),
    );
  }

  async #finish(root: string): Promise<void> {
    const file = this.#open();
    await this.#commit(file);
    try {
      await sealWorkFile(file.parameters, root, this.#context.pool);
    } catch (error) {
      // What is there cannot be trusted: the next attempt begins at the start.
      await removeDurably(progressPath(file.parameters));
      throw error;
    } finally {
      await this.#closeFile();
    }
  }

  async #commit(file: OpenFile): Promise<void> {
    await file.handle.datasync();
    await writeDurably(progressPath(file.parameters), JSON.stringify({ offset: file.offset }));
    file.durableOffset = file.offset;
    file.committedAt = performance.now();
  }

  #open(): OpenFile {
    if (!this.#file) throw new DwcpError('PROTOCOL_VIOLATION', 'No image has been begun', { side: 'destination' });
    return this.#file;
  }

  async #closeFile(): Promise<void> {
    const file = this.#file;
    this.#file = undefined;
    if (!file) return;
    // Where the disk does not take even this, the next attempt begins at the commit before.
    if (file.offset > file.durableOffset) await this.#commit(file).catch(() => undefined);
    await file.handle.close();
  }

  #answer(frame: Frame, body: Record<string, unknown>): void {
    void this.#connection.write(buildFrame('response', frame.sequence, Buffer.from(JSON.stringify(body))));
  }
}

function progressPath(parameters: WorkingImageParameters): string {
  return `${parameters.journalPath}.standard`;
}
