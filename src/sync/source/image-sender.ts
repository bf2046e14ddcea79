/**
 * Makes the destination's image equal to the source's: the source's half of one sync, from the first question (what
 * do you hold?) to the last (is your root mine?). Runs until that holds; a lost session is opened again and the sync goes
 * on with what is missing. Starting it again from nothing does the same, which is what makes the activity idempotent.
 */
import { type FileHandle, open } from 'node:fs/promises';
import { hasCode, toDwcpError } from '../../model/errors';
import type { ImageSpec } from '../../model/image';
import type { MigrationOptions } from '../../model/options';
import type { LevelAndStreams } from '../../model/tiers';
import { type Baseline, type BaselineStore, baselinePathOf } from '../../store/baselines';
import type { DictionaryKey } from '../../store/dictionaries';
import { Manifest } from '../../store/manifest';
import type { ContentCipher } from '../../store/sealing-key';
import { isDevicePath } from '../../system/block-device';
import type { SendingSession } from '../../transport/sending-session';
import type { BlockSelection } from '../codec/block-selection';
import type { StillFeed } from '../feeds/block-feed';
import { type BatchCounts, noCounts } from './batch-counts';
import { BatchSource } from './batch-source';
import { askPageHashes, learnHeld } from './held-manifest';
import type { Pacing } from './pacing';
import { LinkMeter, learnShared, paceOf, pacingOf, packedBy, transferPass } from './pass';
import type { ReferenceSources } from './reference-sources';
import { rememberPaths } from './remember-paths';
import type { SourceMigration } from './source-migration';

export interface SendImageRequest {
  readonly vmId: string;
  /** What frames may be packed with. */
  readonly dictionaryKey?: DictionaryKey | undefined;
  readonly image: ImageSpec;
  readonly path: string;
  readonly feed: StillFeed;
  readonly start: LevelAndStreams;
  readonly options: Pick<MigrationOptions, 'enableDelta' | 'enableDeltaSync' | 'enableDictionary' | 'deltaThreshold'>;
  readonly linkBytesPerSecond: number;
  /** What its pages may be found in at the destination. */
  readonly references?:
    | { readonly sources: ReferenceSources; readonly numberOf: (imageId: string) => number }
    | undefined;
}

export interface SendProgress {
  readonly imageId: string;
  readonly totalBytes: number;
  /** Bytes known to be equal on both sides. */
  readonly doneBytes: number;
  readonly linkBytes: number;
  readonly goodputBytesPerSecond: number;
  readonly streams: number;
  readonly level: number;
  readonly levelReason: string;
  readonly batchBytes: number;
  readonly rttMs: number;
  readonly verifiedBlocks: number;
  readonly elapsedMs: number;
  /** What the destination began with, once it has said so. */
  readonly began: SentImage['began'] | undefined;
}

export interface SentImage {
  readonly imageId: string;
  readonly root: string;
  readonly totalBytes: number;
  readonly linkBytes: number;
  readonly seconds: number;
  readonly counts: BatchCounts;
  /** What the destination began with. */
  readonly began: 'empty' | 'baseline' | 'resumed';
  readonly maxStreams: number;
  readonly lastLevel: number;
  readonly batchBytes: number;
  readonly resumes: number;
}

/** What is known of a block of the source, one byte each. */
const SEEN = { not: 0, read: 1, zeroOnBothSides: 2 } as const;

/** Passes that end with different roots: after so many the fault is not chance. */
const MAX_MISMATCHES = 3;

const WELL_PACKED_BLOCKS = 16;
/** Batches that each stream takes until the end, at least. */
const ROUNDS_LEFT = 4;

export class ImageSender {
  readonly #migration: SourceMigration;
  readonly #request: SendImageRequest;
  readonly #source: Manifest;
  readonly #scanned: Uint8Array;
  readonly #counts = noCounts();
  readonly #pacing: Pacing;
  readonly #startedAt = performance.now();
  #held: Manifest;
  #began: SentImage['began'] | undefined;
  #nextBatch = 1;
  #maxStreams = 0;
  #resumes = -1;
  readonly #link = new LinkMeter();
  #settledBlocks = 0;
  #doneBefore = 0;

