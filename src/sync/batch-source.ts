/**
 * The supplier of one sync pass: turns candidate blocks into batches on the worker threads, keeps just enough of them
 * ready, and remembers each until the destination has verified it. Streams, sockets and retries of whole passes are
 * elsewhere.
 *
 *   feed -> encode job -> ready -> (a stream pulls) -> outstanding -> verified
 *              ^  |                                      |  lost: again     refused: again, in full
 *              |  +-> needs page hashes -> asked ---+
 *              +------------------------------------+
 */
import { ENCODING, type Encoding, MAX_BATCH_BLOCKS } from '../encoder/batch-format';
import { encodedBound, type EncodeSettings } from '../encoder/batch-encoder';
import { PAGE_HASH_BYTES } from '../encoder/hash';
import { DwcpError, toDwcpError } from '../model/errors';
import { BLOCK_SIZE_BYTES, PAGES_PER_BLOCK } from '../model/image';
import type { Manifest } from '../store/manifest';
import type { RefusedBlock } from '../transport/counters';
import { HEADER_BYTES } from '../transport/frame';
import type { OutgoingBatch } from '../transport/sending-stream';
import type { SessionSupplier } from '../transport/sending-session';
import type { Run, Slab } from '../transport/slab';
import type { ChangeFeed } from './change-feed';
import type { BlockSelection, EncodeJob, EncodeResult } from './codec-jobs';
import type { CodecPool } from './codec-pool';

/** Blocks whose page hashes are asked for in one request. */
const PAGE_HASH_BATCH = 64;
const PAGE_HASH_REQUESTS = 8;
/** A block refused more often than this meets no chance fault: an encoder is wrong. */
const MAX_REFUSALS = 4;

export interface BatchSourceContext {
  readonly pool: CodecPool;
  readonly slab: Slab;
  readonly imageNumber: number;
  readonly source: Manifest;
  readonly held: Manifest;
  readonly shadow?: { readonly fd: number; readonly manifest: Manifest } | undefined;
  /** Settings for the next batch; asked anew for each. */
  readonly settings: () => EncodeSettings;
  readonly batchBlocks: () => number;
  readonly askPageHashes: (blocks: readonly number[]) => Promise<Uint8Array>;
  readonly encoded: (result: EncodeResult, level: number) => void;
  /** These blocks have been read: their hashes stand in `source`. */
  readonly scanned: (blocks: BlockSelection) => void;
}

export interface BatchCounts {
  scannedBlocks: number;
  zeroBlocks: number;
  unchangedBlocks: number;
  /** Sent although the destination held an older version: the misses and the deltas. */
  replacedBlocks: number;
  verifiedBlocks: number;
  resentBlocks: number;
  refusedBlocks: number;
  gatheredBytes: number;
  payloadBytes: number;
  blocksByEncoding: Record<Encoding, number>;
}

export function noCounts(): BatchCounts {
  const blocksByEncoding = Object.fromEntries(Object.keys(ENCODING).map((name) => [name, 0])) as Record<Encoding, number>;
  return { scannedBlocks: 0, zeroBlocks: 0, unchangedBlocks: 0, replacedBlocks: 0, verifiedBlocks: 0, resentBlocks: 0, refusedBlocks: 0, gatheredBytes: 0, payloadBytes: 0, blocksByEncoding };
}

interface Work {
  readonly blocks: BlockSelection;
  readonly plain: boolean;
  readonly pages: EncodeJob['pages'];
  readonly again: boolean;
}

export class BatchSource implements SessionSupplier {
  readonly counts: BatchCounts;
  readonly #context: BatchSourceContext;
  readonly #feed: ChangeFeed;
  readonly #ready: OutgoingBatch[] = [];
  readonly #waiting: ((batch: OutgoingBatch | undefined) => void)[] = [];
  readonly #outstanding = new Map<number, readonly number[]>();
  readonly #queue: Work[] = [];
  readonly #needPages: number[] = [];
  readonly #refusals = new Map<number, number>();
  #asking = 0;
  #jobs = 0;
  #nextBatch: number;
  #failed: DwcpError | undefined;
  #cancelWait: (() => void) | undefined;
  #onFailure: (error: DwcpError) => void = () => undefined;

