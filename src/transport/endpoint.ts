/**
 * Both ends of opening a connection: the dialler with its hello, and the listener that refuses whoever does not show a
 * grant before anything else is read. TLS 1.3, each side's key held against the host it calls itself before a hello is written or
 * read; plain TCP where nobody is asked for (insecureDataPlane, on loopback).
 */
import { connect, createServer, type Server, type Socket } from 'node:net';
import { TLSSocket, type TLSSocketOptions, connect as tlsConnect } from 'node:tls';
import { DwcpError, toDwcpError } from '../model/errors';
import { Connection } from './connection';
import { directSocket, directTlsSocket } from './direct-socket';
import type { FrameType } from './frame';
import { type Hello, helloSchema, jsonFrame, readAnswer, readMeta, refusedFrame, type Welcome } from './hello';
import { assertDialled, contextOf, type PeerSecurity, type Proven, provenPeer, TLS_RULES } from './peer-security';
import { type Unproven, UnprovenConnections } from './unproven';

export interface PeerAddress {
  /** Who has to answer there. */
  readonly hostId: string;
  readonly address: string;
  readonly port: number;
  /** Of this host: where connections go out from. */
  readonly localAddress?: string | undefined;
}

/** Names a path: the destination's address as it is dialled, and from where, where that is chosen. */
export function pathName({ address, port, localAddress }: Omit<PeerAddress, 'hostId'>): string {
  return `${localAddress === undefined ? '' : `${localAddress} to `}${address}:${port}`;
}

const DIAL_TIMEOUT_MS = 10_000;
const DIAL_AGAIN_MS = 2_000;
const HELLO_TIMEOUT_MS = 5_000;
const HANDSHAKE_TIMEOUT_MS = 5_000;
/** The time is documented for servers, and missing in the types of a socket. */
const SERVING: TLSSocketOptions & { readonly handshakeTimeout: number } = {
  requestCert: true,
  rejectUnauthorized: false,
  handshakeTimeout: HANDSHAKE_TIMEOUT_MS,
};
const ONLY_HELLO: ReadonlySet<FrameType> = new Set(['hello']);
const ONLY_ANSWER: ReadonlySet<FrameType> = new Set(['welcome', 'refused']);

interface Opened {
  readonly socket: Socket;
  /** Undefined on a plain one. */
  readonly proven: Proven | undefined;
}

/**
 * Opens a socket, and makes sure of who is there. While there is no answer a further attempt goes out every two seconds: the
 * kernel's own come ever more rarely, and a path that is back would be noticed late.
 */
function openSocket(peer: PeerAddress, security: PeerSecurity | undefined, patienceMs: number): Promise<Opened> {
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
          error instanceof DwcpError
            ? error
            : new DwcpError('PEER_UNREACHABLE', `${peer.address}:${peer.port}: ${error.message}`, {
                side: 'destination',
                cause: error,
              }),
        ),
      );
    const begin = (): void => {
      const socket = security
        ? tlsConnect({
            ...target,
            ...TLS_RULES,
            secureContext: contextOf(security.credentials()),
            checkServerIdentity: () => undefined,
          })
        : connect(target);
      attempts.push(socket);
      socket.once('error', fail);
      socket.once(security ? 'secureConnect' : 'connect', () => {
        try {
          const proven = security && socket instanceof TLSSocket ? provenPeer(security, socket) : undefined;
          if (proven) assertDialled(peer.hostId, proven.hostId, `${peer.address}:${peer.port}`);
          settle(() => resolve({ socket, proven }), socket);
        } catch (error) {
          fail(toDwcpError(error, 'PEER_UNTRUSTED', { side: 'destination' }));
        }
      });
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
  security?: PeerSecurity,
  patienceMs = DIAL_TIMEOUT_MS,
): Promise<Connection> {
  const { socket, proven } = await openSocket(peer, security, patienceMs);
  const connection = new Connection(socket, ONLY_ANSWER);
  connection.peer = proven;
  await greet(connection, hello, patienceMs);
  return connection;
}

/** What follows an accepted hello: the welcome, and what takes the connection over (with use()) once it is written. */
export interface Admitted {
  readonly welcome: Welcome;
  readonly attach: () => void;
}

/** @param address of whoever is sent away */
export type Refused = (error: DwcpError, address: string) => void;

/** Judges a hello: throws the refusal, or lets it in. */
export type Admission = (hello: Hello, connection: Connection) => Admitted;

interface Counted {
  readonly unproven: Unproven;
  readonly proven: () => void;
}

export class DataPlaneListener {
  readonly #server: Server;
  readonly #admit: Admission;
  readonly #security: PeerSecurity | undefined;
  readonly #refused: Refused | undefined;
  readonly #unwatch: (() => void) | undefined;
  readonly #open = new Set<Connection>();
  readonly #unproven = new UnprovenConnections();
  /** What ends the counting of a connection that has come in. */
  readonly #proven = new WeakMap<Connection, () => void>();

  /** @param refused hears of those who were sent away before they could say anything */
  constructor(admit: Admission, security?: PeerSecurity, refused?: Refused) {
    this.#admit = admit;
    this.#security = security;
    this.#refused = refused;
    this.#unwatch = security?.watch(() => endUntrusted(this.#open, security));
    this.#server = createServer({ highWaterMark: 256 * 1024, noDelay: true, pauseOnConnect: true }, (socket) => {
      // Counted before the handshake begins: it costs more than anything that follows.
      const counted = this.#count(socket);
      if (counted) this.#accept(socket, counted);
    });
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
    this.#unwatch?.();
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

  #accept(socket: Socket, { unproven, proven }: Counted): void {
    const security = this.#security;
    let connection: Connection;
    try {
      const opened = security
        ? directTlsSocket(socket, { ...SERVING, secureContext: contextOf(security.credentials()) })
        : directSocket(socket);
      connection = new Connection(opened, ONLY_HELLO);
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
    const greet = (): void => {
      if (this.#isWhoItSays(connection)) this.awaitHello(connection, HELLO_TIMEOUT_MS);
    };
    if (security) connection.socket.once('secure', greet);
    else greet();
  }

  /** Before anything of what it says is read. */
  #isWhoItSays(connection: Connection): boolean {
    const { socket } = connection;
    if (!this.#security) return true;
    try {
      if (!(socket instanceof TLSSocket)) throw new DwcpError('PEER_UNTRUSTED', 'The connection is not TLS');
      connection.peer = provenPeer(this.#security, socket);
      return true;
    } catch (error) {
      const refusal = toDwcpError(error, 'PEER_UNTRUSTED');
      this.#refused?.(refusal, socket.remoteAddress ?? '');
      connection.endWith(refusedFrame(refusal), refusal);
      return false;
    }
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

/**
 * Ends the connections of those who are not believed any more to be who they said. As a loss: a host that has a new key, or a
 * certificate of a new authority, opens the next with that; one that was revoked is refused there, and told why.
 */
export function endUntrusted(connections: Iterable<Connection>, security: PeerSecurity): void {
  for (const connection of connections) {
    const { peer } = connection;
    if (!peer || security.stillIs(peer.shown, peer.hostId)) continue;
    const reason = new DwcpError('PEER_UNREACHABLE', `Host ${peer.hostId} is not believed any more to be who it says`);
    connection.endWith(refusedFrame(reason), reason);
  }
}
