/**
 * The supplier of one sync pass: turns candidate blocks of one or more images (lanes) into batches on the worker threads,
 * keeps just enough of them ready, and remembers each until the destination has verified it. The first lane with work goes
 * first. Streams, sockets and retries of whole passes are elsewhere.
 *
 *   feed -> encode job -> ready -> (a stream pulls) -> outstanding -> verified
 *              ^  |                                      |  lost: again     refused: again, in full
 *              |  +-> needs page hashes -> asked ---+
 *              +------------------------------------+
 */
import { encodedBound } from '../../encoder/batch-encoder';
import { DwcpError, toDwcpError } from '../../model/errors';
import { BLOCK_SIZE_BYTES } from '../../model/image';
import { MIB } from '../../model/units';
import { until } from '../../system/wait';
import { MOST_IN_PARTS_BYTES, PART_BYTES, partsOf } from '../../transport/batch-parts';
import type { RefusedBlock } from '../../transport/counters';
import { HEADER_BYTES } from '../../transport/frame';
import type { OutgoingBatch } from '../../transport/sending-stream';
import type { SessionSupplier } from '../../transport/session-supplier';
import type { Run } from '../../transport/slab';
import { blocksBut, countOf } from '../codec/block-selection';
import type { EncodeResult } from '../codec/codec-jobs';
import { countPacked, countScanned } from './batch-counts';
import type { BatchSourceContext, Lane, LaneState, Work } from './batch-lane';
import { OnTheWay } from './on-the-way';
import { PageQuestions } from './page-questions';

/** Packed and not yet asked for by a stream. */
const MOST_AHEAD_BATCHES = 256;
const MOST_AHEAD_BYTES = 4 * MIB;
/** A block refused more often than this meets no chance fault: an encoder is wrong. */
const MAX_REFUSALS = 4;

export class BatchSource implements SessionSupplier {
  readonly #context: BatchSourceContext;
  readonly #lanes: readonly LaneState[];
  readonly #ready: OutgoingBatch[] = [];
  readonly #waiting: ((batch: OutgoingBatch | undefined) => void)[] = [];
  readonly #onTheWay = new OnTheWay<LaneState>();
  readonly #queue: Work[] = [];
  readonly #questions: PageQuestions;
  #jobs = 0;
  #nextBatch: number;
  #failed: DwcpError | undefined;
  #cancelWait: (() => void) | undefined;
  #woken = false;
  #onFailure: (error: DwcpError) => void = () => undefined;

  /** @param firstBatch first batch id: ids of one session are never used twice */
  constructor(lanes: readonly Lane[], context: BatchSourceContext, firstBatch: number) {
    this.#lanes = lanes.map((lane) => ({ ...lane, needPages: [], refusals: new Map<number, number>() }));
    this.#context = context;
    this.#questions = new PageQuestions(context.askPageHashes);
    this.#nextBatch = firstBatch;
    for (const { feed } of this.#lanes) feed.onMore?.(() => this.#wake());
  }

  get nextBatchId(): number {
    return this.#nextBatch;
  }

  get ended(): boolean {
    return this.#failed !== undefined || this.finished;
  }

  get finished(): boolean {
    return (
      this.exhausted &&
      this.#onTheWay.size === 0 &&
      this.#failed === undefined &&
      !this.#lanes.some(({ feed }) => feed.open ?? false)
    );
  }

  /** Nothing is queued or being encoded; a feed that is open may still bring more. */
  get exhausted(): boolean {
    return (
      this.#queue.length === 0 &&
      this.#jobs === 0 &&
      this.#ready.length === 0 &&
      !this.#questions.some &&
      this.#lanes.every(({ feed, needPages }) => feed.remaining === 0 && needPages.length === 0)
    );
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
    if (batch.run) this.#context.slab.free(batch.run);
    this.#pump();
  }

  lost(id: number): void {
    const sent = this.#onTheWay.end(id);
    if (!sent) return;
    const { lane, blocks } = sent;
    lane.counts.resentBlocks += blocks.length;
    // What was lost may have arrived all the same: an image that goes on changing then says nothing of what is held.
    const plain = lane.feed.confirmed !== undefined;
    this.#queue.push({ lane, blocks: { list: blocks }, plain, pages: 'send', again: true });
    this.#pump();
  }

  refused(blocks: readonly RefusedBlock[]): void {
    for (const { batch, block } of blocks) {
      const lane = this.#onTheWay.refuse(batch, block);
      if (!lane) continue;
      lane.counts.refusedBlocks += 1;
      const times = (lane.refusals.get(block) ?? 0) + 1;
      lane.refusals.set(block, times);
      if (times > MAX_REFUSALS) {
        this.#fail(
          new DwcpError('ENCODER_FAILED', `Block ${block} was refused ${times} times`, { side: 'destination' }),
        );
        return;
      }
      this.#queue.push({ lane, blocks: { list: [block] }, plain: true, pages: 'send', again: true });
    }
    this.#pump();
  }

