/**
 * Sends the images of a running guest, all at once and for as long as they change: disks before memory, each block in its
 * newest version, over one session after the other. Ends when every feed has ended and all is confirmed. When rounds end,
 * and what becomes of the guest, is live-migration.ts's.
 */
import { compressBound, Packer } from '../../encoder/packer';
import { DwcpError, hasCode, toDwcpError } from '../../model/errors';
import { BLOCK_SIZE_BYTES, type ImageSpec } from '../../model/image';
import type { MigrationOptions } from '../../model/options';
import { ownValue } from '../../model/own-value';
import type { LevelAndStreams } from '../../model/tiers';
import type { DictionaryKey } from '../../store/dictionaries';
import { Manifest } from '../../store/manifest';
import type { SendingSession } from '../../transport/sending-session';
import { PageTable } from '../codec/page-table';
import { inLanes } from '../codec/pieces';
import type { SharedVersions } from '../codec/version-cache';
import type { LiveFeed } from '../feeds/live-feed';
import { type BatchCounts, noCounts } from '../source/batch-counts';
import { BatchSource } from '../source/batch-source';
import { askPageHashes, learnHeld } from '../source/held-manifest';
import type { SendProgress, SentImage } from '../source/image-sender';
import type { Pacing } from '../source/pacing';
import { LinkMeter, learnShared, paceOf, pacingOf, packedBy, transferPass } from '../source/pass';
import type { ReferenceSources } from '../source/reference-sources';
import type { SourceMigration } from '../source/source-migration';

export interface GuestImage {
  readonly image: ImageSpec;
  readonly feed: LiveFeed;
}

export interface GuestSendRequest {
  readonly vmId: string;
  /** What frames may be packed with. */
  readonly dictionaryKey?: DictionaryKey | undefined;
  /** Of memory: versions sent before. */
  readonly versions: SharedVersions;
  /** Of the guest's disks, for a sample of what they hold. */
  readonly diskPaths: readonly string[];
  /** What blocks may refer to. */
  readonly references: ReferenceSources | undefined;
  readonly images: readonly GuestImage[];
  readonly start: LevelAndStreams;
  readonly options: Pick<
    MigrationOptions,
    'enableDelta' | 'enableDeltaSync' | 'enableDictionary' | 'deltaThreshold' | 'minStreams' | 'initialStreams'
  >;
  readonly linkBytesPerSecond: number;
  /** A session stands and what is held of an image is known: what lies in holes on both sides can be left out. */
  readonly opened: (imageId: string, held: Manifest, source: Manifest, pages: PageTable | undefined) => Promise<void>;
  /** All images are open: a guest that cannot run there is refused before any of it is sent. @throws GUEST_REFUSED */
  readonly ready: (session: SendingSession) => Promise<unknown>;
  /** A session stands, all images are open: what else the destination has to know of the guest. Batches do not wait for it. */
  readonly begun: (session: SendingSession) => Promise<void>;
}

interface SentLane {
  readonly image: ImageSpec;
  readonly feed: LiveFeed;
  readonly source: Manifest;
  readonly pages: PageTable | undefined;
  readonly versions: SharedVersions | undefined;
  readonly counts: BatchCounts;
  held: Manifest;
  imageNumber: number;
  began: SentImage['began'] | undefined;
}

const LEAST_BATCH_BLOCKS = 8;
/** A control connection takes 64 requests at a time, and a VM may have more images. */
const ASKED_AT_A_TIME = 32;

export class GuestSender {
  readonly #migration: SourceMigration;
  readonly #request: GuestSendRequest;
  readonly #lanes: readonly SentLane[];
  readonly #pacing: Pacing;
  readonly #startedAt = performance.now();
  #nextBatch = 1;
  readonly #link = new LinkMeter();
  #source: BatchSource | undefined;
  #passes = 0;
  #maxStreams = 0;