  /** @param firstBatch first batch id: ids of one session are never used twice */
  constructor(feed: ChangeFeed, context: BatchSourceContext, counts: BatchCounts, firstBatch: number) {
    this.#feed = feed;
    this.#context = context;
    this.counts = counts;
    this.#nextBatch = firstBatch;
  }

  get nextBatchId(): number {
    return this.#nextBatch;
  }

  get ended(): boolean {
    return this.#failed !== undefined || this.finished;
  }

  get finished(): boolean {
    return this.exhausted && this.#outstanding.size === 0 && this.#failed === undefined;
  }

  get exhausted(): boolean {
    return this.#feed.remaining === 0 && this.#queue.length === 0 && this.#jobs === 0 && this.#ready.length === 0 && this.#needPages.length === 0 && this.#asking === 0;
  }

  /** Called once where a block cannot be read or encoded; no batch comes after it. */
  onFailure(handler: (error: DwcpError) => void): void {
    this.#onFailure = handler;
    if (this.#failed) handler(this.#failed);
  }

  next(): Promise<OutgoingBatch | undefined> {
    const batch = this.#ready.shift();
    this.#pump();
    if (batch || this.ended) return Promise.resolve(batch);
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  written(batch: OutgoingBatch): void {
    this.#context.slab.free(batch.run);
    this.#pump();
  }

  lost(id: number): void {
    const blocks = this.#outstanding.get(id);
    if (!blocks) return;
    this.#outstanding.delete(id);
    this.counts.resentBlocks += blocks.length;
    this.#queue.push({ blocks: { list: blocks }, plain: false, pages: 'send', again: true });
    this.#pump();
  }

  refused(blocks: readonly RefusedBlock[]): void {
    for (const { batch, block } of blocks) {
      const sent = this.#outstanding.get(batch);
      if (!sent?.includes(block)) continue;
      this.#outstanding.set(batch, sent.filter((other) => other !== block));
      this.counts.refusedBlocks += 1;
      const times = (this.#refusals.get(block) ?? 0) + 1;
      this.#refusals.set(block, times);
      if (times > MAX_REFUSALS) {
        this.#fail(new DwcpError('ENCODER_FAILED', `Block ${block} was refused ${times} times`, { side: 'destination' }));
        return;
      }
      this.#queue.push({ blocks: { list: [block] }, plain: true, pages: 'send', again: true });
    }
    this.#pump();
  }

  verified(ids: readonly number[]): void {
    for (const id of ids) {
      const blocks = this.#outstanding.get(id);
      if (!blocks) continue;
      this.#outstanding.delete(id);
      this.counts.verifiedBlocks += blocks.length;
    }
    this.#pump();
  }

  /** Stops: gives back what is ready and lets every waiting stream go. */
  stop(error: DwcpError): void {
    if (this.#failed) return;
    this.#failed = error;
    this.#cancelWait?.();
    for (const batch of this.#ready.splice(0)) this.#context.slab.free(batch.run);
    for (const resolve of this.#waiting.splice(0)) resolve(undefined);
  }

  /** Starts what may be started: bounded by threads, by what streams can take soon, and by the slab. */
  #pump(): void {
    const { pool } = this.#context;
    this.#askForPages();
    while (!this.#failed && this.#jobs < 2 * pool.threads && this.#ready.length + this.#jobs < this.#waiting.length + 2 * pool.threads) {
      const work = this.#nextWork();
      const run = work && this.#takeRun('list' in work.blocks ? work.blocks.list.length : work.blocks.count);
      if (!work || !run) {
        if (work) this.#queue.unshift(work);
        break;
      }
      void this.#encode(work, run);
    }
    if (this.finished) for (const resolve of this.#waiting.splice(0)) resolve(undefined);
  }

  #nextWork(): Work | undefined {
    const again = this.#queue.shift();
    if (again) return again;
    const selection = this.#feed.next(this.#context.batchBlocks());
    return selection && { blocks: selection, plain: false, pages: 'ask', again: false };
  }

  #takeRun(blocks: number): Run | undefined {
    const run = this.#context.slab.take(HEADER_BYTES + encodedBound(blocks));
    if (!run && !this.#cancelWait) {
      this.#cancelWait = this.#context.slab.whenFreed(() => {
        this.#cancelWait = undefined;
        this.#pump();
      });
    }
    return run;
  }

  async #encode(work: Work, run: Run): Promise<void> {
    const { pool, slab, source, held, shadow, imageNumber, settings, encoded } = this.#context;
    const id = this.#nextBatch++;
    const chosen = settings();
    this.#jobs += 1;
    try {
      const result = await pool.run({
        kind: 'encode',
        file: this.#feed.file,
        blocks: work.blocks,
        plain: work.plain,
        source: source.memory,
        held: held.memory,
        shadow: shadow && { fd: shadow.fd, hashes: shadow.manifest.memory },
        pages: work.pages,
        settings: chosen,
        imageNumber,
        sequence: id,
        out: { memory: slab.memory, offset: run.offset, length: run.bytes.length },
      });
      this.#jobs -= 1;
      encoded(result, chosen.level);
      this.#take(work, id, run, result);
    } catch (error) {
      this.#jobs -= 1;
      slab.free(run);
      this.#fail(toDwcpError(error, 'ENCODER_FAILED', { side: 'source' }));
    }
    this.#pump();
  }

  #take(work: Work, id: number, run: Run, result: EncodeResult): void {
    const { counts } = this;
    if (!work.again) {
      counts.scannedBlocks += result.zeroBlocks + result.unchangedBlocks + result.sent.length + result.needPages.length;
      counts.zeroBlocks += result.zeroBlocks;
      counts.unchangedBlocks += result.unchangedBlocks;
      this.#context.scanned(work.blocks);
    }
    this.#needPages.push(...result.needPages);
    if (result.frameBytes === 0 || this.#failed) {
      this.#context.slab.free(run);
      return;
    }
    counts.replacedBlocks += result.replacedBlocks;
    counts.gatheredBytes += result.gatheredBytes;
    counts.payloadBytes += result.payloadBytes;
    for (const [name, blocks] of Object.entries(result.blocksByEncoding)) counts.blocksByEncoding[name as Encoding] += blocks;
    this.#context.slab.trim(run, result.frameBytes);
    this.#outstanding.set(id, result.sent);
    const batch = { id, frame: run.bytes.subarray(0, result.frameBytes), run };
    const stream = this.#waiting.shift();
    if (stream) stream(batch);
    else this.#ready.push(batch);
  }

