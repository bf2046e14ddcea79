/**
 * Makes the destination's image equal to the source's: the source's half of one sync, from the first question (what
 * do you hold?) to the last (is your root mine?). Runs until that holds; a lost session is opened again and the sync goes
 * on with what is missing. Starting it again from nothing does the same, which is what makes the activity idempotent.
 */
import { type FileHandle, open } from 'node:fs/promises';
import { HASH_BYTES } from '../encoder/hash';
import { Packer } from '../encoder/packer';
import { DwcpError, hasCode, toDwcpError } from '../model/errors';
import type { ImageSpec } from '../model/image';
import type { MigrationOptions } from '../model/options';
import type { LevelAndStreams } from '../model/tiers';
import { type Baseline, baselinePathOf } from '../store/baselines';
import { Manifest } from '../store/manifest';
import type { SendingSession } from '../transport/sending-session';
import { DoublingTuner } from '../transport/stream-tuner';
import { type BatchCounts, BatchSource, noCounts } from './batch-source';
import type { ChangeFeed } from './change-feed';
import type { BlockSelection } from './codec-jobs';
import { Pacing } from './pacing';
import { MANIFEST_BLOCKS, openedImageSchema, readBody } from './protocol';
import type { SourceMigration } from './source-migration';

export interface SendImageRequest {
  readonly vmId: string;
  readonly image: ImageSpec;
  readonly path: string;
  readonly feed: ChangeFeed;
  readonly start: LevelAndStreams;
  readonly options: Pick<MigrationOptions, 'enableDelta' | 'enableDeltaSync' | 'deltaThreshold'>;
  readonly linkBytesPerSecond: number;
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
  readonly batchBytes: number;
  readonly rttMs: number;
  /** Raw bytes done for each byte sent. */
  readonly ratio: number;
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

/** Passes that end with different roots: after so many the fault is not chance. */
const MAX_MISMATCHES = 3;

export class ImageSender {
  readonly #migration: SourceMigration;
  readonly #request: SendImageRequest;
  readonly #source: Manifest;
  readonly #scanned: Uint8Array;
  readonly #counts = noCounts();
  readonly #pacing: Pacing;
  readonly #packer = new Packer();
  readonly #startedAt = performance.now();
  #held: Manifest;
  #began: SentImage['began'] | undefined;
  #nextBatch = 1;
  #maxStreams = 0;
  #resumes = -1;
  #overheadBytes = 0;
  #settledBlocks = 0;
  #doneBefore = 0;

  constructor(migration: SourceMigration, request: SendImageRequest) {
    this.#migration = migration;
    this.#request = request;
    this.#source = new Manifest(request.image.sizeBytes);
    this.#held = new Manifest(request.image.sizeBytes);
    this.#scanned = new Uint8Array(this.#source.blocks);
    const { start } = request;
    const tuner = new DoublingTuner(start.initialStreams, start.minStreams, start.maxStreams);
    this.#pacing = new Pacing(start, tuner, migration.bucket, migration.context.pool.threads, request.linkBytesPerSecond);
  }

