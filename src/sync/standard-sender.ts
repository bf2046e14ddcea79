/**
 * The source's half of the standard transfer: one TCP connection, the image in order, as it is. Holes are named, not
 * sent; nothing is compressed, compared or adapted. Protocol: standard-receiver.ts.
 */
import { DwcpError, toDwcpError } from '../model/errors';
import { BLOCK_SIZE_BYTES, type ImageSpec } from '../model/image';
import { MIB } from '../model/units';
import { nextData, nextHole } from '../store/system-calls';
import type { Manifest } from '../store/manifest';
import { HEADER_BYTES, sealFrame } from '../transport/frame';
import type { Run } from '../transport/slab';
import { ScanFeed } from './change-feed';
import { EXTENT_META_BYTES, writeExtentMeta } from './extent-format';
import type { SourceMigration } from './source-migration';
import { StandardChannel } from './standard-channel';
import { measureFile } from './measure-file';

const EXTENT_BYTES = MIB;
const READ_AHEAD = 4;

export interface StandardProgress {
  readonly imageId: string;
  readonly totalBytes: number;
  readonly doneBytes: number;
  readonly linkBytes: number;
}

export interface StandardResult extends StandardProgress {
  readonly began: 'empty' | 'resumed';
  readonly root: string;
  readonly seconds: number;
  readonly manifest: Manifest;
}

interface ReadyExtent {
  readonly frame: Buffer;
  readonly free: () => void;
}

type Stretch = { readonly kind: 'data' | 'hole'; readonly offset: number; readonly length: number };

/** Stretches of data and holes from `offset` on, data cut to extents, borders on whole blocks. */
function* stretches(fd: number, sizeBytes: number, offset: number): Generator<Stretch> {
  let at = offset;
  while (at < sizeBytes) {
    const data = Math.min(sizeBytes, Math.floor(nextData(fd, at) / BLOCK_SIZE_BYTES) * BLOCK_SIZE_BYTES);
    if (data > at) {
      yield { kind: 'hole', offset: at, length: data - at };
      at = data;
      continue;
    }
    const hole = Math.ceil(nextHole(fd, at) / BLOCK_SIZE_BYTES) * BLOCK_SIZE_BYTES;
    const end = Math.min(sizeBytes, at + EXTENT_BYTES, Math.max(at + BLOCK_SIZE_BYTES, hole));
    yield { kind: 'data', offset: at, length: end - at };
    at = end;
  }
}

export class StandardSender {
  readonly #migration: SourceMigration;
  readonly #image: ImageSpec;
  readonly #path: string;
  #channel: StandardChannel | undefined;
  #wake: (() => void) | undefined;
  #doneBytes = 0;
  #linkBytes = 0;

  constructor(migration: SourceMigration, image: ImageSpec, path: string) {
    this.#migration = migration;
    this.#image = image;
    this.#path = path;
  }

  get progress(): StandardProgress {
    return { imageId: this.#image.imageId, totalBytes: this.#image.sizeBytes, doneBytes: this.#doneBytes, linkBytes: this.#linkBytes };
  }

  /** @throws the coded error that ended it; the destination keeps what is durable, and the next run begins there */
  async run(signal: AbortSignal): Promise<StandardResult> {
    const startedAt = performance.now();
    const feed = await ScanFeed.open(this.#path, this.#image.sizeBytes);
    const abort = (): void => this.#channel?.destroy(toDwcpError(signal.reason, 'CANCELLED'));
    signal.addEventListener('abort', abort);
    try {
      const channel = await this.#open();
      if (signal.aborted) abort();
      const begun = await channel.ask({ method: 'begin', imageId: this.#image.imageId });
      await this.#sendAll(channel, feed.file.fd, begun.offset ?? 0);
      const manifest = await measureFile(this.#path, this.#image.sizeBytes, this.#migration.context.pool);
      feed.assertUnchanged();
      const root = manifest.root();
      await channel.ask({ method: 'finish', root });
      return { ...this.progress, began: begun.offset ? 'resumed' : 'empty', doneBytes: this.#image.sizeBytes, root, manifest, seconds: (performance.now() - startedAt) / 1000 };
    } finally {
      signal.removeEventListener('abort', abort);
      this.#channel?.destroy(new DwcpError('SESSION_LOST', 'The standard transfer has ended'));
      await feed.close();
    }
  }

  async #open(): Promise<StandardChannel> {
    const written = (offset: number): void => {
      this.#doneBytes = offset;
      this.#wake?.();
    };
    this.#channel = await StandardChannel.open(this.#migration, () => this.#wake?.(), written);
    return this.#channel;
  }

  async #sendAll(channel: StandardChannel, fd: number, offset: number): Promise<void> {
    this.#doneBytes = offset;
    for await (const { frame, free } of this.#extents(fd, offset)) {
      try {
        await this.#write(channel, frame);
      } finally {
        free();
      }
    }
    while (!channel.failed && this.#doneBytes < this.#image.sizeBytes) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    if (channel.failed) throw channel.failed;
  }

  /** Extents in order, a few of them read ahead. */
  async *#extents(fd: number, offset: number): AsyncGenerator<ReadyExtent> {
    const source = stretches(fd, this.#image.sizeBytes, offset);
    const ahead: Promise<ReadyExtent>[] = [];
    try {
      for (;;) {
        for (let next = source.next(); !next.done; next = source.next()) {
          const prepared = this.#prepare(fd, next.value);
          prepared.catch(() => undefined);
          if (ahead.push(prepared) >= READ_AHEAD) break;
        }
        const first = ahead.shift();
        if (!first) return;
        yield await first;
      }
    } finally {
      for (const prepared of ahead) void prepared.then(({ free }) => free(), () => undefined);
    }
  }

  async #prepare(fd: number, stretch: Stretch): Promise<ReadyExtent> {
    if (stretch.kind === 'hole') return { frame: holeFrame(stretch), free: () => undefined };
    const { pool, slab } = this.#migration.context;
    const run = await this.#takeRun(HEADER_BYTES + EXTENT_META_BYTES + stretch.length);
    try {
      const out = { memory: slab.memory, offset: run.offset, length: run.bytes.length };
      const { frameBytes } = await pool.run({ kind: 'readExtent', file: { fd, sizeBytes: this.#image.sizeBytes }, offset: stretch.offset, length: stretch.length, out });
      return { frame: run.bytes.subarray(0, frameBytes), free: () => slab.free(run) };
    } catch (error) {
      slab.free(run);
      throw error;
    }
  }

  async #takeRun(bytes: number): Promise<Run> {
    const { slab } = this.#migration.context;
    for (;;) {
      const run = slab.take(bytes);
      if (run) return run;
      await new Promise<void>((resolve) => {
        slab.whenFreed(resolve);
      });
    }
  }

  async #write(channel: StandardChannel, frame: Buffer): Promise<void> {
    const { bucket } = this.#migration;
    const quantum = bucket.quantumBytes;
    for (let at = 0; at < frame.length; at += quantum) {
      if (channel.failed) throw channel.failed;
      const piece = frame.subarray(at, Math.min(frame.length, at + quantum));
      await bucket.take(piece.length);
      await channel.connection.write(piece);
      this.#linkBytes += piece.length;
    }
  }
}

function holeFrame({ offset, length }: Stretch): Buffer {
  const frame = Buffer.alloc(HEADER_BYTES + EXTENT_META_BYTES);
  writeExtentMeta(frame.subarray(HEADER_BYTES), { kind: 'hole', offset, length, digest: Buffer.alloc(32) });
  sealFrame(frame, 'extent', 0, EXTENT_META_BYTES, 0);
  return frame;
}
