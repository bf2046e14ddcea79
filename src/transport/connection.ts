/**
 * A socket that speaks frames: reads them with bounded memory and backpressure, writes them, ends once. What frames
 * mean is for those who hold the connection; which may come is set by allow().
 */
import type { OnReadOpts, Socket } from 'node:net';
import { DwcpError, toDwcpError } from '../model/errors';
import { KIB } from '../model/units';
import { type Frame, type FrameHeader, type FrameType, HEADER_BYTES } from './frame';
import { FrameReader } from './frame-reader';
import { readAnswer, refusedFrame } from './hello';
import type { Proven } from './peer-security';
import type { Run, Slab } from './slab';

/** A received frame and, where its memory is the slab's, the run to give back. */
export interface Received {
  readonly frame: Frame;
  readonly run: Run | undefined;
}

export type FrameHandler = (received: Received) => void;
export type CloseHandler = (error: DwcpError) => void;

/** A socket, or what makes one that reads into the memory it asks for: then nothing that arrives is copied. */
export type SocketOrMaker = Socket | ((onread: OnReadOpts) => Socket);

/** Frames whose memory comes from the slab: the bulk. */
const BULK: ReadonlySet<FrameType> = new Set(['batch', 'extent']);

/**
 * A frame that has memory of the slab and does not come keeps that memory from all others: in each such time it gets on by so much, or
 * its connection ends. The slowest stream of a session on a link of 1 Mbit/s is faster.
 */
const PROGRESS_WITHIN_MS = 30_000;
const LEAST_PROGRESS_BYTES = 4 * KIB;

/** For what a socket reads when its connection has no place for it yet; looked at before anything else is read. */
const ASIDE = Buffer.allocUnsafeSlow(64 * KIB);

export class Connection {
  readonly socket: Socket;
  /** Who is at the other end, as TLS has proven it; undefined on a plain connection, where nobody has. */
  peer: Proven | undefined;
  #slab: Slab | undefined;
  #reader: FrameReader;
  #run: Run | undefined;
  #onFrame: FrameHandler = () => undefined;
  #onClose: CloseHandler = () => undefined;
  #closedWith: DwcpError | undefined;
  #receivedBytes = 0;
  #cancelWait: (() => void) | undefined;
  #held = false;
  /** Looks whether a frame that has claimed memory gets on; from the first such frame to the end of the connection. */
  readonly #progressWithinMs: number;
  #watch: NodeJS.Timeout | undefined;
  #seen: { readonly run: Run | undefined; readonly receivedBytes: number } | undefined;
  /** Where the socket reads to now; undefined where that is ASIDE. */
  #direct: Buffer | undefined;

