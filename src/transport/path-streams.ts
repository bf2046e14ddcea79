/**
 * The data streams of one path of a session (an address of the destination): opens them in small batches of handshakes,
 * parks and replaces them, and knows what the path carries. When none is left alive the path is out: one connection
 * probes it, and the others follow when that stands. What they carry, and on which path, is nobody's choice: they pull.
 */
import { DwcpError, toDwcpError } from '../model/errors';
import type { Connection } from './connection';
import type { PeerAddress } from './endpoint';
import type { SessionHello } from './hello';
import { PathMeter } from './path-meter';
import { HANDSHAKES_AT_ONCE, type PeerPool } from './peer-pool';
import { SendingStream } from './sending-stream';
import type { TokenBucket } from './token-bucket';
import { TrickleWatch } from './trickle-watch';

/** What a path needs of its session. */
export interface PathOwner {
  readonly pool: PeerPool;
  readonly hello: SessionHello;
  readonly bucket: TokenBucket;
  readonly ended: boolean;
  /** Of the control connection; what counts until the path's own is known. */
  readonly rttMs: number;
  nextStreamId(): number;
  adopted(stream: SendingStream): void;
  /** A stream has ended: these batches may not have arrived. */
  lost(batches: readonly number[], error: DwcpError): void;
  fail(error: DwcpError): void;
}

export interface PathStats {
  readonly peer: PeerAddress;
  readonly openStreams: number;
  readonly activeStreams: number;
  /** Active streams that wait for a batch. */
  readonly idleStreams: number;
  /** Bytes that have reached the destination, all in all. */
  readonly arrivedBytes: number;
  readonly rttMs: number;
  /** Share of segments sent again as of late; undefined where the kernel does not tell. */
  readonly lossRatio: number | undefined;
  /** Share of their time that the destination's receive windows held the streams; undefined where the kernel does not tell. */
  readonly windowLimitedShare: number | undefined;
  /** What the kernel takes the streams' rate of delivery for, all together; 0 where it does not tell. */
  readonly deliveryBytesPerSecond: number;
  /** No stream lives, or none has made progress for so long that something is wrong with the path. */
  readonly out: boolean;
}

const MIN_STALL_MS = 3_000;
const OUT_AFTER_MS = 1_500;
const OUT_AFTER_ROUND_TRIPS = 8;
const MAX_BACKOFF_MS = 10_000;
/** While nothing gets through: often enough that a path which is back is in use again at once. */
const PROBE_BACKOFF_MS = 500;

export class PathStreams {
  readonly peer: PeerAddress;
  readonly #owner: PathOwner;
  readonly #streams = new Map<number, SendingStream>();
  readonly #meter = new PathMeter();
  readonly #trickle = new TrickleWatch();
  #target = 0;
  #opening = 0;
  #failures = 0;
  #nextOpenAt = 0;
  #arrivedBytes = 0;
  #progressAt = performance.now();
  #sentByEnded = 0;
  replaced = 0;

  constructor(peer: PeerAddress, owner: PathOwner) {
    this.peer = peer;
    this.#owner = owner;
  }

  get streams(): IterableIterator<SendingStream> {
    return this.#streams.values();
  }

  get openStreams(): number {
    return this.#streams.size;
  }

  get target(): number {
    return this.#target;
  }

