/**
 * A byte stream of somebody else (QEMU's migration, its mirror of a disk) through a connection between two agents: TUNNEL
 * frames as the bytes come, an empty one where a side has ended. No byte of it is looked at; what flows is bounded by the
 * sockets on either side, and paced by the bucket where one is given.
 */
import { rmSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { DwcpError, toDwcpError } from '../model/errors';
import { KIB } from '../model/units';
import type { Connection } from './connection';
import { buildFrame, type FrameType } from './frame';
import type { TokenBucket } from './token-bucket';

const FRAMES: ReadonlySet<FrameType> = new Set(['tunnel']);
const PIECE_BYTES = 64 * KIB;
/** What was sent last is still on its way when the socket behind a tunnel closes. */
const LINGER_MS = 5_000;

interface Taker {
  /** @returns what to wait for before more may come */
  take(bytes: Buffer): Promise<void> | undefined;
  ended(): void;
}

export class Tunnel {
  readonly #connection: Connection;
  readonly #bucket: TokenBucket | undefined;
  readonly #ended: (error: DwcpError) => void;
  /** Who takes what the other side says; until it is known, one frame waits and the sockets hold the rest. */
  readonly #taker: Promise<Taker>;
  #setTaker: (taker: Taker) => void = () => undefined;
  #knownTaker: Taker | undefined;
  #tail: Promise<void> = Promise.resolve();
  #sentBytes = 0;
  #receivedBytes = 0;

  /** @param ended called once when the connection is gone, also after both sides have ended in order */
  constructor(connection: Connection, ended: (error: DwcpError) => void, bucket?: TokenBucket) {
    this.#connection = connection;
    this.#bucket = bucket;
    this.#ended = ended;
    this.#taker = new Promise((resolve) => (this.#setTaker = resolve));
    this.#listen();
  }

  get bytes(): number {
    return this.#sentBytes + this.#receivedBytes;
  }

  /** Resolves when the kernel has taken the bytes: whoever waits for it keeps no more than one chunk here. */
  send(bytes: Buffer): Promise<void> {
    this.#tail = this.#tail.then(() => this.#send(bytes));
    return this.#tail;
  }

  /** Says that nothing more comes from here. */
  async end(): Promise<void> {
    await this.#tail;
    await this.#connection.write(buildFrame('tunnel', 0));
  }

  destroy(error: DwcpError): void {
    this.#connection.destroy(error);
  }

  /** Lets the other agent's side and a socket of this host talk to each other until both have ended. */
  join(socket: Socket): void {
    // One listener for all of the tunnel: one frame waits at a time, and in a busy one thousands do so in turn.
    let goOn: () => void = () => undefined;
    socket.on('drain', () => goOn()).on('close', () => goOn());
    this.#hear({
      take: (bytes) =>
        socket.destroyed || socket.write(bytes) ? undefined : new Promise((resolve) => (goOn = resolve)),
      ended: () => socket.end(),
    });
    socket.on('data', (chunk: Buffer) => {
      socket.pause();
      this.send(chunk)
        .then(() => socket.resume())
        .catch((error: unknown) => this.destroy(toDwcpError(error, 'INTERNAL')));
    });
    socket.on('end', () => void this.end().catch((error: unknown) => this.destroy(toDwcpError(error, 'INTERNAL'))));
    socket.on('error', (error) => this.destroy(toDwcpError(error, 'QEMU_UNREACHABLE')));
    socket.on(
      'close',
      () =>
        this.#connection.closed ||
        setTimeout(
          () => this.destroy(new DwcpError('SESSION_LOST', 'The socket of this tunnel has closed')),
          LINGER_MS,
        ).unref(),
    );
    this.#connection.socket.once('close', () => socket.destroy());
  }

  /** What the other side says is of no interest. */
  ignore(): void {
    this.#hear({ take: () => undefined, ended: () => undefined });
  }

  #hear(taker: Taker): void {
    this.#knownTaker = taker;
    this.#setTaker(taker);
  }

  #listen(): void {
    this.#connection.use(
      FRAMES,
      ({ frame: { payload, bytes } }) => {
        this.#receivedBytes += bytes.length;
        const give = (taker: Taker): Promise<void> | undefined => {
          if (payload.length > 0) return taker.take(payload);
          taker.ended();
          return undefined;
        };
        const waiting = this.#knownTaker ? give(this.#knownTaker) : this.#taker.then(give);
        if (!waiting) return;
        this.#connection.hold();
        waiting.then(() => this.#listen()).catch((error: unknown) => this.destroy(toDwcpError(error, 'INTERNAL')));
      },
      this.#ended,
    );
  }

  async #send(bytes: Buffer): Promise<void> {
    for (let at = 0; at < bytes.length; at += PIECE_BYTES) {
      const frame = buildFrame('tunnel', 0, undefined, bytes.subarray(at, at + PIECE_BYTES));
      await this.#bucket?.take(frame.length);
      await this.#connection.write(frame);
      this.#sentBytes += frame.length;
    }
  }
}

/** A socket of this host whose every connection goes through a tunnel of its own. @param dial opens the connection to the other agent */
export async function listenForTunnels(
  path: string,
  dial: () => Promise<Tunnel>,
  failed: (error: DwcpError) => void,
): Promise<Server> {
  rmSync(path, { force: true });
  const server = createServer((socket) => {
    socket.pause();
    dial().then(
      (tunnel) => {
        tunnel.join(socket);
        socket.resume();
      },
      (error: unknown) => {
        socket.destroy();
        failed(toDwcpError(error, 'PEER_UNREACHABLE'));
      },
    );
  });
  await new Promise<void>((resolve, reject) => server.once('error', reject).listen(path, resolve));
  return server;
}