  constructor(migration: SourceMigration, request: GuestSendRequest) {
    this.#migration = migration;
    this.#request = request;
    this.#lanes = request.images.map(({ image, feed }) => {
      const source = new Manifest(image.sizeBytes);
      // Page hashes are kept for what changes most; a disk's are asked for when they are needed.
      const pages = image.kind === 'memory' ? new PageTable(source.blocks) : undefined;
      const versions = image.kind === 'memory' && request.options.enableDelta ? request.versions : undefined;
      return {
        image,
        feed,
        source,
        pages,
        versions,
        counts: noCounts(),
        held: new Manifest(image.sizeBytes),
        imageNumber: 0,
        began: undefined,
      };
    });
    const { start, options } = request;
    // Enough to be fast from the first window on; what is on the way is bounded, so more would only starve one another.
    const streams = Math.min(start.maxStreams, 2 * options.initialStreams);
    const bounds = {
      initial: streams,
      min: Math.min(options.minStreams, streams),
      max: Math.min(start.maxStreams, 2 * streams),
    };
    this.#pacing = pacingOf(migration, start, bounds, request.linkBytesPerSecond);
  }

  /** The session that carries it now. */
  get session(): SendingSession | undefined {
    return this.#link.session?.ended ? undefined : this.#link.session;
  }

  /** Bytes on the wire for each byte that was looked at and had to be sent, as of late. */
  wireShare(imageId: string): number {
    const { counts } = this.#lane(imageId);
    const raw = (counts.scannedBlocks - counts.zeroBlocks - counts.unchangedBlocks) * BLOCK_SIZE_BYTES;
    return raw <= 0 ? 1 : Math.min(1, counts.payloadBytes / raw);
  }

  get largestOnTheWay(): number {
    return this.#source?.largestOnTheWay ?? 0;
  }

  /** Somebody waits: small batches on all streams at once, packed fast. */
  hurry(): void {
    this.#pacing.hurry(this.session);
  }

  progress(imageId: string): SendProgress {
    const { image, counts, feed, source, began } = this.#lane(imageId);
    const stats = this.session?.stats;
    const looked = Math.min(
      source.blocks,
      counts.scannedBlocks + feed.settled.length + (feed.open ? 0 : source.blocks),
    );
    const doneBytes = Math.max(
      0,
      Math.min(image.sizeBytes, (looked / source.blocks) * image.sizeBytes - feed.backlogBytes),
    );
    return {
      imageId,
      totalBytes: image.sizeBytes,
      doneBytes,
      linkBytes: this.#shareOf(imageId),
      ...paceOf(stats, this.#pacing),
      verifiedBlocks: counts.verifiedBlocks,
      elapsedMs: performance.now() - this.#startedAt,
      began,
    };
  }

  /** @returns what was sent, after run() has ended; @param roots of the images as they are now */
  result(imageId: string, root: string): SentImage {
    const { image, feed, source, began, ...lane } = this.#lane(imageId);
    const settledZero = feed.settled.filter((block) => source.isZero(block)).length;
    const counts = {
      ...lane.counts,
      zeroBlocks: lane.counts.zeroBlocks + settledZero,
      unchangedBlocks: lane.counts.unchangedBlocks + feed.settled.length - settledZero,
    };
    return {
      imageId,
      root,
      totalBytes: image.sizeBytes,
      linkBytes: this.#shareOf(imageId),
      seconds: (performance.now() - this.#startedAt) / 1000,
      counts,
      began: began ?? 'empty',
      maxStreams: this.#maxStreams,
      lastLevel: this.#pacing.level,
      batchBytes: this.#pacing.batchBytes,
      resumes: this.#passes - 1,
    };
  }

  /** Sends until every feed has ended and everything is confirmed. @throws the coded error that ended it */
  async run(signal: AbortSignal): Promise<void> {
    for (;;) {
      const session = await this.#migration.sessionPatiently(signal);
      try {
        await this.#pass(session, signal);
        return;
      } catch (error) {
        const reason = toDwcpError(error, 'INTERNAL');
        if (signal.aborted || !hasCode(reason, 'SESSION_LOST', 'PATH_OUTAGE', 'FRAME_CORRUPT')) throw reason;
      }
    }
  }

  /** Roots of all images as the source knows them, computed off the main thread. */
  async roots(): Promise<Record<string, string>> {
    const { pool } = this.#migration.context;
    const roots = await Promise.all(
      this.#lanes.map(
        async ({ image, source }) =>
          [image.imageId, await pool.run({ kind: 'root', hashes: source.memory, sizeBytes: image.sizeBytes })] as const,
      ),
    );
    return Object.fromEntries(roots);
  }

  /**
   * Everything is there: the destination compares the roots, and its QEMU loads the device state.
   * @throws INTEGRITY_MISMATCH, QEMU_REFUSED
   */
  async finish(
    { control }: SendingSession,
    roots: Readonly<Record<string, string>>,
    commands: Buffer,
    devices: Buffer,
  ): Promise<void> {
    const state = Buffer.concat([commands, devices]);
    const packed = Buffer.allocUnsafe(compressBound(state.length));
    const packedBytes = new Packer().packedSize(state, packed, 3);
    await Promise.all([
      inLanes(ASKED_AT_A_TIME, this.#lanes, ({ image, imageNumber }) =>
        control.request('finish_image', { image: imageNumber, root: ownValue(roots, image.imageId) }),
      ),
      control.request(
        'guest_load',
        { commandBytes: commands.length, totalBytes: state.length },
        packed.subarray(0, packedBytes),
      ),
    ]);
  }

  /** Keeps the hashes of what was sent: they are the baseline of the way back. */
  remember(): void {
    for (const { image, source } of this.#lanes) this.#migration.sentManifests.set(image.imageId, source);
  }

  async #pass(session: SendingSession, signal: AbortSignal): Promise<void> {
    const { options, start, references } = this.#request;
    const { pool, slab, store } = this.#migration.context;
    this.#link.follow(session, this.#passes === 0);
    // Files alone are named without waiting for the images' numbers.
    const declared = this.#lanes.every(({ image }) => image.kind === 'memory')
      ? references?.declare(session, () => 0)
      : undefined;
    declared?.catch(() => undefined);
    // Side by side: what is asked and proven of one image does not wait for another's.
    const opened = new Map<SentLane, Awaited<ReturnType<typeof learnHeld>>>();
    await inLanes(ASKED_AT_A_TIME, this.#lanes, async (lane) => {
      const baseline = this.#passes === 0 ? await store.open(this.#request.vmId, lane.image.imageId) : undefined;
      const known = { useBaseline: options.enableDeltaSync, baseline, feed: lane.feed };
      opened.set(lane, await learnHeld(this.#migration, session, lane.image, known));
    });
    const [first] = opened.values();
    if (!first) throw new DwcpError('INTERNAL', 'A guest without images');
    const { bases, pageKey } = first;
    for (const [lane, held] of opened) {
      lane.held = held.manifest;
      lane.imageNumber = held.imageNumber;
      lane.began ??= held.state;
      lane.pages?.forget();
      if (this.#passes === 0) await this.#request.opened(lane.image.imageId, lane.held, lane.source, lane.pages);
      lane.feed.restart((block) => lane.source.hashOf(block).equals(lane.held.hashOf(block)));
    }
    await (declared ?? references?.declare(session, (imageId) => this.#lane(imageId).imageNumber));
    const [shared] = await Promise.all([
      learnShared(this.#migration, session, options, {
        compress: start.compress,
        dictionaryKey: this.#request.dictionaryKey,
        bases: bases ? { paths: this.#request.diskPaths, pageKey } : undefined,
      }),
      this.#request.ready(session),
    ]);
    this.#passes += 1;
    const source = new BatchSource(
      this.#lanes.map((lane) => ({
        imageNumber: lane.imageNumber,
        feed: lane.feed,
        source: lane.source,
        held: lane.held,
        pages: lane.pages,
        references: references?.of(lane.image.imageId),
        bases: shared.bases,
        versions: lane.versions,
        counts: lane.counts,
        scanned: () => undefined,
      })),
      {
        pool,
        slab,
        settings: () => packedBy(this.#pacing, start, options, shared.dictionary),
        batchBlocks: () => this.#batchBlocks(session),
        askPageHashes: (image, blocks) => askPageHashes(session, image, blocks, pageKey),
        encoded: (result, level) => {
          this.#maxStreams = Math.max(this.#maxStreams, session.stats.activeStreams);
          this.#pacing.encoded(result, level);
        },
      },
      this.#nextBatch,
    );
    this.#source = source;
    try {
      await transferPass(session, source, this.#pacing, signal, {
        begun: this.#request.begun(session),
        brake: (wantedBytes) => source.brake(wantedBytes),
      });
    } finally {
      this.#nextBatch = source.nextBatchId;
    }
  }

  /**
   * Most of what is looked at has not changed, or packs well: small batches would cost more than they spread. What is left at
   * the end of a round is spread over all streams, or one of them would be waited for.
   */
  #batchBlocks(session: SendingSession): number {
    const backlogBlocks = this.#lanes.reduce((sum, { feed }) => sum + feed.backlogBytes, 0) / BLOCK_SIZE_BYTES;
    const spread = Math.ceil(backlogBlocks / (2 * Math.max(1, session.stats.activeStreams)));
    return Math.max(1, Math.min(spread, Math.max(LEAST_BATCH_BLOCKS, this.#pacing.batchBlocks)));
  }

  #lane(imageId: string): SentLane {
    const lane = this.#lanes.find(({ image }) => image.imageId === imageId);
    if (!lane) throw new DwcpError('INTERNAL', `No image ${imageId} is being sent`);
    return lane;
  }

  /** The session's bytes, shared out by what each image's batches weighed. */
  #shareOf(imageId: string): number {
    const total = this.#lanes.reduce((sum, { counts }) => sum + counts.payloadBytes, 0);
    return Math.round(total === 0 ? 0 : (this.#link.bytes * this.#lane(imageId).counts.payloadBytes) / total);
  }
}
