/**
 * The sending side of a session: one control connection and the streams that pull batches, over one path or several. It
 * counts what arrives and sends late batches a second time; what a batch holds is the supplier's business, streams are
 * those of path-streams.ts. A path that is out is no failure while another lives; a dead control connection ends the
 * session, and whoever runs the sync opens the next, by another path where there is one.
 */
import { onAbort } from '../model/abort';
import { DwcpError, errorReportSchema, fromReport, toDwcpError } from '../model/errors';
import { clamp } from '../model/units';
import { until } from '../system/wait';
import type { Connection } from './connection';
import { type Answer, ControlChannel, type Message } from './control-channel';
import { type Counters, readCounters } from './counters';
import type { PeerAddress } from './endpoint';
import type { SessionHello } from './hello';
import { type PathOwner, type PathStats, PathStreams } from './path-streams';
import type { PeerPool } from './peer-pool';
import { SendingMode } from './sending-mode';
import { type SendingStream, streamWindowBytes } from './sending-stream';
import type { SessionStats, SessionSupplier } from './session-supplier';
import { Stragglers } from './stragglers';
import { congestionControlOf, readTcpInfo } from './tcp-info';
import { TokenBucket } from './token-bucket';

const TICK_MS = 100;
const GOODPUT_WINDOW_MS = 2_000;
/** How long the first streams of other paths are waited for, once those of the first are open. */
const OTHER_PATHS_MS = 1_000;
/** Silence of the control connection's path, where there is another to go on with. */
const SILENCE_WITH_OTHERS_MS = 2_000;
/** With no data stream alive for this long the path counts as out, whatever the control connection says. */
const OUTAGE_LIMIT_MS = 60_000;

export class SendingSession implements PathOwner {
  readonly control: ControlChannel;
  readonly pool: PeerPool;
  readonly hello: SessionHello;
  readonly #peer: PeerAddress;
  readonly #controlConnection: Connection;
  readonly #paths: readonly PathStreams[];
  /** Bytes that had arrived, by the destination's reports as of late. */
  readonly #arrivals: { readonly atMs: number; readonly bytes: number }[] = [];
  readonly #ticker: NodeJS.Timeout;
  #bucket = new TokenBucket(0);
  readonly #stragglers = new Stragglers();
  #nextStreamId = 0;
  #aliveAt = performance.now();
  readonly #mode = new SendingMode();
  #batchBytes = 256 * 1024;
  #throttledMs = 0;
  #throttled = false;

  /** Opens the control connection. @param peers the destination by each path; the first carries it @throws the refusal; PEER_UNREACHABLE */
  static async open(
    pool: PeerPool,
    peers: readonly [PeerAddress, ...PeerAddress[]],
    hello: SessionHello,
    role: 'control' | 'settle' = 'control',
  ): Promise<SendingSession> {
    const connection = await pool.connect(
      peers[0],
      { ...hello, role, stream: 0 },
      peers.length > 1 ? SILENCE_WITH_OTHERS_MS : undefined,
    );
    return new SendingSession(pool, peers, hello, connection);
  }

  private constructor(
    pool: PeerPool,
    peers: readonly [PeerAddress, ...PeerAddress[]],
    hello: SessionHello,
    connection: Connection,
  ) {
    this.pool = pool;
    this.hello = hello;
    this.#peer = peers[0];
    this.#controlConnection = connection;
    this.#paths = peers.map((peer) => new PathStreams(peer, this));
    const silenceLimitMs = peers.length > 1 ? SILENCE_WITH_OTHERS_MS : undefined;
    this.control = new ControlChannel(
      connection,
      {
        request: (method): Promise<Answer> =>
          Promise.reject(new DwcpError('PROTOCOL_VIOLATION', `The destination may not ask for ${method}`)),
        event: (name, message) => this.#event(name, message),
        closed: (error) => this.#end(error),
      },
      silenceLimitMs,
    );
    this.#ticker = setInterval(() => this.#tick(), TICK_MS);
  }

  get ended(): boolean {
    return this.#mode.endedWith !== undefined;
  }

  /** Streams pull from a supplier just now. */
  get transferring(): boolean {
    return this.#mode.supplier !== undefined;
  }

