/**
 * Both ends of opening a connection: the dialler with its hello, and the listener that refuses whoever does not show a
 * grant before anything else is read. TCP, or TLS 1.3 with both sides' certificates where files are given.
 */
import { connect, createServer, type Server, type Socket } from 'node:net';
import { connect as tlsConnect, createServer as tlsCreateServer } from 'node:tls';
import { DwcpError, toDwcpError } from '../model/errors';
import { Connection, type SocketOrMaker } from './connection';
import { directSocket } from './direct-socket';
import type { FrameType } from './frame';
import { type Hello, helloSchema, jsonFrame, readAnswer, readMeta, refusedFrame, type Welcome } from './hello';
import { type Unproven, UnprovenConnections } from './unproven';

export interface PeerAddress {
  readonly address: string;
  readonly port: number;
  /** Of this host: where connections go out from. */
  readonly localAddress?: string | undefined;
}

/** Names a path: the destination's address as it is dialled, and from where, where that is chosen. */
export function pathName({ address, port, localAddress }: PeerAddress): string {
  return `${localAddress === undefined ? '' : `${localAddress} to `}${address}:${port}`;
}

/** PEM contents. With them the data plane is TLS 1.3 and both sides prove who they are. */
export interface TlsFiles {
  readonly cert: Buffer;
  readonly key: Buffer;
  readonly ca: Buffer;
}

const DIAL_TIMEOUT_MS = 10_000;
const DIAL_AGAIN_MS = 2_000;
const HELLO_TIMEOUT_MS = 5_000;
const HANDSHAKE_TIMEOUT_MS = 5_000;
const ONLY_HELLO: ReadonlySet<FrameType> = new Set(['hello']);
const ONLY_ANSWER: ReadonlySet<FrameType> = new Set(['welcome', 'refused']);

/**
 * Opens a socket. While there is no answer a further attempt goes out every two seconds: the kernel's own come ever more
 * rarely, and a path that is back would be noticed late.
 */
function openSocket(peer: PeerAddress, tls: TlsFiles | undefined, patienceMs: number): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const target = {
      host: peer.address,
      port: peer.port,
      highWaterMark: 256 * 1024,
      ...(peer.localAddress !== undefined && { localAddress: peer.localAddress }),
    };
    const attempts: Socket[] = [];
    const settle = (act: () => void, kept?: Socket): void => {
      clearInterval(again);
      clearTimeout(timer);
      for (const socket of attempts.splice(0)) {
        socket.off('error', fail);
        if (socket !== kept) socket.on('error', () => undefined).destroy();
      }
      act();
    };
    const fail = (error: Error): void =>
      settle(() =>
        reject(
          new DwcpError('PEER_UNREACHABLE', `${peer.address}:${peer.port}: ${error.message}`, {
            side: 'destination',
            cause: error,
          }),
        ),
      );
    const begin = (): void => {
      const socket = tls
        ? tlsConnect({ ...target, ...tls, minVersion: 'TLSv1.3', checkServerIdentity: () => undefined })
        : connect(target);
      attempts.push(socket);
      socket.once('error', fail);
      socket.once(tls ? 'secureConnect' : 'connect', () => settle(() => resolve(socket), socket));
    };
    const again = setInterval(begin, DIAL_AGAIN_MS);
    const timer = setTimeout(() => fail(new Error(`no connection within ${patienceMs / 1000} s`)), patienceMs);
    begin();
  });
}

/** Sends a hello on an open connection and waits for the answer. @throws the refusal; PEER_UNREACHABLE */
export function greet(connection: Connection, hello: Hello, patienceMs = DIAL_TIMEOUT_MS): Promise<Welcome> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(
      () =>
        connection.destroy(new DwcpError('PEER_UNREACHABLE', `No answer to the hello within ${patienceMs / 1000} s`)),
      patienceMs,
    );
    const settle = (act: () => void): void => {
      clearTimeout(timer);
      act();
    };
    connection.use(
      ONLY_ANSWER,
      ({ frame }) => {
        try {
          const welcome = readAnswer(frame);
          connection.hold();
          settle(() => resolve(welcome));
        } catch (error) {
          const refusal = toDwcpError(error, 'PROTOCOL_VIOLATION');
          settle(() => reject(refusal));
          connection.destroy(refusal);
        }
      },
      (error) => settle(() => reject(error)),
    );
    void connection.write(jsonFrame('hello', hello));
  });
}

/** @param patienceMs for the connection, and again for the answer */
export async function dial(
  peer: PeerAddress,
  hello: Hello,
  tls?: TlsFiles,
  patienceMs = DIAL_TIMEOUT_MS,
): Promise<{ connection: Connection; welcome: Welcome }> {
  const connection = new Connection(await openSocket(peer, tls, patienceMs), ONLY_ANSWER);
  return { connection, welcome: await greet(connection, hello, patienceMs) };
}

/** What follows an accepted hello: the welcome, and what takes the connection over (with use()) once it is written. */
export interface Admitted {
  readonly welcome: Welcome;
  readonly attach: () => void;
}

/** Judges a hello: throws the refusal, or lets it in. */
export type Admission = (hello: Hello, connection: Connection) => Admitted;

interface Counted {
  readonly unproven: Unproven;
  readonly proven: () => void;
}

