/**
 * src/sync's senders without encoding and pacing, for one life of an agent: they pull named blocks from the real feeds, send
 * each as a real batch frame of one stored block, and end when the feeds have ended and all is confirmed. The order of the
 * questions before and after is that of guest-sender.ts and image-sender.ts.
 */
import { emptyAccount } from '../../src/encoder/account';
import { compressBound, Packer } from '../../src/encoder/packer';
import { DwcpError, hasCode, toDwcpError } from '../../src/model/errors';
import { BLOCK_SIZE_BYTES, type ImageSpec } from '../../src/model/image';
import type { Manifest } from '../../src/store/manifest';
import type { PageTable } from '../../src/sync/codec/page-table';
import type { BlockFeed } from '../../src/sync/feeds/block-feed';
import type { GuestSendRequest } from '../../src/sync/guest/guest-sender';
import type { SendImageRequest, SendProgress, SentImage } from '../../src/sync/source/image-sender';
import type { SourceMigration } from '../../src/sync/source/source-migration';
import { BlockPump, type Lane, type Parts } from './block-pump';
import type { Module } from './fs-modules';
import type { SimSendingSession } from './sim-transport';

function resultOf(lane: Lane, root: string, linkBytes: number): SentImage {
  const counts = {
    scannedBlocks: lane.looked,
    zeroBlocks: 0,
    unchangedBlocks: 0,
    replacedBlocks: 0,
    verifiedBlocks: lane.verified,
    resentBlocks: 0,
    refusedBlocks: 0,
    gatheredBytes: 0,
    payloadBytes: 0,
    account: emptyAccount(),
  };
  return {
    imageId: lane.image.imageId,
    root,
    totalBytes: lane.image.sizeBytes,
    linkBytes,
    seconds: 1,
    counts,
    began: lane.began,
    maxStreams: 4,
    lastLevel: 0,
    batchBytes: BLOCK_SIZE_BYTES,
    resumes: 0,
  };
}

function progressOf(lane: Lane): SendProgress {
  return {
    imageId: lane.image.imageId,
    totalBytes: lane.image.sizeBytes,
    doneBytes: Math.min(lane.image.sizeBytes, lane.verified * BLOCK_SIZE_BYTES),
    linkBytes: lane.verified * BLOCK_SIZE_BYTES,
    goodputBytesPerSecond: 4e6,
    streams: 4,
    level: 0,
    levelReason: 'simulated',
    batchBytes: BLOCK_SIZE_BYTES,
    rttMs: 10,
    verifiedBlocks: lane.verified,
    elapsedMs: 0,
    began: lane.began,
  };
}