  /** Until the first answer, what the kernel saw at the handshake. */
  get rttMs(): number {
    return this.control.rttMs ?? readTcpInfo(this.#controlConnection.socket)?.minRttMs ?? 1;
  }

  get bucket(): TokenBucket {
    return this.#bucket;
  }

  get replacedStreams(): number {
    return this.#paths.reduce((sum, path) => sum + path.replaced, 0);
  }

  /** `cubic`, `bbr`: undefined where the kernel does not tell. */
  get congestionControl(): string | undefined {
    return congestionControlOf(this.#controlConnection.socket);
  }

  /** How the keys of its control connection were agreed on; undefined where it is plain. */
  get keyExchange(): string | undefined {
    return this.#controlConnection.peer?.keyExchange;
  }

  /** What the session has put on the link so far, both ways: frames of all streams and all of the control connection. */
  get linkBytes(): number {
    const { bytesRead, bytesWritten } = this.#controlConnection.socket;
    return this.#paths.reduce((sum, path) => sum + path.sentBytes, bytesRead + bytesWritten);
  }

  /** Bytes that have reached the destination, on all paths. */
  get arrivedBytes(): number {
    return this.#paths.reduce((sum, path) => sum + path.arrivedBytes, 0);
  }

  get stats(): SessionStats {
    const now = performance.now();
    const paths = this.#paths.map((path) => path.stats(now));
    const sum = (of: (path: PathStats) => number): number => paths.reduce((total, path) => total + of(path), 0);
    const activeStreams = sum((path) => path.activeStreams);
    return {
      openStreams: sum((path) => path.openStreams),
      activeStreams,
      rttMs: this.rttMs,
      goodputBytesPerSecond: this.#goodput(),
      idleShare: activeStreams === 0 ? 0 : sum((path) => path.idleStreams) / activeStreams,
      throttled: this.#throttled,
      paths,
    };
  }

  setBucket(bucket: TokenBucket): void {
    this.#bucket = bucket;
    for (const stream of this.#streams()) stream.setBucket(bucket);
  }

  /** The size that batches have now, for the window of each stream. */
  setBatchBytes(bytes: number): void {
    this.#batchBytes = bytes;
  }

  /** How many streams pull on each path. More are opened as needed; surplus ones are parked, and used again first. */
  setTargets(streams: readonly number[]): void {
    for (const [index, path] of this.#paths.entries()) path.setTarget(streams[index] ?? 0);
  }

  /** Opens that many streams on each path. @returns how many are open; @throws where not one could be opened */
  async establish(streams: number): Promise<number> {
    this.setTargets(this.#paths.map(() => streams));
    const started = performance.now();
    const areThere = (): boolean =>
      this.#paths.every(
        (path, index) => path.openStreams >= streams || (index > 0 && performance.now() - started >= OTHER_PATHS_MS),
      );
    await until(() => this.ended || areThere(), { everyMs: 10, withinMs: 15_000 });
    if (this.#mode.endedWith) throw this.#mode.endedWith;
    const open = this.stats.openStreams;
    if (open === 0)
      throw new DwcpError('PATH_OUTAGE', 'The control connection stands but no data stream could be opened');
    return open;
  }

  /** Sends a short train of `bytes` on every stream at the same moment, to see the bottleneck at the other side. */
  async probe(bytes: number): Promise<number> {
    const streams = [...this.#streams()].filter((stream) => stream.active);
    await Promise.all(streams.map((stream) => stream.writeProbe(bytes)));
    return streams.length * bytes;
  }

  /** Keeps every stream that pulls full of bytes that the destination counts and throws away, for as long as `more` says. */
  async writeProbes(bytes: number, more: () => boolean): Promise<void> {
    const streams = [...this.#streams()].filter((stream) => stream.active);
    await Promise.all(
      streams.map(async (stream) => {
        while (more() && !stream.connection.closed) await stream.writeProbe(bytes);
      }),
    );
  }

  /**
   * Lets streams pull from a supplier until it is finished.
   * @throws SESSION_LOST, PATH_OUTAGE, what the destination ended the session with, SUPERSEDED where it is closed here,
   * or the signal's reason
   */
  async transfer(supplier: SessionSupplier, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    const over = this.#mode.transfer(supplier);
    this.#stragglers.beginAnew();
    this.#aliveAt = performance.now();
    const stopListening = onAbort(signal, () => this.#mode.settle(toDwcpError(signal.reason, 'CANCELLED')));
    try {
      for (const stream of this.#streams()) this.adopted(stream);
      this.#checkFinished();
      await over;
    } finally {
      stopListening();
      this.#mode.letGo();
      for (const stream of this.#streams()) stream.wake();
    }
  }

  /** Ends the session, and a transfer that still runs. Connections with nothing on the way go back to the pool, others are closed. */
  close(): void {
    // Not SESSION_LOST: whoever is told that opens the next one.
    const reason = new DwcpError('SUPERSEDED', 'The session was closed on this side');
    if (!this.#mode.end(reason)) return;
    clearInterval(this.#ticker);
    // Streams that pull may be handed a batch any moment, which is nothing for a connection of the pool.
    for (const path of this.#paths) {
      if (this.transferring) path.end(reason);
      else path.giveBack(reason);
    }
    if (this.control.release(reason)) this.pool.giveBack(this.#peer, this.#controlConnection);
    else this.#controlConnection.destroy(reason);
    this.#mode.settle(reason);
  }

  /** Ends the session at once, whatever is on the way. */
  destroy(error: DwcpError): void {
    this.control.destroy(error);
  }

  nextStreamId(): number {
    return this.#nextStreamId++ % 65_536;
  }

  /** A stream that is open pulls. */
  adopted(stream: SendingStream): void {
    const supplier = this.#mode.supplier;
    if (!supplier) return;
    stream
      .run(supplier, (which) => streamWindowBytes(which, this.rttMs, this.#batchBytes))
      .catch((error: unknown) => this.fail(toDwcpError(error, 'INTERNAL')));
  }

  lost(batches: readonly number[], error: DwcpError): void {
    for (const id of batches) this.#mode.supplier?.lost(id);
    if (!this.ended && (error.code === 'PROTOCOL_VIOLATION' || error.code === 'PROTOCOL_VERSION')) this.fail(error);
  }

  fail(error: DwcpError): void {
    if (!this.ended) this.destroy(error);
  }

  *#streams(): IterableIterator<SendingStream> {
    for (const path of this.#paths) yield* [...path.streams];
  }

  #event(name: string, message: Message): void {
    if (name === 'counters') this.#count(readCounters(message.payload));
    // A failure that is the destination's own (a full disk): the transfer ends with its code, the session stays.
    if (name === 'failed') this.#mode.settle(readFailure(message));
  }

  #count({ verified, refused, streams }: Counters): void {
    const now = performance.now();
    for (const { stream, receivedBytes, blocked } of streams)
      this.#paths.some((path) => path.count(stream, receivedBytes, blocked));
    this.#arrivals.push({ atMs: now, bytes: this.arrivedBytes });
    const all = [...this.#streams()];
    for (const id of verified) {
      for (const stream of all) {
        const entry = stream.confirm(id);
        if (!entry) continue;
        if (entry.writtenAt <= now) this.#stragglers.completed(now - entry.writtenAt);
      }
    }
    if (refused.length > 0) this.#mode.supplier?.refused(refused);
    this.#mode.supplier?.verified(verified);
    this.#checkFinished();
  }

  #goodput(): number {
    const now = performance.now();
    while (this.#arrivals[0] && now - this.#arrivals[0].atMs > GOODPUT_WINDOW_MS) this.#arrivals.shift();
    const [first, last] = [this.#arrivals[0], this.#arrivals.at(-1)];
    if (!first || !last) return 0;
    return (last.bytes - first.bytes) / (clamp(now - first.atMs, 50, GOODPUT_WINDOW_MS) / 1000);
  }

  #checkFinished(): void {
    if (this.#mode.supplier?.finished) this.#mode.settle();
  }

  #tick(): void {
    const now = performance.now();
    const throttledMs = this.#bucket.throttledMs;
    this.#throttled = throttledMs - this.#throttledMs > TICK_MS / 4;
    this.#throttledMs = throttledMs;
    for (const path of this.#paths) path.tick(now, this.#mode.supplier !== undefined);
    if (this.#paths.some((path) => path.openStreams > 0 || path.target === 0)) this.#aliveAt = now;
    else if (now - this.#aliveAt > OUTAGE_LIMIT_MS)
      this.fail(new DwcpError('PATH_OUTAGE', `No data stream could be opened for ${OUTAGE_LIMIT_MS / 1000} s`));
    if (this.#mode.supplier) {
      this.#checkFinished();
      this.#reissueStragglers(now);
    }
  }

  /** Only where the limit is not what holds them up: sending more would then help nobody. */
  #reissueStragglers(now: number): void {
    const supplier = this.#mode.supplier;
    if (!supplier?.exhausted || this.#throttled) return;
    for (const id of this.#stragglers.late([...this.#streams()], now)) supplier.lost(id);
  }

  #end(error: DwcpError): void {
    const reason =
      error.code === 'PEER_UNREACHABLE'
        ? new DwcpError('SESSION_LOST', `The session ended: ${error.message}`, { cause: error })
        : error;
    if (!this.#mode.end(reason)) return;
    clearInterval(this.#ticker);
    // Each counts itself out as its connection ends.
    for (const path of this.#paths) path.end(reason);
    this.#mode.settle(reason);
  }
}

function readFailure(message: Message): DwcpError {
  const report = errorReportSchema.safeParse(message.body.error);
  return report.success
    ? fromReport({ side: 'destination', ...report.data })
    : new DwcpError('PROTOCOL_VIOLATION', 'The destination reports a failure that cannot be read');
}
