/**
 * UNIX sockets of a host, in the shape of node:net: bytes in order, in pieces of any size, with a small buffer in between that
 * a reader who does not read fills up. A socket that is connected to and not accepted waits; one whose process dies ends.
 */
import { EventEmitter } from 'node:events';
import type { Module } from './fs-modules';
import { only } from './fs-modules';
import type { Life } from './life';
import type { Scheduler } from './scheduler';
import { failure, type ProcessFiles } from './sim-fs';

/** What lies between a writer and a reader. */
const BUFFER_BYTES = 24 * 1024;
const MOST_AT_ONCE_BYTES = 64 * 1024;

type Written = ((error?: Error | null) => void) | undefined;

/** One end of a connection. */
export class SimSocket extends EventEmitter {
  readonly life: Life;
  peer: SimSocket | undefined;
  destroyed = false;
  bytesRead = 0;
  bytesWritten = 0;
  readonly #scheduler: Scheduler;
  #inbox: Buffer[] = [];
  #inboxBytes = 0;
  /** Accepted by the other side's program, or by nobody yet. */
  #connected = false;
  #paused = false;
  #flowing = false;
  #delivering = false;
  #peerEnded = false;
  #endSaid = false;
  #ended = false;
  #needDrain = false;
  #before: { readonly bytes: Buffer; readonly done: Written }[] = [];

