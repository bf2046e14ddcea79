/**
 * The sending side of a session: one control connection and the streams that pull batches. It opens, parks, replaces
 * and counts streams; what a batch holds is the supplier's business. A dead stream is replaced while the session
 * lives; a dead control connection ends the session, and whoever runs the sync opens the next.
 */
import { DwcpError, errorReportSchema, fromReport, toDwcpError } from '../model/errors';
import { clamp } from '../model/units';
import { type Answer, ControlChannel, type Message } from './control-channel';
import { type Counters, readCounters } from './counters';
import type { Connection } from './connection';
import type { PeerAddress } from './endpoint';
import { type Hello } from './hello';
import { HANDSHAKES_AT_ONCE, type PeerPool } from './peer-pool';
import { type BatchSupplier, SendingStream, streamWindowBytes } from './sending-stream';
import { TokenBucket } from './token-bucket';

/** What every hello of a session has in common. */
export type SessionHello = Omit<Hello, 'release' | 'protocol' | 'role' | 'stream'>;

export interface SessionSupplier extends BatchSupplier {
  /** Blocks of batches that must come again in full; comes before the `verified` of their batch. */
  refused(blocks: Counters['refused']): void;
  /** Batches whose other blocks are verified at the destination. */
  verified(ids: readonly number[]): void;
  /** True once every block it was to send has been verified. */
  readonly finished: boolean;
  /** True while streams could carry more than it has: nothing queued and nothing being encoded. */
  readonly exhausted: boolean;
}

export interface SessionStats {
  readonly openStreams: number;
  readonly activeStreams: number;
  readonly rttMs: number;
  readonly goodputBytesPerSecond: number;
  /** Share of active streams that wait for a batch. */
  readonly idleShare: number;
  readonly throttled: boolean;
}

const TICK_MS = 100;
const GOODPUT_WINDOW_MS = 2_000;
const MIN_STALL_MS = 3_000;
/** With no data stream alive for this long the path counts as out, whatever the control connection says. */
const OUTAGE_LIMIT_MS = 60_000;
const MAX_BACKOFF_MS = 10_000;

export class SendingSession {
  readonly control: ControlChannel;
  readonly #pool: PeerPool;
  readonly #peer: PeerAddress;
  readonly #hello: SessionHello;
  readonly #controlConnection: Connection;
  readonly #streams = new Map<number, SendingStream>();
  readonly #arrivals: { atMs: number; bytes: number }[] = [];
  readonly #ticker: NodeJS.Timeout;
  #bucket = new TokenBucket(0);
  #supplier: SessionSupplier | undefined;
  #transferDone: ((error?: DwcpError) => void) | undefined;
  #reissued = new Set<number>();
  #completionsMs: number[] = [];
  #target = 0;
  #opening = 0;
  #openingFailures = 0;
  #nextOpenAt = 0;
  #nextStreamId = 0;
  #aliveAt = performance.now();
  #endedWith: DwcpError | undefined;
  #batchBytes = 256 * 1024;
  #throttledMs = 0;
  #throttled = false;
  #sentByEnded = 0;
  replacedStreams = 0;

  /** Opens the control connection. @throws the refusal; PEER_UNREACHABLE */
  static async open(pool: PeerPool, peer: PeerAddress, hello: SessionHello, role: 'control' | 'settle' = 'control'): Promise<SendingSession> {
    const connection = await pool.connect(peer, { ...hello, role, stream: 0 });
    return new SendingSession(pool, peer, hello, connection);
  }

  private constructor(pool: PeerPool, peer: PeerAddress, hello: SessionHello, connection: Connection) {
    this.#pool = pool;
    this.#peer = peer;
    this.#hello = hello;
    this.#controlConnection = connection;
    this.control = new ControlChannel(connection, {
      request: (method): Promise<Answer> => Promise.reject(new DwcpError('PROTOCOL_VIOLATION', `The destination may not ask for ${method}`)),
      event: (name, message) => this.#event(name, message),
      closed: (error) => this.#end(error),
    });
    this.#ticker = setInterval(() => this.#tick(), TICK_MS);
  }

  get ended(): boolean {
    return this.#endedWith !== undefined;
  }

  get rttMs(): number {
    return this.control.rttMs ?? 1;
  }

