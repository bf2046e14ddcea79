/**
 * A socket in memory, for what speaks frames: what is received goes to the connection at once, in the caller's own stack, so that whatever
 * a real socket's event would throw into the process is thrown to whoever plays the input. What the connection writes is read as frames.
 */
import { EventEmitter } from 'node:events';
import type { Socket } from 'node:net';
import { Connection } from '../src/transport/connection';
import { FRAME, type Frame, type FrameType, HEADER_BYTES } from '../src/transport/frame';
import { FrameReader } from '../src/transport/frame-reader';

const ALL: ReadonlySet<FrameType> = new Set(Object.keys(FRAME) as FrameType[]);

export class MemorySocket extends EventEmitter {
  readonly #waiting: Buffer[] = [];
  readonly #written: FrameReader;
  #paused = false;
  destroyed = false;
  bytesRead = 0;
  bytesWritten = 0;
  readonly remoteAddress = '127.0.0.1';

  /** @param written hears of each frame that the connection writes */
  constructor(written: (frame: Frame) => void) {
    super();
    this.#written = new FrameReader(ALL, {
      allocate: ({ metaBytes, payloadBytes }) => Buffer.alloc(HEADER_BYTES + metaBytes + payloadBytes),
      deliver: written,
    });
  }

  /** A connection that reads from it. */
  connection(allowed: ReadonlySet<FrameType>): Connection {
    return new Connection(this as unknown as Socket, allowed);
  }

  receive(bytes: Buffer): void {
    this.#waiting.push(bytes);
    this.#flush();
  }

  /** The other side has gone. */
  hangUp(): void {
    if (this.destroyed) return;
    this.destroyed = true;
    this.emit('close');
  }

  setNoDelay(): this {
    return this;
  }

  setKeepAlive(): this {
    return this;
  }

  isPaused(): boolean {
    return this.#paused;
  }

  pause(): this {
    this.#paused = true;
    return this;
  }

  resume(): this {
    this.#paused = false;
    this.#flush();
    return this;
  }

  write(bytes: Buffer, done?: () => void): boolean {
    this.bytesWritten += bytes.length;
    if (!this.destroyed) this.#written.push(Buffer.from(bytes));
    if (done) queueMicrotask(done);
    return true;
  }

  end(bytes?: Buffer): this {
    if (bytes) this.write(bytes);
    this.hangUp();
    return this;
  }

  destroy(): this {
    this.hangUp();
    return this;
  }

  #flush(): void {
    while (!this.#paused && !this.destroyed) {
      const next = this.#waiting.shift();
      if (!next) return;
      this.bytesRead += next.length;
      this.emit('data', next);
    }
  }
}