  get sentBytes(): number {
    return [...this.streams].reduce((sum, stream) => sum + stream.sentBytes, this.#sentByEnded);
  }

  get arrivedBytes(): number {
    return this.#arrivedBytes;
  }

  get rttMs(): number {
    return this.#meter.minRttMs ?? this.#owner.rttMs;
  }

  stats(now: number): PathStats {
    const active = [...this.streams].filter((stream) => stream.active);
    return {
      peer: this.peer,
      openStreams: this.#streams.size,
      activeStreams: active.length,
      idleStreams: active.filter((stream) => stream.idle).length,
      arrivedBytes: this.#arrivedBytes,
      rttMs: this.rttMs,
      lossRatio: this.#meter.lossRatio,
      windowLimitedShare: this.#meter.windowLimitedShare,
      deliveryBytesPerSecond: this.#meter.deliveryBytesPerSecond,
      out: this.#isOut(now),
    };
  }

  setTarget(streams: number): void {
    this.#target = streams;
    this.balance();
  }

  /** What the receiver reports of one of these streams. @returns false where it is none of them */
  count(id: number, receivedBytes: number, blocked: boolean): boolean {
    const stream = this.#streams.get(id);
    if (!stream) return false;
    const gained = stream.count(receivedBytes, blocked, this.rttMs);
    this.#arrivedBytes += gained;
    if (gained > 0 || blocked) this.#progressAt = performance.now();
    return true;
  }

  /** Parks what is too many, opens what is missing. */
  balance(): void {
    for (const [index, stream] of [...this.streams].entries()) stream.setActive(index < this.#target);
    const atOnce = this.#streams.size === 0 && this.#failures > 0 ? 1 : HANDSHAKES_AT_ONCE;
    while (
      !this.#owner.ended &&
      this.#streams.size + this.#opening < this.#target &&
      this.#opening < atOnce &&
      performance.now() >= this.#nextOpenAt
    ) {
      this.#opening += 1;
      void this.#open();
    }
  }

  /** Every 100 ms. @param carrying true while a transfer goes on */
  tick(now: number, carrying: boolean): void {
    this.balance();
    this.#meter.observe(now, this.streams);
    if (!carrying) {
      this.#progressAt = now;
      return;
    }
    const limitMs = Math.max(MIN_STALL_MS, 10 * this.rttMs);
    for (const stream of [...this.streams]) {
      if (stream.stalledFor(now) > limitMs)
        stream.connection.destroy(
          new DwcpError('PATH_OUTAGE', `Stream ${stream.id} made no progress for ${Math.round(limitMs)} ms`),
        );
    }
    for (const stream of this.#trickle.observe(now, [...this.streams]))
      stream.connection.destroy(new DwcpError('PATH_OUTAGE', `Stream ${stream.id} only trickled: opened anew`));
  }

  /** Ends all streams. */
  end(error: DwcpError): void {
    for (const stream of [...this.streams]) stream.connection.destroy(error);
  }

  /** Gives those with nothing on the way back to the pool, and ends the others. */
  giveBack(error: DwcpError): void {
    for (const stream of [...this.streams]) {
      if (stream.outstanding.size === 0 && !stream.connection.closed) {
        this.#streams.delete(stream.id);
        this.#sentByEnded += stream.sentBytes;
        this.#owner.pool.giveBack(this.peer, stream.connection);
      } else stream.connection.destroy(error);
    }
  }

  #isOut(now: number): boolean {
    if (this.#streams.size === 0) return this.#target > 0;
    const waiting = [...this.streams].some((stream) => stream.stalledFor(now) > 0);
    return waiting && now - this.#progressAt > Math.max(OUT_AFTER_MS, OUT_AFTER_ROUND_TRIPS * this.rttMs);
  }

  async #open(): Promise<void> {
    const id = this.#owner.nextStreamId();
    try {
      const connection = await this.#owner.pool.connect(this.peer, { ...this.#owner.hello, role: 'data', stream: id });
      this.#opening -= 1;
      this.#failures = 0;
      if (this.#owner.ended) connection.destroy(new DwcpError('SESSION_LOST', 'The session has ended'));
      else this.#adopt(id, connection);
    } catch (error) {
      this.#opening -= 1;
      this.#failures += 1;
      const refusal = toDwcpError(error, 'PEER_UNREACHABLE');
      if (refusal.spec.retry === 'permanent') this.#owner.fail(refusal);
      const backoffMs =
        this.#streams.size === 0 ? PROBE_BACKOFF_MS : Math.min(MAX_BACKOFF_MS, 250 * 2 ** Math.min(6, this.#failures));
      this.#nextOpenAt = performance.now() + backoffMs * (0.75 + Math.random() / 2);
    }
    this.balance();
  }

  #adopt(id: number, connection: Connection): void {
    const stream: SendingStream = new SendingStream(id, connection, this.#owner.bucket, (error) =>
      this.#ended(stream, error),
    );
    if (connection.closed) return;
    this.#streams.set(id, stream);
    this.#progressAt = performance.now();
    this.#owner.adopted(stream);
  }

  #ended(stream: SendingStream, error: DwcpError): void {
    if (!this.#streams.delete(stream.id)) return;
    this.#sentByEnded += stream.sentBytes;
    const batches = [...stream.outstanding.keys()];
    stream.outstanding.clear();
    if (!this.#owner.ended) this.replaced += 1;
    this.#owner.lost(batches, error);
    if (!this.#owner.ended) this.balance();
  }
}