  constructor(migration: SourceMigration, request: SendImageRequest) {
    this.#migration = migration;
    this.#request = request;
    this.#source = new Manifest(request.image.sizeBytes);
    this.#held = new Manifest(request.image.sizeBytes);
    this.#scanned = new Uint8Array(this.#source.blocks);
    const { start } = request;
    const bounds = { initial: start.initialStreams, min: start.minStreams, max: start.maxStreams };
    this.#pacing = pacingOf(migration, start, bounds, request.linkBytesPerSecond);
  }

  get progress(): SendProgress {
    const stats = this.#migration.openSession?.stats;
    const { image } = this.#request;
    const doneBlocks = this.#settledBlocks + this.#doneInPasses() - this.#doneBefore;
    const doneBytes = Math.min(image.sizeBytes, (doneBlocks / this.#source.blocks) * image.sizeBytes);
    return {
      imageId: image.imageId,
      totalBytes: image.sizeBytes,
      doneBytes,
      linkBytes: this.#link.bytes,
      ...paceOf(stats, this.#pacing),
      verifiedBlocks: this.#counts.verifiedBlocks,
      elapsedMs: performance.now() - this.#startedAt,
      began: this.#began,
    };
  }

  /** @throws the coded error that ended it; what has arrived is kept by the destination */
  async run(signal: AbortSignal): Promise<SentImage> {
    const baseline = this.#request.options.enableDelta
      ? await this.#migration.context.store.open(this.#request.vmId, this.#request.image.imageId)
      : undefined;
    const shadow = await openShadow(baseline, this.#request, this.#migration.context.store);
    try {
      for (let mismatches = 0; ; ) {
        const session = await this.#migration.sessionPatiently(signal);
        try {
          return await this.#pass(session, baseline, shadow, signal);
        } catch (error) {
          const reason = toDwcpError(error, 'INTERNAL');
          if (signal.aborted || !hasCode(reason, 'SESSION_LOST', 'PATH_OUTAGE', 'FRAME_CORRUPT', 'INTEGRITY_MISMATCH'))
            throw reason;
          if (reason.code === 'INTEGRITY_MISMATCH' && ++mismatches >= MAX_MISMATCHES) throw reason;
        }
      }
    } finally {
      await shadow?.handle.close();
      await rememberPaths(
        this.#migration,
        this.#link.session?.stats.paths ?? [],
        this.#pacing.confirmed,
        this.#request.start.initialStreams,
      );
    }
  }

  async #pass(
    session: SendingSession,
    baseline: Baseline | undefined,
    shadow: Shadow | undefined,
    signal: AbortSignal,
  ): Promise<SentImage> {
    const { image, feed, start, options, references } = this.#request;
    const { pool, slab } = this.#migration.context;
    this.#link.follow(session, this.#resumes < 0);
    this.#pacing.open(session);
    const held = await learnHeld(this.#migration, session, image, {
      useBaseline: options.enableDeltaSync,
      baseline,
      feed,
    });
    this.#held = held.manifest;
    this.#began ??= held.state;
    const { imageNumber, pageKey } = held;
    await references?.sources.declare(session, references.numberOf);
    const { bases, dictionary } = await learnShared(this.#migration, session, options, {
      compress: start.compress,
      dictionaryKey: this.#request.dictionaryKey,
      bases: held.bases ? { paths: [this.#request.path], pageKey } : undefined,
    });
    this.#beginPass(feed);
    const source = new BatchSource(
      [
        {
          imageNumber,
          feed,
          source: this.#source,
          held: this.#held,
          shadow: shadow && baseline && { fd: shadow.handle.fd, cipher: shadow.cipher, manifest: baseline.manifest },
          references: references?.sources.of(image.imageId),
          bases,
          counts: this.#counts,
          scanned: (blocks) => this.#markScanned(blocks),
        },
      ],
      {
        pool,
        slab,
        settings: () => ({ ...packedBy(this.#pacing, start, options, dictionary), numeric: image.kind === 'gpu' }),
        batchBlocks: () => Math.max(this.#pacing.batchBlocks, this.#worthPacking(feed, session)),
        askPageHashes: (number, blocks) => askPageHashes(session, number, blocks, pageKey),
        encoded: (result, level) => this.#encoded(result, level),
      },
      this.#nextBatch,
    );
    try {
      await transferPass(session, source, this.#pacing, signal);
    } finally {
      this.#nextBatch = source.nextBatchId;
    }
    feed.assertUnchanged();
    const root = await pool.run({ kind: 'root', hashes: this.#source.memory, sizeBytes: image.sizeBytes });
    await session.control.request('finish_image', { image: imageNumber, root });
    this.#migration.sentManifests.set(image.imageId, this.#source);
    return this.#result(root);
  }

  /** 1 MiB packs 7 % smaller than 128 KiB at any level. Towards the end batches are small again: nobody waits long for the last ones. */
  #worthPacking(feed: StillFeed, session: SendingSession): number {
    if (!this.#request.start.compress) return 0;
    return Math.min(
      WELL_PACKED_BLOCKS,
      Math.floor(feed.remaining / (ROUNDS_LEFT * Math.max(1, session.stats.activeStreams))),
    );
  }

  #encoded(result: Parameters<Pacing['encoded']>[0], level: number): void {
    this.#maxStreams = Math.max(this.#maxStreams, this.#migration.openSession?.stats.activeStreams ?? 0);
    this.#pacing.encoded(result, level);
  }

  #markScanned(blocks: BlockSelection): void {
    if ('first' in blocks) this.#scanned.fill(SEEN.read, blocks.first, blocks.first + blocks.count);
    else for (const block of blocks.list) this.#scanned[block] = SEEN.read;
  }

  /** A hole where the destination has zeros, or read in an earlier pass and known to be equal on the other side. */
  #isSettled(block: number): boolean {
    const seen = this.#scanned[block];
    return (
      seen === SEEN.zeroOnBothSides ||
      (seen === SEEN.read && this.#source.hashOf(block).equals(this.#held.hashOf(block)))
    );
  }

  /** Large images are mostly holes: what is zero on both sides is settled without a look. */
  #settleHoles(feed: StillFeed): void {
    for (const { first, count } of feed.holes()) {
      for (let block = first; block < first + count; block += 1) {
        if (this.#scanned[block] !== SEEN.not || !this.#held.isZero(block)) continue;
        this.#scanned[block] = SEEN.zeroOnBothSides;
        this.#counts.zeroBlocks += 1;
      }
    }
  }

  /** Begins a pass: what an earlier one has settled is not looked at again, the rest is counted anew. */
  #beginPass(feed: StillFeed): void {
    this.#resumes += 1;
    this.#settledBlocks = 0;
    // What the destination holds may be another state now; what was a hole is looked at again, and counted once.
    for (let block = 0; block < this.#scanned.length; block += 1)
      if (this.#scanned[block] === SEEN.zeroOnBothSides && !this.#held.isZero(block)) this.#scanned[block] = SEEN.not;
    if (this.#resumes > 0)
      for (let block = 0; block < this.#source.blocks; block += 1) if (this.#isSettled(block)) this.#settledBlocks += 1;
    this.#doneBefore = this.#doneInPasses();
    this.#settleHoles(feed);
    feed.restart((block) => this.#isSettled(block));
  }

  /** Blocks done as all passes together counted them. */
  #doneInPasses(): number {
    const { zeroBlocks, unchangedBlocks, verifiedBlocks } = this.#counts;
    return zeroBlocks + unchangedBlocks + verifiedBlocks;
  }

  #result(root: string): SentImage {
    const { image } = this.#request;
    return {
      imageId: image.imageId,
      root,
      totalBytes: image.sizeBytes,
      linkBytes: this.#link.bytes,
      seconds: (performance.now() - this.#startedAt) / 1000,
      counts: this.#counts,
      began: this.#began ?? 'empty',
      maxStreams: this.#maxStreams,
      lastLevel: this.#pacing.level,
      batchBytes: this.#pacing.batchBytes,
      resumes: this.#resumes,
    };
  }
}

interface Shadow {
  readonly handle: FileHandle;
  readonly cipher: ContentCipher | undefined;
}

/** The older version of the image at this host, for deltas: the baseline's content, where it was kept and can be read. */
async function openShadow(
  baseline: Baseline | undefined,
  { path, image }: SendImageRequest,
  store: BaselineStore,
): Promise<Shadow | undefined> {
  if (!baseline?.record.contentPath || baseline.record.sizeBytes !== image.sizeBytes) return undefined;
  // Of a device the copy lies elsewhere.
  if (!isDevicePath(path) && baseline.record.contentPath !== baselinePathOf(path)) return undefined;
  const access = store.accessTo(baseline.record);
  const handle = access && (await open(baseline.record.contentPath, 'r').catch(() => undefined));
  return handle && { handle, cipher: access.cipher };
}
