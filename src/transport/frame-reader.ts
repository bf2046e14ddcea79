/**
 * Cuts a byte stream into frames. The memory of a frame is asked for once its header has been bounded; where none is
 * free the reader keeps the rest of the chunk, says `blocked`, and goes on at resume(). Knows nothing of sockets.
 */
import { HEADER_BYTES, openFrame, readHeader, type Frame, type FrameHeader, type FrameType } from './frame';

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

  /** Takes the next bytes of the stream. @returns false where the reader is blocked and wants no more. */
  push(chunk: Buffer): boolean {
    let rest = chunk;
    while (rest.length > 0) {
      const header = this.#current ?? this.#readOn;
      if (header === 'header') rest = this.#fillHeader(rest);
      else if (header !== 'stopped' && this.#ready(header)) rest = this.#fillBody(header, rest);
      else {
        this.#waiting = rest;
        return false;
      }
    }
    return true;
  }

  /** What comes next between two frames. */
  get #readOn(): 'header' | 'stopped' {
    return this.#stopped ? 'stopped' : 'header';
  }

  /** Goes on after `push` said false, or after stop(). @returns false where memory is still not free. */
  resume(): boolean {
    const rest = this.#waiting ?? Buffer.alloc(0);
    this.#waiting = undefined;
    this.#stopped = false;
    if (this.#current && !this.#bytes && !this.#ready(this.#current)) {
      this.#waiting = rest;
      return false;
    }
    return this.push(rest);
  }

  #fillHeader(chunk: Buffer): Buffer {
    const taken = chunk.copy(this.#header, this.#headerFilled, 0, HEADER_BYTES - this.#headerFilled);
    this.#headerFilled += taken;
    if (this.#headerFilled === HEADER_BYTES) {
      this.#current = readHeader(this.#header, this.#allowed);
      this.#headerFilled = 0;
      // A frame without a body is complete here, even where no further byte ever comes.
      if (this.#current.metaBytes + this.#current.payloadBytes === 0 && this.#ready(this.#current)) this.#fillBody(this.#current, Buffer.alloc(0));
    }
    return chunk.subarray(taken);
  }

  #ready(header: FrameHeader): boolean {
    if (this.#bytes) return true;
    const bytes = this.#sink.allocate(header);
    if (!bytes) return false;
    this.#header.copy(bytes);
    this.#bytes = bytes;
    this.#filled = HEADER_BYTES;
    return true;
  }

  #fillBody(header: FrameHeader, chunk: Buffer): Buffer {
    const bytes = this.#bytes;
    if (!bytes) return chunk;
    const total = HEADER_BYTES + header.metaBytes + header.payloadBytes;
    const taken = chunk.copy(bytes, this.#filled, 0, total - this.#filled);
    this.#filled += taken;
    if (this.#filled === total) {
      this.#current = undefined;
      this.#bytes = undefined;
      this.#sink.deliver(openFrame(header, bytes));
    }
    return chunk.subarray(taken);
  }
}
