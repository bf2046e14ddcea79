/**
 * One data stream of the sending side: pulls a batch when it has room, writes it at the pace of the bucket, and knows
 * what of it the other side has not confirmed. When it dies, that goes back to the supplier.
 */
import { performance } from 'node:perf_hooks';
import type { DwcpError } from '../model/errors';
import type { Connection } from './connection';
import { buildFrame, type FrameType } from './frame';
import type { Run } from './slab';
import type { TokenBucket } from './token-bucket';

/** A sealed BATCH frame in slab memory, or one of its parts, in memory of its own. */
export interface OutgoingBatch {
  readonly id: number;
  readonly frame: Buffer;
  readonly run?: Run;
}

/** Where batches come from. Calls may be many at a time; each batch goes to one caller. */
export interface BatchSupplier {
  /** Resolves with a batch when there is one, with undefined when there will be no more. */
  next(): Promise<OutgoingBatch | undefined>;
  /** The batch's memory is no longer read: give it back. Called exactly once for every batch. */
  written(batch: OutgoingBatch): void;
  /** A batch that may not have arrived: it has to go again. */
  lost(id: number): void;
  /** True once next() will give no more. */
  readonly ended: boolean;
}

const NO_FRAMES: ReadonlySet<FrameType> = new Set(['refused']);
/** What a stream may have on the way before its rate is known, and at any rate; grows with the rate from the first report on. */
const INITIAL_WINDOW_BYTES = 256 * 1024;
const LEAST_WINDOW_BYTES = 64 * 1024;
/** Long enough for the reports, which come every 100 ms, to keep the window open. */
const WINDOW_SECONDS = 0.5;

interface Outstanding {
  /** When the last byte was handed to the kernel; Infinity while it is still being written. */
  writtenAt: number;
}

export class SendingStream {
  readonly id: number;
  readonly connection: Connection;
  readonly outstanding = new Map<number, Outstanding>();
  #bucket: TokenBucket;
  #sentBytes = 0;
  #receivedBytes = 0;
  #receiverBlocked = false;
  #rate = 0;
  #countedAt = performance.now();
  #progressAt = performance.now();
  #active = true;
  #wake: (() => void) | undefined;
  #idle = false;
  #running = Promise.resolve();

  constructor(id: number, connection: Connection, bucket: TokenBucket, onClose: (error: DwcpError) => void) {
    this.id = id;
    this.connection = connection;
    this.#bucket = bucket;
    connection.use(
      NO_FRAMES,
      () => undefined,
      (error) => {
        this.#wake?.();
        onClose(error);
      },
    );
  }

  get rateBytesPerSecond(): number {
    return this.#rate;
  }

  get sentBytes(): number {
    return this.#sentBytes;
  }

  /** True while it waits for a batch: the supplier is the brake. */
  get idle(): boolean {
    return this.#idle;
  }

  /** The destination's agent has no memory free: it does not read. */
  get receiverBlocked(): boolean {
    return this.#receiverBlocked;
  }

  /** A parked stream finishes what it has and pulls no more. */
  setActive(active: boolean): void {
    if (active === this.#active) return;
    this.#active = active;
    this.#wake?.();
  }

  get active(): boolean {
    return this.#active;
  }

  setBucket(bucket: TokenBucket): void {
    this.#bucket = bucket;
  }

  /** Something is on its way, or could be: it is not waiting for a batch. */
  get busy(): boolean {
    return this.#inFlight() > 0 && !this.#idle;
  }

  /** What the receiver reports of this stream. @returns bytes that have arrived since the last report */
  count(receivedBytes: number, blocked: boolean, rttMs: number): number {
    const now = performance.now();
    const gained = receivedBytes - this.#receivedBytes;
    const seconds = (now - this.#countedAt) / 1000;
    if (seconds > 0.02) {
      const weight = Math.min(1, seconds / Math.max(0.3, (4 * rttMs) / 1000));
      this.#rate += weight * (gained / seconds - this.#rate);
      this.#countedAt = now;
    }
    this.#receivedBytes = receivedBytes;
    this.#receiverBlocked = blocked;
    if (gained > 0 || blocked) this.#progressAt = now;
    this.#wake?.();
    return gained;
  }

  /** Bytes are on their way, the receiver is ready, and nothing has arrived for so long. */
  stalledFor(now: number): number {
    const waiting = this.#sentBytes > this.#receivedBytes && !this.#receiverBlocked;
    return waiting ? now - this.#progressAt : 0;
  }

  confirm(id: number): Outstanding | undefined {
    const entry = this.outstanding.get(id);
    if (entry) this.outstanding.delete(id);
    return entry;
  }

  /** Pulls and writes until the supplier has no more or the stream dies. One supplier at a time, in the order of the calls. */
  run(supplier: BatchSupplier, windowBytes: (stream: SendingStream) => number): Promise<void> {
    this.#running = this.#running.then(() => this.#pull(supplier, windowBytes));
    return this.#running;
  }

  async #pull(supplier: BatchSupplier, windowBytes: (stream: SendingStream) => number): Promise<void> {
    while (!this.connection.closed) {
      if (!this.#active || this.#inFlight() >= windowBytes(this)) {
        await new Promise<void>((resolve) => (this.#wake = resolve));
        this.#wake = undefined;
        if (supplier.ended) return;
        continue;
      }
      this.#idle = true;
      const batch = await supplier.next();
      this.#idle = false;
      if (!batch) return;
      await this.#send(batch, supplier);
    }
  }

  /** Frees whoever waits in run(), so that it looks again. */
  wake(): void {
    this.#wake?.();
  }

  async writeProbe(bytes: number): Promise<void> {
    const frame = buildFrame('probe', 0, undefined, Buffer.alloc(bytes));
    await this.#bucket.take(frame.length);
    this.#sentBytes += frame.length;
    await this.connection.write(frame);
  }

  #inFlight(): number {
    return this.#sentBytes - this.#receivedBytes;
  }

  async #send(batch: OutgoingBatch, supplier: BatchSupplier): Promise<void> {
    if (this.#inFlight() === 0) this.#progressAt = performance.now();
    const entry: Outstanding = { writtenAt: Infinity };
    this.outstanding.set(batch.id, entry);
    const quantum = this.#bucket.quantumBytes;
    for (let at = 0; at < batch.frame.length && !this.connection.closed; at += quantum) {
      const piece = batch.frame.subarray(at, Math.min(batch.frame.length, at + quantum));
      await this.#bucket.take(piece.length);
      this.#sentBytes += piece.length;
      await this.connection.write(piece);
    }
    entry.writtenAt = performance.now();
    supplier.written(batch);
    if (this.connection.closed && this.outstanding.delete(batch.id)) supplier.lost(batch.id);
  }
}

/** Bytes that one stream may have on the way: enough for its rate, little enough to lose. */
export function streamWindowBytes(stream: SendingStream, rttMs: number, batchBytes: number): number {
  const least = stream.rateBytesPerSecond > 0 ? LEAST_WINDOW_BYTES : INITIAL_WINDOW_BYTES;
  return Math.max(least, batchBytes, stream.rateBytesPerSecond * Math.max(WINDOW_SECONDS, (8 * rttMs) / 1000));
}
