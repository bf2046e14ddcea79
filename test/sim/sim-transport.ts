/**
 * src/transport's sessions over the simulated link: the same requests, answers and events between the same classes, without
 * sockets, streams and pacing. A request whose session ends is rejected here while it may still be carried out there.
 */
import { DwcpError, fromReport, toDwcpError } from '../../src/model/errors';
import type { Message } from '../../src/transport/control-channel';
import type { Admitted, PeerAddress } from '../../src/transport/endpoint';
import type { Frame } from '../../src/transport/frame';
import { type Hello, RELEASE, SESSION_PROTOCOL, type SessionHello } from '../../src/transport/hello';
import type { Module } from './fs-modules';
import type { Life } from './life';
import type { LinkEnd, Network } from './sim-link';
import { SimReceivingSession } from './sim-receiving-session';
import type { Wire } from './sim-wire';

function lost(why: string): DwcpError {
  return new DwcpError('SESSION_LOST', `The control connection ended: ${why}`);
}

interface Pending {
  readonly resolve: (message: Message) => void;
  readonly reject: (error: DwcpError) => void;
}

/** What a sender hears of its batches. */
export interface BatchListener {
  verified(id: number, refused: readonly number[]): void;
  failed(error: DwcpError): void;
}

export class SimSendingSession {
  readonly hello: SessionHello;
  readonly #end: LinkEnd;
  readonly #network: Network;
  readonly #life: Life;
  readonly #pending = new Map<number, Pending>();
  #nextId = 1;
  #endedWith: DwcpError | undefined;
  listener: BatchListener | undefined;
  linkBytes = 1_000;
  readonly transferring = false;
  readonly congestionControl = 'cubic';
  readonly arrivedBytes = 0;

  static open(
    network: Network,
    life: Life,
    [peer]: readonly [PeerAddress, ...PeerAddress[]],
    hello: SessionHello,
    role: 'control' | 'settle' = 'control',
  ): Promise<SimSendingSession> {
    const full: Hello = { ...hello, role, stream: 0, release: RELEASE, protocol: SESSION_PROTOCOL };
    const place = `${peer.address}:${peer.port}`;
    const unreachable = (why: string): DwcpError =>
      new DwcpError('PEER_UNREACHABLE', `${place}: ${why}`, { side: 'destination' });
    return new Promise((resolve, reject) => {
      network.dial(life, place, { type: 'hello', hello: full } satisfies Wire, {
        refused: () => reject(unreachable('connection refused')),
        nothing: () => reject(unreachable('no connection within 10 s')),
        opened: (end) => {
          end.onClosed = (why) => reject(unreachable(why));
          end.onMessage = (message) => {
            const first = message as Wire;
            if (first.type === 'welcome') resolve(new SimSendingSession(hello, end, network, life));
            else if (first.type === 'refused') reject(fromReport({ side: 'destination', ...first.error }));
          };
        },
      });
    });
  }

  private constructor(hello: SessionHello, end: LinkEnd, network: Network, life: Life) {
    this.hello = hello;
    this.#end = end;
    this.#network = network;
    this.#life = life;
    end.onMessage = (message) => this.#receive(message as Wire);
    end.onClosed = (why) => this.#ends(lost(why));
  }

  get ended(): boolean {
    return this.#endedWith !== undefined;
  }

  get rttMs(): number {
    return this.#network.roundTripMs;
  }

