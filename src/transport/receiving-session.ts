/**
 * The receiving side of a session: takes batches from all streams, hands them on, and reports what became of them.
 * What a batch holds and what requests mean is for the handlers, which belong to src/sync.
 */
import { DwcpError, toDwcpError } from '../model/errors';
import { BatchAssembly } from './batch-parts';
import type { Connection, Received } from './connection';
import { type Answer, ControlChannel, type Message } from './control-channel';
import { MAX_COUNTED, type RefusedBlock, writeCounters } from './counters';
import type { Frame, FrameType } from './frame';
import type { Run, Slab } from './slab';

export interface ReceivingHandlers {
  request(method: string, message: Message): Promise<Answer>;
  /** Takes in a batch whose frame has been checked. @returns the blocks that must come again in full */
  batch(frame: Frame): Promise<readonly number[]>;
}

/** Arrival of a packet train, from its first to its last frame. */
export interface TrainArrival {
  readonly bytes: number;
  readonly spanMs: number;
}

interface ReceivingStream {
  readonly connection: Connection;
  readonly bytesBefore: number;
  reportedBytes: number;
  reportedBlocked: boolean;
}

const STREAM_FRAMES: ReadonlySet<FrameType> = new Set(['batch', 'part', 'probe', 'detach']);
const REPORT_EVERY_MS = 100;
const REPORT_SOON_MS = 5;
const MAX_STREAMS = 320;

export class ReceivingSession {
  readonly id: string;
  readonly epoch: number;
  readonly #handlers: ReceivingHandlers;
  readonly #slab: Slab;
  readonly #parts: BatchAssembly;
  readonly #control: ControlChannel;
  readonly #streams = new Map<number, ReceivingStream>();
  readonly #giveBack: (connection: Connection) => void;
  readonly #onEnd: () => void;
  readonly #reporter: NodeJS.Timeout;
  #soon: NodeJS.Timeout | undefined;
  #verified: number[] = [];
  #refused: RefusedBlock[] = [];
  #train: { bytes: number; firstAt: number; lastAt: number } | undefined;
  #ended = false;

