/**
 * Cuts a byte stream into frames. The memory of a frame is asked for once its header has been bounded; where none is
 * free the reader is blocked, keeps the rest of the chunk, and goes on at resume(). Bytes come in chunks, or are put
 * by the caller right where they belong. Knows nothing of sockets.
 */
import { type Frame, type FrameHeader, type FrameType, HEADER_BYTES, openFrame, readHeader } from './frame';

export interface FrameSink {
  /** Memory for a whole frame, or undefined while none is free. */
  allocate(header: FrameHeader): Buffer | undefined;
  deliver(frame: Frame): void;
}

export class FrameReader {
  readonly #sink: FrameSink;
  readonly #header = Buffer.alloc(HEADER_BYTES);
  #allowed: ReadonlySet<FrameType>;
  #headerFilled = 0;
  #current: FrameHeader | undefined;
  #bytes: Buffer | undefined;
  #filled = 0;
  #waiting: Buffer | undefined;
  #stopped = false;

  constructor(allowed: ReadonlySet<FrameType>, sink: FrameSink) {
    this.#allowed = allowed;
    this.#sink = sink;
  }

  /** Restricts the frames to come; a frame whose header has been read already is not affected. */
  allow(types: ReadonlySet<FrameType>): void {
    this.#allowed = types;
  }

  /** Leaves what comes behind the frame just delivered unread until resume(): who reads on is not known yet. */
  stop(): void {
    this.#stopped = true;
  }

  /** Takes the next bytes of the stream. @returns false where the reader is blocked and wants no more */
  push(chunk: Buffer): boolean {
    if (this.#waiting) {
      // TLS hands over what it has decrypted in pieces, also behind a socket's pause.
      this.#waiting = Buffer.concat([this.#waiting, chunk]);
      return false;
    }
    for (let at = 0; at < chunk.length; ) {
      const space = this.space();
      if (!space) {
        this.#waiting = chunk.subarray(at);
        return false;
      }
      const taken = chunk.copy(space, 0, at);
      at += taken;
      this.filled(taken);
    }
    return true;
  }

  /**
   * Where the stream's next bytes belong, and no byte behind them: who reads them right there says so with filled(), and
   * spares a copy. Undefined while the reader is blocked.
   */
  space(): Buffer | undefined {
    if (!this.#current) return this.#stopped ? undefined : this.#header.subarray(this.#headerFilled);
    return this.#memoryOf(this.#current)?.subarray(this.#filled, lengthOf(this.#current));
  }

  /** So many bytes have been put where `space` said. */
  filled(bytes: number): void {
    if (!this.#current) {
      this.#headerFilled += bytes;
      if (this.#headerFilled < HEADER_BYTES) return;
      this.#current = readHeader(this.#header, this.#allowed);
      this.#headerFilled = 0;
      this.#filled = HEADER_BYTES;
    } else this.#filled += bytes;
    if (this.#filled === lengthOf(this.#current)) this.#complete(this.#current);
  }

  /** Goes on after `push` said false, or after stop(). @returns false where memory is still not free */
  resume(): boolean {
    const rest = this.#waiting;
    this.#waiting = undefined;
    this.#stopped = false;
    return (rest === undefined || this.push(rest)) && this.space() !== undefined;
  }

  #complete(header: FrameHeader): void {
    // A frame without a body waits for no memory.
    const bytes = this.#memoryOf(header) ?? Buffer.from(this.#header);
    this.#current = undefined;
    this.#bytes = undefined;
    this.#sink.deliver(openFrame(header, bytes));
  }

  #memoryOf(header: FrameHeader): Buffer | undefined {
    if (this.#bytes) return this.#bytes;
    const bytes = this.#sink.allocate(header);
    if (!bytes) return undefined;
    this.#header.copy(bytes);
    return (this.#bytes = bytes);
  }
}

function lengthOf({ metaBytes, payloadBytes }: FrameHeader): number {
  return HEADER_BYTES + metaBytes + payloadBytes;
}