  readonly control = {
    ping: (): void => undefined,
    rttMs: 10,
    request: (method: string, body: Record<string, unknown>, payload: Buffer = Buffer.alloc(0)): Promise<Message> => {
      if (this.#endedWith) return Promise.reject(this.#endedWith);
      const id = this.#nextId++;
      return new Promise((resolve, reject) => {
        this.#pending.set(id, { resolve, reject });
        this.#end.send({
          type: 'request',
          id,
          method,
          body: JSON.stringify(body),
          payload: Buffer.from(payload),
        } satisfies Wire);
      });
    },
  };

  get stats(): Record<string, unknown> {
    return {
      openStreams: 4,
      activeStreams: 4,
      rttMs: this.rttMs,
      goodputBytesPerSecond: 4e6,
      idleShare: 0,
      throttled: false,
      paths: [],
    };
  }

  setBucket(): void {
    return;
  }

  setBatchBytes(): void {
    return;
  }

  setTargets(): void {
    return;
  }

  /** One round trip. */
  async establish(streams: number): Promise<number> {
    await new Promise<void>((resolve) => void this.#life.post('streams are established', resolve, this.rttMs));
    if (this.#endedWith) throw this.#endedWith;
    return streams;
  }

  probe(bytes: number): Promise<number> {
    return Promise.resolve(4 * bytes);
  }

  sendBatch(frame: Frame): void {
    this.linkBytes += frame.metaBytes + frame.payloadBytes;
    this.#end.sendLoose({ type: 'batch', frame } satisfies Wire);
  }

  close(): void {
    if (this.#endedWith) return;
    this.#endedWith = new DwcpError('SESSION_LOST', 'The session was closed on this side');
    this.#end.send({ type: 'detach' } satisfies Wire);
    this.#end.close();
    this.#drop(this.#endedWith);
  }

  destroy(error: DwcpError): void {
    this.#end.close();
    this.#ends(error);
  }

  #receive(wire: Wire): void {
    switch (wire.type) {
      case 'answer':
        this.#take(wire.id)?.resolve({ body: JSON.parse(wire.body) as Message['body'], payload: wire.payload });
        return;
      case 'failure':
        this.#take(wire.id)?.reject(fromReport({ side: 'destination', ...wire.error }));
        return;
      case 'counters':
        this.listener?.verified(wire.verified, wire.refused);
        return;
      case 'failed':
        this.listener?.failed(fromReport({ side: 'destination', ...wire.error }));
        return;
      case 'refused':
        this.#end.close();
        this.#ends(fromReport({ side: 'destination', ...wire.error }));
    }
  }

  #take(id: number): Pending | undefined {
    const pending = this.#pending.get(id);
    this.#pending.delete(id);
    return pending;
  }

  #ends(error: DwcpError): void {
    if (this.#endedWith) return;
    this.#endedWith = error.code === 'PEER_UNREACHABLE' ? lost(error.message) : error;
    this.#drop(this.#endedWith);
  }

  #drop(error: DwcpError): void {
    for (const { reject } of this.#pending.values()) reject(error);
    this.#pending.clear();
    this.listener?.failed(error);
  }
}

/** The modules of src/transport that are sockets, for one life of an agent. */
export function transportModules(network: Network, life: Life): Readonly<Record<string, Module>> {
  class DataPlaneListener {
    readonly #admit: (hello: Hello, connection: LinkEnd) => Admitted;
    #place = '';

    constructor(admit: (hello: Hello, connection: LinkEnd) => Admitted) {
      this.#admit = admit;
    }

    listen(address: string, port: number): Promise<number> {
      this.#place = `${address}:${port}`;
      network.listen(this.#place, { life, accept: (end, first) => this.#accept(end, first as Wire) });
      return Promise.resolve(port);
    }

    awaitHello(connection: LinkEnd): void {
      connection.close();
    }

    dropConnections(): void {
      return;
    }

    close(): Promise<void> {
      network.unlisten(this.#place, life);
      return Promise.resolve();
    }

    #accept(end: LinkEnd, first: Wire): void {
      if (first.type !== 'hello') return;
      try {
        const { attach } = this.#admit(first.hello, end);
        end.send({ type: 'welcome' } satisfies Wire);
        attach();
      } catch (error) {
        end.send({ type: 'refused', error: toDwcpError(error, 'PROTOCOL_VIOLATION').report() } satisfies Wire);
        end.close();
      }
    }
  }

  class PeerPool {
    idleCount(): number {
      return 0;
    }

    establish(_peer: unknown, _hello: unknown, count: number): Promise<number> {
      return Promise.resolve(count);
    }

    giveBack(): void {
      return;
    }

    close(): void {
      return;
    }
  }

  const open = (
    _pool: unknown,
    peers: readonly [PeerAddress, ...PeerAddress[]],
    hello: SessionHello,
    role?: 'control' | 'settle',
  ): Promise<SimSendingSession> => SimSendingSession.open(network, life, peers, hello, role);
  return {
    'src/transport/endpoint': {
      DataPlaneListener,
      pathName: ({ address, port }: PeerAddress) => `${address}:${port}`,
      dial: notHere('dial'),
      greet: notHere('greet'),
    },
    'src/transport/peer-pool': { PeerPool, HANDSHAKES_AT_ONCE: 8 },
    'src/transport/sending-session': { SendingSession: { open } },
    'src/transport/receiving-session': { ReceivingSession: SimReceivingSession },
    'src/transport/tunnel': { Tunnel: notHere('Tunnel') },
    'src/transport/connection': {},
    'src/transport/direct-socket': {},
  };
}

function notHere(name: string): () => never {
  return () => {
    throw new Error(`sim: the link has no ${name}`);
  };
}