/** Of the other end: the same for a socket and for the TLS that is spoken over it. */
function nameOf({ remoteAddress, remotePort }: Socket): string {
  return `${remoteAddress} ${remotePort}`;
}

export class DataPlaneListener {
  readonly #server: Server;
  readonly #admit: Admission;
  readonly #open = new Set<Connection>();
  readonly #unproven = new UnprovenConnections();
  /** What ends the counting of a connection that has come in. */
  readonly #proven = new WeakMap<Connection, () => void>();

  constructor(admit: Admission, tls?: TlsFiles) {
    this.#admit = admit;
    const options = { highWaterMark: 256 * 1024, noDelay: true };
    this.#server = tls ? this.#tlsServer(options, tls) : this.#plainServer(options);
    this.#server.on('tlsClientError', (_error: Error, socket: Socket) => socket.destroy());
  }

  /** @returns the port listened on. @throws CONFIG_INVALID where the address cannot be taken */
  listen(address: string, port: number): Promise<number> {
    return new Promise((resolve, reject) => {
      this.#server.once('error', (error) => {
        reject(
          new DwcpError('CONFIG_INVALID', `Cannot listen on ${address}:${port}: ${error.message}`, {
            cause: error,
            hint: 'Another process has the port, or the address is not of this host: choose others with --listen-address and --port',
          }),
        );
      });
      this.#server.listen({ host: address, port, backlog: 512 }, () => {
        const bound = this.#server.address();
        resolve(typeof bound === 'object' && bound !== null ? bound.port : port);
      });
    });
  }

  /** Connections that have not shown a grant yet. */
  get unprovenCount(): number {
    return this.#unproven.size;
  }

  /** Stops listening and ends every connection. */
  async close(): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    this.dropConnections();
    await closed;
  }

  /** Ends connections that have come in, as a cut of the link would: all of them, or of so many the last. */
  dropConnections(oneOf = 1): void {
    for (const [index, connection] of [...this.#open].entries())
      if (index % oneOf === oneOf - 1)
        connection.destroy(new DwcpError('PEER_UNREACHABLE', 'This agent closes its connections'));
  }

  /** Waits for the next hello on a connection: a fresh one, or one that a session has given back. */
  awaitHello(connection: Connection, timeoutMs: number): void {
    const timer = setTimeout(
      () => connection.destroy(new DwcpError('PEER_UNREACHABLE', 'No hello came in time')),
      timeoutMs,
    );
    connection.use(
      ONLY_HELLO,
      ({ frame }) => {
        clearTimeout(timer);
        this.#judge(connection, () => this.#admit(readMeta(helloSchema, frame), connection));
      },
      () => clearTimeout(timer),
    );
  }

  #plainServer(options: object): Server {
    return createServer({ ...options, pauseOnConnect: true }, (socket) => {
      const counted = this.#count(socket);
      if (counted) this.#accept(socket, counted, directSocket);
    });
  }

  /** Counted before the handshake begins: it costs more than anything that follows. */
  #tlsServer(options: object, tls: TlsFiles): Server {
    const handshaking = new Map<string, Counted>();
    const proofs = { minVersion: 'TLSv1.3', requestCert: true, rejectUnauthorized: true } as const;
    const server = tlsCreateServer(
      { ...options, ...tls, ...proofs, handshakeTimeout: HANDSHAKE_TIMEOUT_MS },
      (socket) => {
        const counted = handshaking.get(nameOf(socket));
        if (counted) this.#accept(socket, counted);
        else socket.destroy();
      },
    );
    // In front of the server's own: it takes the socket over.
    return server.prependListener('connection', (socket: Socket) => {
      const name = nameOf(socket);
      const counted = this.#count(socket);
      if (!counted) return;
      handshaking.set(name, counted);
      socket.once('close', () => {
        if (handshaking.get(name) === counted) handshaking.delete(name);
        counted.proven();
      });
    });
  }

  /** @returns undefined where it has ended already */
  #count(socket: Socket): Counted | undefined {
    const { remoteAddress } = socket;
    if (remoteAddress === undefined) {
      socket.destroy();
      return undefined;
    }
    const unproven = this.#unproven.add(remoteAddress, () => socket.destroy());
    return { unproven, proven: () => this.#unproven.remove(remoteAddress, unproven) };
  }

  #accept(
    socket: Socket,
    { unproven, proven }: Counted,
    opened: (accepted: Socket) => SocketOrMaker = () => socket,
  ): void {
    let connection: Connection;
    try {
      connection = new Connection(opened(socket), ONLY_HELLO);
    } catch {
      // It ended before it could be taken over.
      socket.destroy();
      proven();
      return;
    }
    this.#open.add(connection);
    this.#proven.set(connection, proven);
    unproven.end = () => connection.destroy(new DwcpError('PEER_UNREACHABLE', 'Too many connections show no grant'));
    connection.socket.once('close', () => {
      this.#open.delete(connection);
      proven();
    });
    this.awaitHello(connection, HELLO_TIMEOUT_MS);
  }

  #judge(connection: Connection, admit: () => Admitted): void {
    try {
      const { welcome, attach } = admit();
      this.#proven.get(connection)?.();
      void connection.write(jsonFrame('welcome', welcome));
      attach();
    } catch (error) {
      const refusal = toDwcpError(error, 'PROTOCOL_VIOLATION');
      connection.endWith(refusedFrame(refusal), refusal);
    }
  }
}