  verified(ids: readonly number[]): void {
    for (const id of ids) {
      const sent = this.#onTheWay.end(id);
      if (!sent) continue;
      const { lane, blocks } = sent;
      lane.counts.verifiedBlocks += blocks.length;
      if (lane.feed.confirmed) this.#confirm(lane, blocks);
    }
    this.#pump();
  }

  /** Stops: gives back what is ready and lets every waiting stream go. */
  stop(error: DwcpError): void {
    if (this.#failed) return;
    this.#failed = error;
    this.#cancelWait?.();
    for (const { run } of this.#ready.splice(0)) if (run) this.#context.slab.free(run);
    for (const resolve of this.#waiting.splice(0)) resolve(undefined);
  }

  /** What the streams wait for, where they wait: enough on its way for `wantedBytes` means that the link is the brake. */
  brake(wantedBytes: number): 'link' | 'processor' | 'source' {
    if (this.#onTheWay.bytes + this.#readyBytes >= wantedBytes) return 'link';
    return this.#jobs >= 2 * this.#context.pool.threads ||
      this.#lanes.some(({ feed }) => feed.remaining > 0 && !feed.waitsForMore)
      ? 'processor'
      : 'source';
  }

  /** Size of the largest batch that is not confirmed. */
  get largestOnTheWay(): number {
    return this.#onTheWay.largest;
  }

  /** Waits until no thread reads or encodes for it any more. */
  async idle(): Promise<void> {
    await until(() => this.#jobs === 0, { everyMs: 2 });
  }

  /** The destination holds these versions now; they may be sent anew, and deltas may build on them. */
  #confirm(lane: LaneState, blocks: readonly number[]): void {
    for (const block of blocks) {
      lane.held.set(block, lane.source.hashOf(block));
      lane.pages?.confirm(block);
      lane.refusals.delete(block);
    }
    lane.feed.confirmed?.(blocks);
  }

  /** A feed has more: looked at once, however many blocks it says it for. */
  #wake(): void {
    if (this.#woken) return;
    this.#woken = true;
    setImmediate(() => {
      this.#woken = false;
      this.#pump();
    });
  }

  /** Starts what may be started: bounded by threads, by what streams can take soon, and by the slab. */
  #pump(): void {
    try {
      this.#startWork();
    } catch (error) {
      // Called from timers and from others' callbacks, where it would end the agent instead of this transfer.
      this.#fail(toDwcpError(error, 'INTERNAL', { side: 'source' }));
    }
  }

  #startWork(): void {
    const { pool } = this.#context;
    this.#askForPages();
    while (!this.#failed && this.#jobs < 2 * pool.threads) {
      const enough = this.#ready.length + this.#jobs >= this.#waiting.length + 2 * pool.threads;
      if (enough && !this.#mayLookAhead) break;
      const work = this.#nextWork(enough || (this.#waiting.length === 0 && this.#ready.length >= pool.threads));
      const blocks = work && countOf(work.blocks);
      const input = work?.lane.feed.load && blocks ? this.#take(blocks * BLOCK_SIZE_BYTES) : undefined;
      const run =
        blocks && (input || !work.lane.feed.load) ? this.#take(HEADER_BYTES + encodedBound(blocks)) : undefined;
      if (!work || !run) {
        if (input) this.#context.slab.free(input);
        if (work) this.#queue.unshift(work);
        break;
      }
      void this.#encode(work, run, input);
    }
    if (this.finished) for (const resolve of this.#waiting.splice(0)) resolve(undefined);
  }

  /** While the streams have enough, what is more work for the processors than for the link is seen to: then they never wait for that. */
  get #mayLookAhead(): boolean {
    if (this.#queue.length > 0 || this.#ready.length >= MOST_AHEAD_BATCHES) return false;
    if (!this.#lanes.find(({ feed }) => feed.remaining > 0)?.feed.hasWorkAhead) return false;
    return this.#readyBytes < MOST_AHEAD_BYTES;
  }

  get #readyBytes(): number {
    return this.#ready.reduce((sum, { frame }) => sum + frame.length, 0);
  }

  #nextWork(enoughToSend: boolean): Work | undefined {
    const again = this.#queue.shift();
    if (again) return again;
    for (const lane of this.#lanes) {
      const blocks = lane.feed.next(this.#context.batchBlocks(), enoughToSend);
      if (blocks) return { lane, blocks, plain: false, pages: lane.feed.hurried ? 'send' : 'ask', again: false };
    }
    return undefined;
  }

  #take(bytes: number): Run | undefined {
    const run = this.#context.slab.take(bytes);
    if (!run && !this.#cancelWait) {
      this.#cancelWait = this.#context.slab.whenFreed(() => {
        this.#cancelWait = undefined;
        this.#pump();
      });
    }
    return run;
  }

  async #encode(work: Work, run: Run, input: Run | undefined): Promise<void> {
    const { pool, slab, settings, encoded } = this.#context;
    const { feed, source, held, shadow, pages, references, bases, versions, imageNumber } = work.lane;
    const id = this.#nextBatch++;
    this.#jobs += 1;
    try {
      const chosen = settings();
      if (input) await feed.load?.(work.blocks, input.bytes);
      const result = await pool.run({
        kind: 'encode',
        file: feed.file,
        blocks: work.blocks,
        plain: work.plain,
        source: source.memory,
        held: held.memory,
        shadow: shadow && { fd: shadow.fd, cipher: shadow.cipher, hashes: shadow.manifest.memory },
        pages: work.pages,
        pageTable: pages?.shared,
        references,
        bases,
        versions,
        input: input && { memory: slab.memory, offset: input.offset },
        settings: chosen,
        imageNumber,
        sequence: id,
        out: { memory: slab.memory, offset: run.offset, length: run.bytes.length },
      });
      encoded(result, chosen.level);
      this.#sendOn(work, id, run, result);
    } catch (error) {
      slab.free(run);
      this.#fail(toDwcpError(error, 'ENCODER_FAILED', { side: 'source' }));
    } finally {
      this.#jobs -= 1;
      if (input) slab.free(input);
    }
    this.#pump();
  }