export function senderModules(parts: Parts): Readonly<Record<string, Module>> {
  const { load } = parts;
  const Manifests = load('src/store/manifest').Manifest as new (sizeBytes: number) => Manifest;
  const manifestOf = (sizeBytes: number): Manifest => new Manifests(sizeBytes);
  const learnHeld = load('src/sync/source/held-manifest').learnHeld as (
    ...args: unknown[]
  ) => Promise<{ imageNumber: number; state: SentImage['began']; manifest: Manifest }>;
  const laneOf = (image: ImageSpec, feed: BlockFeed, pages: PageTable | undefined): Lane => ({
    image,
    feed,
    source: manifestOf(image.sizeBytes),
    pages,
    held: manifestOf(image.sizeBytes),
    number: 0,
    began: 'empty',
    hashed: new Set(),
    looked: 0,
    verified: 0,
  });
  const sessionOf = async (migration: SourceMigration, signal: AbortSignal): Promise<SimSendingSession> =>
    (await migration.sessionPatiently(signal)) as unknown as SimSendingSession;
  const isPassing = (signal: AbortSignal, error: unknown): boolean =>
    !signal.aborted && hasCode(error, 'SESSION_LOST', 'PATH_OUTAGE', 'FRAME_CORRUPT', 'INTEGRITY_MISMATCH');

  class GuestSender {
    readonly largestOnTheWay = 0;
    readonly #migration: SourceMigration;
    readonly #request: GuestSendRequest;
    readonly #lanes: readonly Lane[];
    #session: SimSendingSession | undefined;
    #pump: BlockPump | undefined;
    #nextBatch = 1;
    #passes = 0;

    constructor(migration: SourceMigration, request: GuestSendRequest) {
      this.#migration = migration;
      this.#request = request;
      const PageTables = load('src/sync/codec/page-table').PageTable as new (blocks: number) => PageTable;
      this.#lanes = request.images.map(({ image, feed }) =>
        laneOf(
          image,
          feed,
          image.kind === 'memory' ? new PageTables(Math.ceil(image.sizeBytes / BLOCK_SIZE_BYTES)) : undefined,
        ),
      );
    }

    get session(): SimSendingSession | undefined {
      return this.#session?.ended ? undefined : this.#session;
    }

    wireShare(): number {
      return 1;
    }

    hurry(): void {
      return;
    }

    progress(imageId: string): SendProgress {
      return progressOf(this.#lane(imageId));
    }

    result(imageId: string, root: string): SentImage {
      return resultOf(this.#lane(imageId), root, this.#session?.linkBytes ?? 0);
    }

    async run(signal: AbortSignal): Promise<void> {
      for (;;) {
        const session = await sessionOf(this.#migration, signal);
        try {
          await this.#pass(session, signal);
          return;
        } catch (error) {
          if (!isPassing(signal, error) || hasCode(error, 'INTEGRITY_MISMATCH')) throw toDwcpError(error, 'INTERNAL');
        }
      }
    }

    async roots(): Promise<Record<string, string>> {
      const { pool } = this.#migration.context;
      const roots = await Promise.all(
        this.#lanes.map(
          async ({ image, source }) =>
            [
              image.imageId,
              await pool.run({ kind: 'root', hashes: source.memory, sizeBytes: image.sizeBytes }),
            ] as const,
        ),
      );
      return Object.fromEntries(roots);
    }

    async finish(
      { control }: SimSendingSession,
      roots: Readonly<Record<string, string>>,
      commands: Buffer,
      devices: Buffer,
    ): Promise<void> {
      const state = Buffer.concat([commands, devices]);
      const packed = Buffer.alloc(compressBound(state.length));
      const packedBytes = new Packer().packedSize(state, packed, 3);
      await Promise.all([
        ...this.#lanes.map(({ image, number }) =>
          control.request('finish_image', { image: number, root: roots[image.imageId] }),
        ),
        control.request(
          'guest_load',
          { commandBytes: commands.length, totalBytes: state.length },
          packed.subarray(0, packedBytes),
        ),
      ]);
    }

    remember(): void {
      for (const { image, source } of this.#lanes) this.#migration.sentManifests.set(image.imageId, source);
    }

    async #pass(session: SimSendingSession, signal: AbortSignal): Promise<void> {
      const { options, vmId } = this.#request;
      this.#session = session;
      for (const lane of this.#lanes) {
        const baseline =
          this.#passes === 0 ? await this.#migration.context.store.open(vmId, lane.image.imageId) : undefined;
        const known = { useBaseline: options.enableDeltaSync, baseline, feed: lane.feed };
        const held = await learnHeld(this.#migration, session, lane.image, known);
        lane.held = held.manifest;
        lane.number = held.imageNumber;
        if (this.#passes === 0) lane.began = held.state;
        lane.pages?.forget();
        if (this.#passes === 0) await this.#request.opened(lane.image.imageId, lane.held, lane.source, lane.pages);
        lane.feed.restart((block) => lane.source.hashOf(block).equals(lane.held.hashOf(block)));
      }
      this.#passes += 1;
      const pump = new BlockPump(parts, session, this.#lanes, this.#nextBatch);
      this.#pump = pump;
      this.#request.begun(session as never).catch((error: unknown) => pump.fail(toDwcpError(error, 'INTERNAL')));
      try {
        await pump.run(signal);
      } finally {
        this.#nextBatch = pump.next;
      }
    }

    get onTheWayBytes(): number {
      return this.#pump?.outstandingBytes ?? 0;
    }

    #lane(imageId: string): Lane {
      const lane = this.#lanes.find(({ image }) => image.imageId === imageId);
      if (!lane) throw new DwcpError('INTERNAL', `No image ${imageId} is being sent`);
      return lane;
    }
  }

  class ImageSender {
    readonly #migration: SourceMigration;
    readonly #request: SendImageRequest;
    readonly #lane: Lane;
    #nextBatch = 1;

    constructor(migration: SourceMigration, request: SendImageRequest) {
      this.#migration = migration;
      this.#request = request;
      this.#lane = laneOf(request.image, request.feed, undefined);
    }

    get progress(): SendProgress {
      return progressOf(this.#lane);
    }

    async run(signal: AbortSignal): Promise<SentImage> {
      const { vmId, image } = this.#request;
      const baseline = await this.#migration.context.store.open(vmId, image.imageId);
      for (let mismatches = 0; ; ) {
        const session = await sessionOf(this.#migration, signal);
        try {
          return await this.#pass(session, baseline, signal);
        } catch (error) {
          if (!isPassing(signal, error)) throw toDwcpError(error, 'INTERNAL');
          if (hasCode(error, 'INTEGRITY_MISMATCH') && ++mismatches >= 3) throw error;
        }
      }
    }

    async #pass(session: SimSendingSession, baseline: unknown, signal: AbortSignal): Promise<SentImage> {
      const { image, feed, options } = this.#request;
      const lane = this.#lane;
      const known = { useBaseline: options.enableDeltaSync, baseline, feed };
      const held = await learnHeld(this.#migration, session, image, known);
      lane.held = held.manifest;
      lane.number = held.imageNumber;
      lane.began = held.state;
      feed.restart((block) => lane.hashed.has(block) && lane.source.hashOf(block).equals(lane.held.hashOf(block)));
      const pump = new BlockPump(parts, session, [lane], this.#nextBatch);
      try {
        await pump.run(signal);
      } finally {
        this.#nextBatch = pump.next;
      }
      feed.assertUnchanged();
      const root = await this.#migration.context.pool.run({
        kind: 'root',
        hashes: lane.source.memory,
        sizeBytes: image.sizeBytes,
      });
      await session.control.request('finish_image', { image: lane.number, root });
      this.#migration.sentManifests.set(image.imageId, lane.source);
      return resultOf(lane, root, session.linkBytes);
    }
  }

  return { 'src/sync/guest/guest-sender': { GuestSender }, 'src/sync/source/image-sender': { ImageSender } };
}
