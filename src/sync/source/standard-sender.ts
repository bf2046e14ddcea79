/**
 * The source's half of the standard transfer: one TCP connection, the image in order, as it is. Holes are named, not
 * sent; nothing is compressed, compared or adapted. Protocol: standard-receiver.ts.
 */
import { onAbort } from '../../model/abort';
import { DwcpError, toDwcpError } from '../../model/errors';
import { BLOCK_SIZE_BYTES, blockCount, type ImageSpec } from '../../model/image';
import { MIB } from '../../model/units';
import { Manifest } from '../../store/manifest';
import { HEADER_BYTES, sealFrame } from '../../transport/frame';
import type { Run } from '../../transport/slab';
import { EXTENT_META_BYTES, writeExtentMeta } from '../codec/extent-format';
import type { StillFeed } from '../feeds/block-feed';
import type { SourceMigration } from './source-migration';
import { StandardChannel } from './standard-channel';

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

/** Stretches of data and holes of `from` to `end`, data cut to extents, borders on whole blocks. */
function* stretches(feed: StillFeed, from: number, end: number): Generator<Stretch> {
  let at = from;
  for (const { first, count } of [...feed.holes(), { first: Math.ceil(end / BLOCK_SIZE_BYTES), count: 0 }]) {
    const hole = Math.min(end, first * BLOCK_SIZE_BYTES);
    for (; at < hole; at = Math.min(hole, at + EXTENT_BYTES))
      yield { kind: 'data', offset: at, length: Math.min(hole - at, EXTENT_BYTES) };
    const data = Math.min(end, (first + count) * BLOCK_SIZE_BYTES);
    if (data > at) yield { kind: 'hole', offset: at, length: data - at };
    at = Math.max(at, data);
  }
}

export class StandardSender {
  readonly #migration: SourceMigration;
  readonly #image: ImageSpec;
  readonly #feed: StillFeed;
  readonly #manifest: Manifest;
  #channel: StandardChannel | undefined;
  #wake: (() => void) | undefined;
  #doneBytes = 0;
  #linkBytes = 0;

  constructor(migration: SourceMigration, image: ImageSpec, feed: StillFeed) {
    this.#migration = migration;
    this.#image = image;
    this.#feed = feed;
    this.#manifest = new Manifest(image.sizeBytes);
  }

  get progress(): StandardProgress {
    return {
      imageId: this.#image.imageId,
      totalBytes: this.#image.sizeBytes,
      doneBytes: this.#doneBytes,
      linkBytes: this.#linkBytes,
    };
  }

  /** @throws the coded error that ended it; the destination keeps what is durable, and the next run begins there */
  async run(signal: AbortSignal): Promise<StandardResult> {
    const startedAt = performance.now();
    let stopListening = (): void => undefined;
    try {
      const channel = await this.#open();
      stopListening = onAbort(signal, () => channel.destroy(toDwcpError(signal.reason, 'CANCELLED')));
      const begun = await channel.ask({ method: 'begin', imageId: this.#image.imageId });
      await this.#sendAll(channel, begun.offset ?? 0);
      this.#feed.assertUnchanged();
      const root = this.#manifest.root();
      await channel.ask({ method: 'finish', root });
      return {
        ...this.progress,
        began: begun.offset ? 'resumed' : 'empty',
        doneBytes: this.#image.sizeBytes,
        root,
        manifest: this.#manifest,
        seconds: (performance.now() - startedAt) / 1000,
      };
    } finally {
      stopListening();
      this.#channel?.destroy(new DwcpError('SESSION_LOST', 'The standard transfer has ended'));
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

  async #sendAll(channel: StandardChannel, offset: number): Promise<void> {
    this.#doneBytes = offset;
    // What the destination has is only hashed.
    for await (const { free } of this.#extents(0, offset)) {
      free();
      if (channel.failed) throw channel.failed;
    }
    for await (const { frame, free } of this.#extents(offset, this.#image.sizeBytes)) {
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
  async *#extents(from: number, end: number): AsyncGenerator<ReadyExtent> {
    const source = stretches(this.#feed, from, end);
    const ahead: Promise<ReadyExtent>[] = [];
    try {
      for (;;) {
        for (let next = source.next(); !next.done; next = source.next()) {
          const prepared = this.#prepare(next.value);
          prepared.catch(() => undefined);
          if (ahead.push(prepared) >= READ_AHEAD) break;
        }
        const first = ahead.shift();
        if (!first) return;
        yield await first;
      }
    } finally {
      for (const prepared of ahead)
        void prepared.then(
          ({ free }) => free(),
          () => undefined,
        );
    }
  }

  async #prepare(stretch: Stretch): Promise<ReadyExtent> {
    if (stretch.kind === 'hole') return { frame: holeFrame(stretch), free: () => undefined };
    const { pool, slab } = this.#migration.context;
    const run = await this.#takeRun(HEADER_BYTES + EXTENT_META_BYTES + stretch.length);
    try {
      const out = { memory: slab.memory, offset: run.offset, length: run.bytes.length };
      const feed = this.#feed;
      const { offset, length } = stretch;
      const blocks = { first: offset / BLOCK_SIZE_BYTES, count: blockCount(length) };
      await feed.load?.(blocks, run.bytes.subarray(HEADER_BYTES + EXTENT_META_BYTES));
      const { frameBytes } = await pool.run({
        kind: 'readExtent',
        file: feed.file,
        offset,
        length,
        loaded: feed.load !== undefined,
        hashes: this.#manifest.memory,
        out,
      });
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