  #sendOn(work: Work, id: number, run: Run, result: EncodeResult): void {
    const { lane } = work;
    if (this.#failed) {
      this.#context.slab.free(run);
      return;
    }
    if (!work.again) {
      countScanned(lane.counts, result);
      lane.scanned(work.blocks);
      lane.feed.packed?.(work.blocks, result.payloadBytes);
    }
    // What was looked at and neither sent nor asked about: the destination holds it as it is.
    if (lane.feed.confirmed) lane.feed.confirmed(blocksBut(work.blocks, [...result.sent, ...result.needPages]));
    lane.needPages.push(...result.needPages);
    if (result.frameBytes === 0) {
      this.#context.slab.free(run);
      return;
    }
    countPacked(lane.counts, result);
    this.#onTheWay.add(id, { lane, bytes: result.frameBytes, blocks: result.sent });
    const frame = run.bytes.subarray(0, result.frameBytes);
    if (lane.feed.fewAtATime && frame.length > PART_BYTES && frame.length <= MOST_IN_PARTS_BYTES) {
      for (const part of partsOf(id, frame)) this.#give({ id, frame: part });
      this.#context.slab.free(run);
      return;
    }
    this.#context.slab.trim(run, result.frameBytes);
    this.#give({ id, frame, run });
  }

  #give(batch: OutgoingBatch): void {
    const stream = this.#waiting.shift();
    if (stream) stream(batch);
    else this.#ready.push(batch);
  }

  #askForPages(): void {
    if (this.#failed) return;
    const answered = (work: Work): void => {
      this.#queue.push(work);
      this.#pump();
    };
    for (const lane of this.#lanes)
      this.#questions.askFor(lane, this.#jobs === 0, answered, (error) => this.#fail(error));
  }

  #fail(error: DwcpError): void {
    if (this.#failed) return;
    this.stop(error);
    this.#onFailure(error);
  }
}
