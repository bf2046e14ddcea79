/**
 * Both sides of a session over real sockets of this machine, and a supplier that counts: what the transport's contract is
 * tried on.
 */
import type { Socket } from 'node:net';
import { DwcpError } from '../../src/model/errors';
import type { Answer } from '../../src/transport/control-channel';
import { DataPlaneListener, type PeerAddress } from '../../src/transport/endpoint';
import { HEADER_BYTES, sealFrame } from '../../src/transport/frame';
import { checkGrant, mintGrant } from '../../src/transport/grants';
import { PeerPool } from '../../src/transport/peer-pool';
import type { PeerSecurity } from '../../src/transport/peer-security';
import { ReceivingSession } from '../../src/transport/receiving-session';
import { SendingSession } from '../../src/transport/sending-session';
import type { OutgoingBatch } from '../../src/transport/sending-stream';
import { Slab } from '../../src/transport/slab';

export const KEY = Buffer.alloc(32, 7);

export interface Lab {
  readonly port: number;
  readonly pool: PeerPool;
  readonly received: Map<number, number>;
  readonly listener: DataPlaneListener;
  readonly accepted: Set<Socket>;
  /** @param further ports of this machine that lead there too: paths of their own */
  open(sessionId?: string, further?: readonly number[]): Promise<SendingSession>;
  current(): ReceivingSession | undefined;
  close(): Promise<void>;
}

/** The lab's listener, as it is dialled. */
export function at(port: number): PeerAddress {
  return { hostId: 'lab', address: '127.0.0.1', port };
}

/** Both sides of a session over real sockets of this machine; batches are counted, not decoded. */
export async function openLab(security: { readonly a?: PeerSecurity; readonly lab?: PeerSecurity } = {}): Promise<Lab> {
  const received = new Map<number, number>();
  const accepted = new Set<Socket>();
  const slab = new Slab(8 * 1024 * 1024);
  let session: ReceivingSession | undefined;
  const listener: DataPlaneListener = new DataPlaneListener((hello, connection) => {
    checkGrant(KEY, hello.grant);
    const welcome = { hostId: 'lab', release: 'test' };
    accepted.add(connection.socket);
    if (hello.role === 'idle') return { welcome, attach: () => listener.awaitHello(connection, 60_000) };
    if (hello.role === 'control') {
      return {
        welcome,
        attach: () => {
          session = new ReceivingSession(
            { id: hello.sessionId, epoch: hello.epoch, connection },
            slab,
            {
              request: (method, message): Promise<Answer> =>
                method === 'echo'
                  ? Promise.resolve({ body: { ...message.body }, payload: message.payload })
                  : Promise.reject(new DwcpError('DISK_FULL', 'no room')),
              batch: (frame) => {
                received.set(frame.sequence, (received.get(frame.sequence) ?? 0) + 1);
                return Promise.resolve([]);
              },
            },
            { giveBack: (other) => listener.awaitHello(other, 60_000), ended: () => (session = undefined) },
          );
        },
      };
    }
    return { welcome, attach: () => session?.attach(hello.stream, connection) };
  }, security.lab);
  const port = await listener.listen('127.0.0.1', 0);
  const pool = new PeerPool(60_000, security.a);
  return {
    port,
    pool,
    received,
    listener,
    accepted,
    open: (sessionId = 's1', further = []) =>
      SendingSession.open(pool, [at(port), ...further.map(at)], {
        sessionId,
        epoch: Date.now(),
        sourceHost: 'a',
        grant: mintGrant(KEY, { purpose: 'session', subject: sessionId, holder: 'a' }, 60_000),
      }),
    current: () => session,
    close: async () => {
      pool.close();
      session?.end(new DwcpError('SESSION_LOST', 'test over'));
      await listener.close();
    },
  };
}

/** Supplies `count` batches of some bytes, counts what is lost and supplies it again under a new id. */
export class CountingSupplier {
  readonly lostIds: number[] = [];
  readonly #slab = new Slab(16 * 1024 * 1024);
  readonly #outstanding = new Set<number>();
  #toSend: number;
  #next = 1;
  verifiedBatches = 0;
  heldRuns = 0;

  constructor(
    count: number,
    readonly bytes: number,
  ) {
    this.#toSend = count;
  }

  get finished(): boolean {
    return this.#toSend === 0 && this.#outstanding.size === 0;
  }

  get ended(): boolean {
    return this.finished;
  }

  get exhausted(): boolean {
    return this.#toSend === 0;
  }

  async next(): Promise<OutgoingBatch | undefined> {
    while (this.#toSend === 0 && this.#outstanding.size > 0) await new Promise((resolve) => setTimeout(resolve, 5));
    if (this.#toSend === 0) return undefined;
    const run = this.#slab.take(HEADER_BYTES + 48 + this.bytes);
    if (!run) {
      await new Promise((resolve) => setTimeout(resolve, 2));
      return this.next();
    }
    this.#toSend -= 1;
    const id = this.#next++;
    this.#outstanding.add(id);
    this.heldRuns += 1;
    const frame = run.bytes.subarray(0, HEADER_BYTES + 48 + this.bytes);
    sealFrame(frame, 'batch', id, 48, this.bytes);
    return { id, frame, run };
  }

  written(batch: OutgoingBatch): void {
    if (batch.run) this.#slab.free(batch.run);
    this.heldRuns -= 1;
  }

  lost(id: number): void {
    if (!this.#outstanding.delete(id)) return;
    this.lostIds.push(id);
    this.#toSend += 1;
  }

  refused(): void {
    throw new Error('nothing is refused here');
  }

  verified(ids: readonly number[]): void {
    for (const id of ids) if (this.#outstanding.delete(id)) this.verifiedBatches += 1;
  }
}