  constructor(life: Life, scheduler: Scheduler) {
    super();
    this.life = life;
    this.#scheduler = scheduler;
    life.onEnd(() => this.#processEnded());
  }

  get writableNeedDrain(): boolean {
    return this.#needDrain;
  }

  get writable(): boolean {
    return !this.destroyed && !this.#ended;
  }

  /** Bytes that the other end has not read. */
  get unreadBytes(): number {
    return (this.peer?.inboxBytes ?? 0) + this.#before.reduce((sum, { bytes }) => sum + bytes.length, 0);
  }

  get inboxBytes(): number {
    return this.#inboxBytes;
  }

  get hasRoom(): boolean {
    return this.unreadBytes < BUFFER_BYTES;
  }

  override on(event: string, listener: (...args: never[]) => void): this {
    super.on(event, listener as (...args: unknown[]) => void);
    if (event === 'data' && !this.#paused) this.resume();
    return this;
  }

  connected(peer: SimSocket): void {
    this.peer = peer;
    this.#connected = true;
    for (const { bytes, done } of this.#before.splice(0)) this.#send(bytes, done);
  }

  write(data: string | Uint8Array, encoding?: string | Written, callback?: Written): boolean {
    const bytes = typeof data === 'string' ? Buffer.from(data) : Buffer.from(data);
    const done = typeof encoding === 'function' ? encoding : callback;
    if (this.destroyed || this.#ended) {
      const error = Object.assign(new Error('write after end'), { code: 'EPIPE' });
      this.life.post('a write that fails', () => done?.(error));
      return false;
    }
    if (this.#connected) this.#send(bytes, done);
    else this.#before.push({ bytes, done });
    this.#needDrain = !this.hasRoom;
    return !this.#needDrain;
  }

  end(data?: string | Uint8Array): this {
    if (data !== undefined) this.write(data);
    if (this.#ended || this.destroyed) return this;
    this.#ended = true;
    this.peer?.otherEnded();
    return this;
  }

  destroy(error?: Error): this {
    if (this.destroyed) return this;
    this.destroyed = true;
    this.#ended = true;
    this.#inbox = [];
    this.#inboxBytes = 0;
    this.peer?.otherEnded();
    this.peer?.wrote();
    this.life.post('a socket closes', () => {
      if (error) this.emit('error', error);
      this.emit('close');
    });
    return this;
  }

  pause(): this {
    this.#paused = true;
    return this;
  }

  resume(): this {
    this.#paused = false;
    this.#flowing = true;
    this.#deliverSoon();
    return this;
  }

  setNoDelay(): this {
    return this;
  }

  setKeepAlive(): this {
    return this;
  }

  setTimeout(): this {
    return this;
  }

  ref(): this {
    return this;
  }

  unref(): this {
    return this;
  }

  /** The other end closes its writing half, or is gone. */
  otherEnded(): void {
    this.#peerEnded = true;
    this.#deliverSoon();
  }

  /** The other end has read. */
  wrote(): void {
    if (!this.#needDrain || this.destroyed) return;
    this.life.post('a buffer drains', () => {
      if (!this.#needDrain || this.destroyed || !this.hasRoom) return;
      this.#needDrain = false;
      this.emit('drain');
    });
  }

  receive(bytes: Buffer): void {
    if (this.destroyed) return;
    this.#inbox.push(bytes);
    this.#inboxBytes += bytes.length;
    this.#deliverSoon();
  }

  #send(bytes: Buffer, done: Written): void {
    this.bytesWritten += bytes.length;
    if (!this.peer || this.peer.destroyed || !this.peer.life.alive) {
      this.life.post('a write to nobody', () =>
        this.destroy(Object.assign(new Error('write EPIPE'), { code: 'EPIPE' })),
      );
      return;
    }
    this.peer.receive(bytes);
    if (done) this.life.post('written', () => done());
  }

  #deliverSoon(): void {
    if (this.#delivering || this.destroyed || !this.#flowing || this.#paused) return;
    if (this.#inboxBytes === 0 && (!this.#peerEnded || this.#endSaid)) return;
    this.#delivering = true;
    this.life.post('a socket has bytes', () => {
      this.#delivering = false;
      this.#deliver();
    });
  }

  #deliver(): void {
    if (this.destroyed || this.#paused) return;
    if (this.#inboxBytes > 0) {
      const all = this.#inbox.length === 1 ? (this.#inbox[0] as Buffer) : Buffer.concat(this.#inbox);
      const most = Math.min(all.length, MOST_AT_ONCE_BYTES);
      // Mostly as it was written, now and then a piece.
      const count = this.#scheduler.random() < 0.1 ? 1 + Math.floor(this.#scheduler.random() * most) : most;
      this.#inbox = count < all.length ? [all.subarray(count)] : [];
      this.#inboxBytes = all.length - count;
      this.bytesRead += count;
      this.peer?.wrote();
      this.emit('data', all.subarray(0, count));
    } else if (this.#peerEnded && !this.#endSaid) {
      this.#endSaid = true;
      this.emit('end');
      if (!this.#ended) this.end();
      this.destroy();
    }
    this.#deliverSoon();
  }

  #processEnded(): void {
    if (this.destroyed) return;
    this.destroyed = true;
    this.peer?.otherEnded();
  }
}

/** Who listens at a place: every connection is told once, and accepted when the listener likes. */
export interface Listener {
  readonly life: Life;
  connection(accept: () => SimSocket): void;
}

/** Sockets of one process. */
export class ProcessSockets {
  readonly #life: Life;
  readonly #files: ProcessFiles;
  readonly #scheduler: Scheduler;

  constructor(life: Life, files: ProcessFiles, scheduler: Scheduler) {
    this.#life = life;
    this.#files = files;
    this.#scheduler = scheduler;
  }

  /** @returns what stops listening; @throws EADDRINUSE where something has that name */
  listen(path: string, connection: Listener['connection']): () => void {
    const { folder, name } = this.#files.folderOf(path, 'bind');
    if (folder.entries.has(name))
      throw Object.assign(new Error(`listen EADDRINUSE: address already in use ${path}`), { code: 'EADDRINUSE' });
    const node = this.#files.disk.make('socket');
    const listener: Listener = { life: this.#life, connection };
    node.listener = listener;
    this.#files.disk.link(folder, name, node);
    return () => {
      if (node.listener === listener) node.listener = undefined;
      if (folder.entries.get(name) === node) this.#files.disk.unlink(folder, name);
    };
  }

  connect(path: string): SimSocket {
    const socket = new SimSocket(this.#life, this.#scheduler);
    this.#life.post(`connects to ${path}`, () => {
      if (socket.destroyed) return;
      const listener = this.#files.find(path)?.listener as Listener | undefined;
      if (!listener?.life.alive) {
        socket.destroy(failure(this.#files.exists(path) ? 'ECONNREFUSED' : 'ENOENT', 'connect', path));
        return;
      }
      const other = new SimSocket(listener.life, this.#scheduler);
      other.connected(socket);
      socket.connected(other);
      socket.emit('connect');
      listener.life.post('a connection', () => listener.connection(() => other));
    });
    return socket;
  }
}

class SimServer extends EventEmitter {
  readonly #life: Life;
  readonly #sockets: ProcessSockets;
  #stop: (() => void) | undefined;

  constructor(life: Life, sockets: ProcessSockets) {
    super();
    this.#life = life;
    this.#sockets = sockets;
  }

  listen(place: string | { readonly path?: string }, ready?: () => void): this {
    const path = typeof place === 'string' ? place : place.path;
    this.#life.post('listens', () => {
      try {
        if (path !== undefined) this.#stop = this.#sockets.listen(path, (accept) => this.emit('connection', accept()));
        ready?.();
        this.emit('listening');
      } catch (error) {
        this.emit('error', error);
      }
    });
    return this;
  }

  address(): { readonly address: string; readonly port: number } {
    return { address: '127.0.0.1', port: 1 };
  }

  close(done?: () => void): this {
    this.#stop?.();
    this.#life.post('a server closes', () => {
      done?.();
      this.emit('close');
    });
    return this;
  }

  ref(): this {
    return this;
  }

  unref(): this {
    return this;
  }
}

export function netModule(life: Life, sockets: ProcessSockets): Module {
  const createServer = (options: unknown, handler?: (socket: SimSocket) => void): SimServer => {
    const server = new SimServer(life, sockets);
    const connection = typeof options === 'function' ? (options as (socket: SimSocket) => void) : handler;
    if (connection) server.on('connection', connection);
    return server;
  };
  return only('node:net', {
    connect: (path: string) => sockets.connect(path),
    createConnection: (path: string) => sockets.connect(path),
    createServer,
    Socket: SimSocket,
  });
}