  constructor(
    { id, epoch, connection }: { readonly id: string; readonly epoch: number; readonly connection: Connection },
    slab: Slab,
    handlers: ReceivingHandlers,
    callbacks: { giveBack: (connection: Connection) => void; ended: () => void },
  ) {
    this.id = id;
    this.epoch = epoch;
    this.#slab = slab;
    this.#parts = new BatchAssembly(slab);
    this.#handlers = handlers;
    this.#giveBack = callbacks.giveBack;
    this.#onEnd = callbacks.ended;
    this.#reporter = setInterval(() => this.#report('regular'), REPORT_EVERY_MS);
    this.#control = new ControlChannel(connection, {
      request: (method, message) => this.#handlers.request(method, message),
      event: () => undefined,
      closed: (error) => this.end(error),
      detached: () => this.#detachControl(connection),
    });
  }

  get streamCount(): number {
    return this.#streams.size;
  }

  /** Adds a data stream. @throws PROTOCOL_VIOLATION where there are too many */
  attach(stream: number, connection: Connection): void {
    if (this.#streams.size >= MAX_STREAMS)
      throw new DwcpError('PROTOCOL_VIOLATION', `A session has at most ${MAX_STREAMS} streams`);
    this.#streams.get(stream)?.connection.destroy(new DwcpError('SUPERSEDED', 'The stream was opened again'));
    this.#streams.set(stream, {
      connection,
      bytesBefore: connection.receivedBytes,
      reportedBytes: 0,
      reportedBlocked: false,
    });
    connection.use(
      STREAM_FRAMES,
      (received) => this.#receive(stream, connection, received),
      (error) => this.#streamEnded(stream, connection, error),
      this.#slab,
    );
  }

  /** What of the last packet train has arrived; forgets it. */
  takeTrain(): TrainArrival | undefined {
    const train = this.#train;
    this.#train = undefined;
    return train && { bytes: train.bytes, spanMs: train.lastAt - train.firstAt };
  }

  /** Tells the source of a failure that is this host's own, so that the transfer ends with its code. */
  reportFailure(error: DwcpError): void {
    this.#control.notify('failed', { error: error.report() });
  }

  /** Ends the session and its connections; what is being decoded completes and is kept. */
  end(error: DwcpError): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#stopReporting();
    this.#control.refuse(error);
    for (const { connection } of this.#streams.values()) connection.destroy(error);
    this.#streams.clear();
    this.#onEnd();
  }

  #stopReporting(): void {
    clearInterval(this.#reporter);
    clearTimeout(this.#soon);
    this.#parts.close();
  }

  #detachControl(connection: Connection): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#stopReporting();
    this.#control.release();
    this.#giveBack(connection);
    this.#onEnd();
  }

  #streamEnded(stream: number, connection: Connection, error: DwcpError): void {
    if (this.#streams.get(stream)?.connection === connection) this.#streams.delete(stream);
    if (error.code === 'PROTOCOL_VIOLATION') this.end(error);
  }

  #receive(stream: number, connection: Connection, { frame, run }: Received): void {
    switch (frame.type) {
      case 'batch':
        this.#takeBatch(frame, run);
        return;
      case 'part':
        this.#takePart(frame);
        if (run) this.#slab.free(run);
        return;
      case 'probe': {
        const now = performance.now();
        this.#train ??= { bytes: 0, firstAt: now, lastAt: now };
        this.#train.bytes += frame.bytes.length;
        this.#train.lastAt = now;
        return;
      }
      default:
        this.#streams.delete(stream);
        this.#giveBack(connection);
    }
  }

  #takePart(part: Frame): void {
    try {
      const batch = this.#parts.add(part);
      if (batch) this.#takeBatch(batch.frame, batch.run);
    } catch (error) {
      this.#failed(error);
    }
  }

  #takeBatch(frame: Frame, run: Run | undefined): void {
    this.#handlers
      .batch(frame)
      .then(
        (refused) => {
          for (const block of refused) this.#refused.push({ batch: frame.sequence, block });
          this.#verified.push(frame.sequence);
          this.#soon ??= setTimeout(() => this.#report('news'), REPORT_SOON_MS);
        },
        (error: unknown) => this.#failed(error),
      )
      .catch((error: unknown) => this.end(toDwcpError(error, 'INTERNAL', { side: 'destination' })))
      .finally(() => run && this.#slab.free(run));
  }

  #failed(error: unknown): void {
    const reason = toDwcpError(error, 'INTERNAL', { side: 'destination' });
    if (reason.spec.retry === 'operator') this.reportFailure(reason);
    else this.end(reason);
  }

  #report(cause: 'regular' | 'news'): void {
    clearTimeout(this.#soon);
    this.#soon = undefined;
    if (this.#ended) return;
    if (cause === 'regular') this.#parts.forgetOld();
    const streams = this.#changedStreams();
    if (cause === 'regular' && streams.length === 0 && this.#verified.length === 0 && this.#refused.length === 0)
      return;
    const counters = {
      verified: this.#verified.splice(0, MAX_COUNTED),
      refused: this.#refused.splice(0, MAX_COUNTED),
      streams,
    };
    this.#control.notify('counters', {}, writeCounters(counters));
  }

  #changedStreams(): { stream: number; blocked: boolean; receivedBytes: number }[] {
    const changed = [];
    for (const [stream, state] of this.#streams) {
      const receivedBytes = state.connection.receivedBytes - state.bytesBefore;
      const blocked = state.connection.blocked;
      if (receivedBytes === state.reportedBytes && blocked === state.reportedBlocked && !blocked) continue;
      state.reportedBytes = receivedBytes;
      state.reportedBlocked = blocked;
      changed.push({ stream, blocked, receivedBytes });
    }
    return changed;
  }
}