  get progress(): SendProgress {
    const stats = this.#migration.openSession?.stats;
    const { image } = this.#request;
    const doneBlocks = this.#settledBlocks + this.#doneInPasses() - this.#doneBefore;
    const doneBytes = Math.min(image.sizeBytes, (doneBlocks / this.#source.blocks) * image.sizeBytes);
    const linkBytes = this.#counts.payloadBytes + this.#overheadBytes;
    return {
      imageId: image.imageId,
      totalBytes: image.sizeBytes,
      doneBytes,
      linkBytes,
      goodputBytesPerSecond: stats?.goodputBytesPerSecond ?? 0,
      streams: stats?.activeStreams ?? 0,
      level: this.#pacing.level,
      batchBytes: this.#pacing.batchBytes,
      rttMs: stats?.rttMs ?? 0,
      ratio: doneBytes / Math.max(1, linkBytes),
    };
  }

  /** @throws the coded error that ended it; what has arrived is kept by the destination */
  async run(signal: AbortSignal): Promise<SentImage> {
    const baseline = this.#request.options.enableDelta ? await this.#migration.context.store.open(this.#request.vmId, this.#request.image.imageId) : undefined;
    const shadow = await openShadow(baseline, this.#request);
    try {
      for (let mismatches = 0; ; ) {
        const session = await this.#migration.sessionPatiently(signal);
        try {
          return await this.#pass(session, baseline, shadow, signal);
        } catch (error) {
          const reason = toDwcpError(error, 'INTERNAL');
          if (signal.aborted || !hasCode(reason, 'SESSION_LOST', 'PATH_OUTAGE', 'FRAME_CORRUPT', 'INTEGRITY_MISMATCH')) throw reason;
          if (reason.code === 'INTEGRITY_MISMATCH' && ++mismatches >= MAX_MISMATCHES) throw reason;
        }
      }
    } finally {
      await shadow?.close();
    }
  }

  async #pass(session: SendingSession, baseline: Baseline | undefined, shadow: FileHandle | undefined, signal: AbortSignal): Promise<SentImage> {
    const { image, feed, start, options } = this.#request;
    const { pool, slab } = this.#migration.context;
    const imageNumber = await this.#learnHeld(session, baseline);
    this.#beginPass(feed);
    const source = new BatchSource(
      feed,
      {
        pool,
        slab,
        imageNumber,
        source: this.#source,
        held: this.#held,
        shadow: shadow && baseline && { fd: shadow.fd, manifest: baseline.manifest },
        settings: () => ({ compress: start.compress, level: this.#pacing.level, delta: options.enableDelta, deltaThreshold: options.deltaThreshold }),
        batchBlocks: () => this.#pacing.batchBlocks,
        askPageHashes: (blocks) => this.#askPageHashes(session, imageNumber, blocks),
        encoded: (result, level) => this.#encoded(result, level),
        scanned: (blocks) => this.#markScanned(blocks),
      },
      this.#counts,
      this.#nextBatch,
    );
    const ending = new AbortController();
    const forward = (): void => ending.abort(signal.reason);
    signal.addEventListener('abort', forward);
    source.onFailure((error) => ending.abort(error));
    const stopPacing = this.#pacing.drive(session);
    try {
      await session.transfer(source, ending.signal);
    } catch (error) {
      source.stop(toDwcpError(error, 'INTERNAL'));
      throw error;
    } finally {
      this.#nextBatch = source.nextBatchId;
      stopPacing();
      signal.removeEventListener('abort', forward);
    }
    feed.assertUnchanged();
    const root = await pool.run({ kind: 'root', hashes: this.#source.memory, sizeBytes: image.sizeBytes });
    await session.control.request('finish_image', { image: imageNumber, root });
    return this.#result(root);
  }

  #encoded(result: Parameters<Pacing['encoded']>[0], level: number): void {
    this.#overheadBytes += result.frameBytes - result.payloadBytes;
    this.#maxStreams = Math.max(this.#maxStreams, this.#migration.openSession?.stats.activeStreams ?? 0);
    this.#pacing.encoded(result, level);
  }

  /** Learns what the destination holds; the hashes travel only where this host does not have them under the same root. */
  async #learnHeld(session: SendingSession, baseline: Baseline | undefined): Promise<number> {
    const { image, options } = this.#request;
    const opened = readBody(openedImageSchema, await session.control.request('open_image', { imageId: image.imageId, useBaseline: options.enableDeltaSync }));
    this.#began ??= opened.state;
    this.#held.hashes.fill(0);
    if (opened.zero) return opened.image;
    if (baseline && baseline.record.root === opened.root && baseline.record.sizeBytes === image.sizeBytes) {
      baseline.manifest.hashes.copy(this.#held.hashes);
      return opened.image;
    }
    for (let first = 0; first < this.#held.blocks; first += MANIFEST_BLOCKS) {
      const count = Math.min(MANIFEST_BLOCKS, this.#held.blocks - first);
      const answer = await session.control.request('manifest', { image: opened.image, first, count });
      this.#overheadBytes += answer.payload.length;
      const out = this.#held.hashes.subarray(first * HASH_BYTES, (first + count) * HASH_BYTES);
      const bytes = answer.body.packed === true ? this.#packer.unpack(answer.payload, out) : answer.payload.copy(out);
      if (bytes !== out.length) throw new DwcpError('PROTOCOL_VIOLATION', 'A manifest has another length than its image', { side: 'source' });
    }
    return opened.image;
  }

  async #askPageHashes(session: SendingSession, imageNumber: number, blocks: readonly number[]): Promise<Uint8Array> {
    const payload = Buffer.alloc(4 * blocks.length);
    for (const [index, block] of blocks.entries()) payload.writeUInt32BE(block, 4 * index);
    const answer = await session.control.request('page_hashes', { image: imageNumber }, payload);
    this.#overheadBytes += answer.payload.length;
    return Uint8Array.from(answer.payload);
  }

  #markScanned(blocks: BlockSelection): void {
    if ('first' in blocks) this.#scanned.fill(1, blocks.first, blocks.first + blocks.count);
    else for (const block of blocks.list) this.#scanned[block] = 1;
  }

  /** Read in an earlier pass, and known to be equal on the other side. */
  #isSettled(block: number): boolean {
    return this.#scanned[block] === 1 && this.#source.hashOf(block).equals(this.#held.hashOf(block));
  }

  /** Begins a pass: what an earlier one has settled is not looked at again, the rest is counted anew. */
  #beginPass(feed: ChangeFeed): void {
    this.#resumes += 1;
    this.#settledBlocks = 0;
    if (this.#resumes > 0) for (let block = 0; block < this.#source.blocks; block += 1) if (this.#isSettled(block)) this.#settledBlocks += 1;
    this.#doneBefore = this.#doneInPasses();
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
      linkBytes: this.#counts.payloadBytes + this.#overheadBytes,
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

/** The older version of the image at this host, for deltas: the baseline's content, where it was kept. */
async function openShadow(baseline: Baseline | undefined, { path, image }: SendImageRequest): Promise<FileHandle | undefined> {
  if (!baseline?.record.contentPath || baseline.record.sizeBytes !== image.sizeBytes) return undefined;
  if (baseline.record.contentPath !== baselinePathOf(path)) return undefined;
  return open(baseline.record.contentPath, 'r').catch(() => undefined);
}
