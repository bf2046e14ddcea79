/**
 * Connections to other agents: dials them, and keeps those that a session has given back or that `dwcp connect` has
 * established ahead, so that the next session starts without handshakes. Bounded per peer, and every idle connection
 * has an end.
 */
import { DwcpError, toDwcpError } from '../model/errors';
import type { Connection } from './connection';
import { dial, endUntrusted, greet, type PeerAddress, pathName } from './endpoint';
import { buildFrame, type FrameType } from './frame';
import { type Hello, RELEASE, SESSION_PROTOCOL } from './hello';
import type { PeerSecurity } from './peer-security';

/** Handshakes under way at a time: more of them trip firewalls and listen queues. */
export const HANDSHAKES_AT_ONCE = 8;
const MAX_IDLE_PER_PEER = 257;
/** An idle connection answers at once, or its path has been out and the others are as dead. */
const IDLE_PATIENCE_MS = 3_000;
const NOTHING: ReadonlySet<FrameType> = new Set();

interface Idle {
  readonly connection: Connection;
  readonly timer: NodeJS.Timeout;
}

export class PeerPool {
  readonly #security: PeerSecurity | undefined;
  readonly #idleTtlMs: number;
  readonly #idle = new Map<string, Idle[]>();
  /** All that were dialled and have not ended. */
  readonly #open = new Set<Connection>();
  readonly #unwatch: (() => void) | undefined;

  constructor(idleTtlMs: number, security?: PeerSecurity) {
    this.#idleTtlMs = idleTtlMs;
    this.#security = security;
    this.#unwatch = security?.watch(() => endUntrusted(this.#open, security));
  }

  idleCount(peer: PeerAddress): number {
    return this.#list(peer).length;
  }

  /** A connection that has said this hello: an idle one where there is one, else a new one. @throws the refusal */
  async connect(
    peer: PeerAddress,
    hello: Omit<Hello, 'release' | 'protocol'>,
    patienceMs?: number,
  ): Promise<Connection> {
    const full = { ...hello, release: RELEASE, protocol: SESSION_PROTOCOL };
    for (let idle = this.#list(peer).pop(); idle; idle = this.#list(peer).pop()) {
      clearTimeout(idle.timer);
      if (idle.connection.closed) continue;
      try {
        await greet(idle.connection, full, IDLE_PATIENCE_MS);
        return idle.connection;
      } catch (error) {
        const { code } = toDwcpError(error, 'PEER_UNREACHABLE');
        // What the other side had sent before it heard that the session was over: the connection is of no use, the peer is.
        if (code === 'PROTOCOL_VIOLATION') continue;
        // An idle connection that has died says nothing about the peer; a refusal does.
        if (code !== 'PEER_UNREACHABLE') throw error;
        this.#forget(peer);
      }
    }
    return this.#dial(peer, full, patienceMs);
  }

  /** Establishes connections ahead until `count` are idle. @returns how many are idle then */
  async establish(peer: PeerAddress, hello: Omit<Hello, 'release' | 'protocol'>, count: number): Promise<number> {
    const missing = Math.max(0, Math.min(count, MAX_IDLE_PER_PEER) - this.idleCount(peer));
    let started = 0;
    const lane = async (): Promise<void> => {
      while (started < missing) {
        started += 1;
        this.#keep(peer, await this.#dial(peer, { ...hello, release: RELEASE, protocol: SESSION_PROTOCOL }));
      }
    };
    await Promise.all(Array.from({ length: Math.min(HANDSHAKES_AT_ONCE, missing) }, lane));
    return this.idleCount(peer);
  }

  /** Takes a connection back from a session that has nothing on the way on it any more. */
  giveBack(peer: PeerAddress, connection: Connection): void {
    if (connection.closed) return;
    if (this.idleCount(peer) >= MAX_IDLE_PER_PEER) {
      connection.destroy(new DwcpError('PEER_UNREACHABLE', 'The pool of this peer is full'));
      return;
    }
    void connection.write(buildFrame('detach', 0));
    this.#keep(peer, connection);
  }

  close(): void {
    this.#unwatch?.();
    for (const list of this.#idle.values()) destroyAll(list, 'The agent stops');
    this.#idle.clear();
  }

  async #dial(peer: PeerAddress, hello: Hello, patienceMs?: number): Promise<Connection> {
    const connection = await dial(peer, hello, this.#security, patienceMs);
    this.#open.add(connection);
    connection.socket.once('close', () => this.#open.delete(connection));
    return connection;
  }

  #forget(peer: PeerAddress): void {
    destroyAll(this.#list(peer), 'The path of this connection has been out');
  }

  #list(peer: PeerAddress): Idle[] {
    const key = `${peer.hostId} ${pathName(peer)}`;
    const list = this.#idle.get(key) ?? [];
    this.#idle.set(key, list);
    return list;
  }

  #keep(peer: PeerAddress, connection: Connection): void {
    const list = this.#list(peer);
    const forget = (): void => {
      const index = list.findIndex((idle) => idle.connection === connection);
      if (index >= 0) clearTimeout(list.splice(index, 1)[0]?.timer);
    };
    const timer = setTimeout(() => {
      forget();
      connection.destroy(new DwcpError('PEER_UNREACHABLE', 'The connection was idle for too long'));
    }, this.#idleTtlMs);
    timer.unref();
    connection.use(NOTHING, () => undefined, forget);
    list.push({ connection, timer });
  }
}

function destroyAll(list: Idle[], why: string): void {
  for (const { connection, timer } of list.splice(0)) {
    clearTimeout(timer);
    connection.destroy(new DwcpError('PEER_UNREACHABLE', why));
  }
}