  #askForPages(): void {
    const whole = this.#needPages.length >= PAGE_HASH_BATCH || (this.#feed.remaining === 0 && this.#jobs === 0);
    while (!this.#failed && this.#needPages.length > 0 && whole && this.#asking < PAGE_HASH_REQUESTS) {
      const list = this.#needPages.splice(0, PAGE_HASH_BATCH).sort((a, b) => a - b);
      this.#asking += 1;
      this.#context.askPageHashes(list).then(
        (hashes) => {
          this.#asking -= 1;
          this.#queue.push({ blocks: { list }, plain: false, pages: { hashes }, again: true });
          this.#pump();
        },
        (error: unknown) => {
          this.#asking -= 1;
          this.#fail(toDwcpError(error, 'SESSION_LOST'));
        },
      );
    }
  }

  #fail(error: DwcpError): void {
    if (this.#failed) return;
    this.stop(error);
    this.#onFailure(error);
  }
}

/** Bytes of page hashes that a list of blocks has. */
export function pageHashBytes(blocks: number): number {
  return blocks * PAGES_PER_BLOCK * PAGE_HASH_BYTES;
}

export function batchBlocksFor(bytes: number): number {
  return Math.min(MAX_BATCH_BLOCKS, Math.max(1, Math.floor(bytes / BLOCK_SIZE_BYTES)));
}