  constructor(open: SocketOrMaker, allowed: ReadonlySet<FrameType>, progressWithinMs = PROGRESS_WITHIN_MS) {
    this.#progressWithinMs = progressWithinMs;
    this.#reader = new FrameReader(allowed, {
      allocate: (header) => this.#allocate(header),
      deliver: (frame) => this.#deliver(frame),
    });
    const socket =
      typeof open === 'function'
        ? open({ buffer: () => this.#space(), callback: (bytes, into) => this.#filled(bytes, into) })
        : open;
    this.socket = socket;
    socket.setNoDelay(true);
    socket.setKeepAlive(true, 15_000);
    if (typeof open !== 'function')
      socket.on('data', (chunk: Buffer) => {
        this.#receivedBytes += chunk.length;
        this.#take(() => this.#reader.push(chunk));
      });
    socket.on('error', (error) => this.#finish(toDwcpError(error, 'PEER_UNREACHABLE')));
    socket.on('close', () =>
      this.#finish(new DwcpError('PEER_UNREACHABLE', 'The connection was closed by the other side')),
    );
  }

  get closed(): boolean {
    return this.#closedWith !== undefined;
  }

  /** Bytes read since the connection was opened, also those of a frame that is not complete yet. */
  get receivedBytes(): number {
    return this.#receivedBytes;
  }

  /** True while reading waits for memory of the slab: no progress then is no fault of the path. */
  get blocked(): boolean {
    return this.#cancelWait !== undefined;
  }

  /** Sets who gets frames and the end; from now on frames of other types end the connection. */
  use(allowed: ReadonlySet<FrameType>, onFrame: FrameHandler, onClose: CloseHandler, slab?: Slab): void {
    this.#reader.allow(allowed);
    this.#onFrame = onFrame;
    this.#onClose = onClose;
    this.#slab = slab;
    if (this.#closedWith) onClose(this.#closedWith);
    else if (this.#held) {
      this.#held = false;
      this.#take(() => this.#reader.resume());
    }
  }

  /** Leaves everything behind the frame just delivered to whoever calls use() next. */
  hold(): void {
    this.#held = true;
    this.#reader.stop();
  }

  /** Hands bytes to the kernel. Resolves when it has taken them all, and on the end of the connection too. */
  write(bytes: Buffer): Promise<void> {
    if (this.#closedWith) return Promise.resolve();
    return new Promise((resolve) => this.socket.write(bytes, () => resolve()));
  }

  /** Ends the connection at once; onClose hears `error` unless it has heard another before. */
  destroy(error: DwcpError): void {
    this.#finish(error);
    this.socket.destroy();
  }

  /** Writes a last frame and ends in order; the socket is gone within two seconds in any case. */
  endWith(bytes: Buffer, error: DwcpError): void {
    this.#finish(error);
    this.socket.end(bytes);
    setTimeout(() => this.socket.destroy(), 2000).unref();
  }

  #allocate(header: FrameHeader): Buffer | undefined {
    const bytes = HEADER_BYTES + header.metaBytes + header.payloadBytes;
    if (!this.#slab || !BULK.has(header.type)) return Buffer.allocUnsafeSlow(bytes);
    this.#run = this.#slab.take(bytes);
    this.#watch ??= setInterval(() => this.#expectProgress(), this.#progressWithinMs).unref();
    return this.#run?.bytes.subarray(0, bytes);
  }

  #expectProgress(): void {
    const before = this.#seen;
    this.#seen = { run: this.#run, receivedBytes: this.#receivedBytes };
    if (!this.#run || before?.run !== this.#run) return;
    if (this.#receivedBytes - before.receivedBytes >= LEAST_PROGRESS_BYTES) return;
    const reason = new DwcpError('PEER_UNREACHABLE', `A frame did not go on within ${this.#progressWithinMs / 1000} s`);
    this.endWith(refusedFrame(reason), reason);
  }

  #deliver(frame: Frame): void {
    const run = this.#run;
    this.#run = undefined;
    // The other side says why it ends the connection; readAnswer throws what it says.
    if (frame.type === 'refused') readAnswer(frame);
    this.#onFrame({ frame, run });
  }

  /** Where the socket reads to next. While the reader is blocked, or its memory is no longer this connection's: aside. */
  #space(): Buffer {
    this.#direct = this.#closedWith ? undefined : this.#reader.space();
    return this.#direct ?? ASIDE;
  }

  #filled(bytes: number, into: Uint8Array): boolean {
    this.#receivedBytes += bytes;
    this.#take(() => {
      // What came while the reader was blocked, at most one read, has still to go to its place.
      if (!this.#direct) return this.#reader.push(Buffer.from(into.subarray(0, bytes)));
      this.#reader.filled(bytes);
      return this.#reader.space() !== undefined;
    });
    return true;
  }

  /** Runs the reader; a violation ends the connection, a blocked reader stops the socket until memory is free. */
  #take(read: () => boolean): void {
    if (this.#closedWith) return;
    try {
      if (read()) {
        if (this.socket.isPaused()) this.socket.resume();
        return;
      }
    } catch (error) {
      const reason = toDwcpError(error, 'PROTOCOL_VIOLATION');
      this.endWith(refusedFrame(reason), reason);
      return;
    }
    this.socket.pause();
    if (this.#held) return;
    this.#cancelWait = this.#slab?.whenFreed(() => {
      this.#cancelWait = undefined;
      this.#take(() => this.#reader.resume());
    });
  }

  #finish(error: DwcpError): void {
    if (this.#closedWith) return;
    this.#closedWith = error;
    clearInterval(this.#watch);
    this.#cancelWait?.();
    this.#cancelWait = undefined;
    // The kernel may not write into memory that has been given back.
    if (this.#direct) this.socket.pause();
    if (this.#run && this.#slab) this.#slab.free(this.#run);
    this.#run = undefined;
    this.#onClose(error);
  }
}