  /** What the session has put on the link so far, both ways: frames of all streams and all of the control connection. */
  get linkBytes(): number {
    const { bytesRead, bytesWritten } = this.#controlConnection.socket;
    return [...this.#streams.values()].reduce((sum, stream) => sum + stream.sentBytes, this.#sentByEnded) + bytesRead + bytesWritten;
  }

  get stats(): SessionStats {
    const active = [...this.#streams.values()].filter((stream) => stream.active);
    return {
      openStreams: this.#streams.size,
      activeStreams: active.length,
      rttMs: this.rttMs,
      goodputBytesPerSecond: this.#goodput(),
      idleShare: active.length === 0 ? 0 : active.filter((stream) => stream.idle).length / active.length,
      throttled: this.#throttled,
    };
  }

  setBucket(bucket: TokenBucket): void {
    this.#bucket = bucket;
    for (const stream of this.#streams.values()) stream.setBucket(bucket);
  }

  /** The size that batches have now, for the window of each stream. */
  setBatchBytes(bytes: number): void {
    this.#batchBytes = bytes;
  }

  /** How many streams pull. More are opened as needed; surplus ones are parked, and used again first. */
  setTarget(streams: number): void {
    this.#target = streams;
    this.#balance();
  }

  /** Opens streams up to the target. @returns how many are open; @throws where not one could be opened */
  async establish(streams: number): Promise<number> {
    this.setTarget(streams);
    const started = performance.now();
    while (!this.#endedWith && this.#streams.size < streams) {
      if (performance.now() - started > 15_000) break;
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    if (this.#endedWith) throw this.#endedWith;
    if (this.#streams.size === 0) throw new DwcpError('PATH_OUTAGE', 'The control connection stands but no data stream could be opened');
    return this.#streams.size;
  }

  /** Sends a short train of `bytes` on every stream at the same moment, to see the bottleneck at the other side. */
  async probe(bytes: number): Promise<number> {
    const streams = [...this.#streams.values()].filter((stream) => stream.active);
    await Promise.all(streams.map((stream) => stream.writeProbe(bytes)));
    return streams.length * bytes;
  }

  /**
   * Lets streams pull from a supplier until it is finished.
   * @throws SESSION_LOST, PATH_OUTAGE, what the destination ended the session with, or the signal's reason
   */
  async transfer(supplier: SessionSupplier, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    if (this.#endedWith) throw this.#endedWith;
    this.#supplier = supplier;
    this.#reissued = new Set();
    this.#aliveAt = performance.now();
    const abort = (): void => this.#transferDone?.(toDwcpError(signal.reason, 'CANCELLED'));
    signal.addEventListener('abort', abort);
    try {
      await new Promise<void>((resolve, reject) => {
        this.#transferDone = (error) => (error ? reject(error) : resolve());
        for (const stream of this.#streams.values()) this.#start(stream);
        this.#checkFinished();
      });
    } finally {
      signal.removeEventListener('abort', abort);
      this.#transferDone = undefined;
      this.#supplier = undefined;
      for (const stream of this.#streams.values()) stream.wake();
    }
  }

  /** Ends the session. Connections with nothing on the way go back to the pool, others are closed. */
  close(): void {
    if (this.#endedWith) return;
    const clean = [...this.#streams.values()].filter((stream) => stream.outstanding.size === 0 && !stream.connection.closed);
    this.#endedWith = new DwcpError('SESSION_LOST', 'The session was closed on this side');
    clearInterval(this.#ticker);
    for (const stream of clean) this.#pool.giveBack(this.#peer, stream.connection);
    for (const stream of this.#streams.values()) if (!clean.includes(stream)) stream.connection.destroy(this.#endedWith);
    this.#streams.clear();
    this.control.release();
    this.#pool.giveBack(this.#peer, this.#controlConnection);
  }

  /** Ends the session at once, whatever is on the way. */
  destroy(error: DwcpError): void {
    this.control.destroy(error);
  }

  #start(stream: SendingStream): void {
    const supplier = this.#supplier;
    if (!supplier) return;
    stream.run(supplier, (which) => streamWindowBytes(which, this.rttMs, this.#batchBytes)).catch((error: unknown) => this.#fail(toDwcpError(error, 'INTERNAL')));
  }

  #balance(): void {
    const streams = [...this.#streams.values()];
    for (const [index, stream] of streams.entries()) stream.setActive(index < this.#target);
    while (!this.#endedWith && this.#streams.size + this.#opening < this.#target && this.#opening < HANDSHAKES_AT_ONCE && performance.now() >= this.#nextOpenAt) {
      this.#opening += 1;
      void this.#openStream();
    }
  }

  async #openStream(): Promise<void> {
    const id = this.#nextStreamId++ % 65_536;
    try {
      const connection = await this.#pool.connect(this.#peer, { ...this.#hello, role: 'data', stream: id });
      this.#opening -= 1;
      this.#openingFailures = 0;
      if (this.#endedWith) connection.destroy(this.#endedWith);
      else this.#adopt(id, connection);
    } catch (error) {
      this.#opening -= 1;
      this.#openingFailures += 1;
      const refusal = toDwcpError(error, 'PEER_UNREACHABLE');
      if (refusal.spec.retry === 'permanent') this.#fail(refusal);
      const backoffMs = Math.min(MAX_BACKOFF_MS, 250 * 2 ** Math.min(6, this.#openingFailures));
      this.#nextOpenAt = performance.now() + backoffMs * (0.75 + Math.random() / 2);
    }
    this.#balance();
  }

  #adopt(id: number, connection: Connection): void {
    const stream: SendingStream = new SendingStream(id, connection, this.#bucket, (error) => this.#streamEnded(stream, error));
    if (connection.closed) return;
    this.#streams.set(id, stream);
    this.#start(stream);
  }

  #streamEnded(stream: SendingStream, error: DwcpError): void {
    if (!this.#streams.delete(stream.id)) return;
    this.#sentByEnded += stream.sentBytes;
    const outstanding = [...stream.outstanding.keys()];
    stream.outstanding.clear();
    for (const id of outstanding) this.#supplier?.lost(id);
    if (this.#endedWith) return;
    this.replacedStreams += 1;
    if (error.code === 'PROTOCOL_VIOLATION' || error.code === 'PROTOCOL_VERSION') this.#fail(error);
    else this.#balance();
  }

  #event(name: string, message: Message): void {
    if (name === 'counters') this.#count(readCounters(message.payload));
    // A failure that is the destination's own (a full disk): the transfer ends with its code, the session stays.
    if (name === 'failed') this.#transferDone?.(readFailure(message));
  }

  #count({ verified, refused, streams }: Counters): void {
    let gained = 0;
    const now = performance.now();
    for (const count of streams) this.#streams.get(count.stream)?.count(count.receivedBytes, count.blocked, this.rttMs);
    for (const id of verified) {
      for (const stream of this.#streams.values()) {
        const entry = stream.confirm(id);
        if (!entry) continue;
        gained += entry.bytes;
        if (entry.writtenAt <= now) this.#completionsMs.push(now - entry.writtenAt);
        if (this.#completionsMs.length > 64) this.#completionsMs.shift();
      }
    }
    if (gained > 0) this.#arrivals.push({ atMs: now, bytes: gained });
    if (refused.length > 0) this.#supplier?.refused(refused);
    this.#supplier?.verified(verified);
    this.#checkFinished();
  }

  #goodput(): number {
    const now = performance.now();
    while (this.#arrivals[0] && now - this.#arrivals[0].atMs > GOODPUT_WINDOW_MS) this.#arrivals.shift();
    const first = this.#arrivals[0];
    if (!first) return 0;
    const bytes = this.#arrivals.reduce((sum, arrival) => sum + arrival.bytes, 0) - first.bytes;
    return bytes / (clamp(now - first.atMs, 50, GOODPUT_WINDOW_MS) / 1000);
  }

  #checkFinished(): void {
    if (this.#supplier?.finished) this.#transferDone?.();
  }

  #tick(): void {
    const now = performance.now();
    const throttledMs = this.#bucket.throttledMs;
    this.#throttled = throttledMs - this.#throttledMs > TICK_MS / 4;
    this.#throttledMs = throttledMs;
    this.#balance();
    if (this.#streams.size > 0 || this.#target === 0) this.#aliveAt = now;
    else if (now - this.#aliveAt > OUTAGE_LIMIT_MS) this.#fail(new DwcpError('PATH_OUTAGE', `No data stream could be opened for ${OUTAGE_LIMIT_MS / 1000} s`));
    if (this.#supplier) {
      this.#checkFinished();
      this.#replaceStalled(now);
      this.#reissueStragglers(now);
    }
  }

  #replaceStalled(now: number): void {
    const limitMs = Math.max(MIN_STALL_MS, 10 * this.rttMs);
    for (const stream of this.#streams.values()) {
      if (stream.stalledFor(now) > limitMs) stream.connection.destroy(new DwcpError('PATH_OUTAGE', `Stream ${stream.id} made no progress for ${Math.round(limitMs)} ms`));
    }
  }

  /**
   * The endgame: what is late while others idle goes out a second time, each batch once. Late counts from when it was
   * written out, and only where the limit is not what holds it up: sending more would then help nobody.
   */
  #reissueStragglers(now: number): void {
    const supplier = this.#supplier;
    if (!supplier?.exhausted || this.#throttled || this.#completionsMs.length < 4) return;
    const sorted = [...this.#completionsMs].sort((a, b) => a - b);
    const lateMs = Math.max(1000, 2 * (sorted[sorted.length >> 1] ?? 0));
    for (const stream of this.#streams.values()) {
      for (const [id, { writtenAt }] of stream.outstanding) {
        if (now - writtenAt < lateMs || this.#reissued.has(id)) continue;
        this.#reissued.add(id);
        supplier.lost(id);
      }
    }
  }

  #fail(error: DwcpError): void {
    if (!this.#endedWith) this.destroy(error);
  }

  #end(error: DwcpError): void {
    if (this.#endedWith) return;
    const reason = error.code === 'PEER_UNREACHABLE' ? new DwcpError('SESSION_LOST', `The session ended: ${error.message}`, { cause: error }) : error;
    this.#endedWith = reason;
    clearInterval(this.#ticker);
    // Each counts itself out as its connection ends.
    for (const stream of [...this.#streams.values()]) stream.connection.destroy(reason);
    this.#transferDone?.(reason);
  }
}

function readFailure(message: Message): DwcpError {
  const report = errorReportSchema.safeParse(message.body.error);
  return report.success ? fromReport({ side: 'destination', ...report.data }) : new DwcpError('PROTOCOL_VIOLATION', 'The destination reports a failure that cannot be read');
}
