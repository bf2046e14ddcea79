/**
 * A source against a destination that answers wrongly: its questions and its hand-over by the product's own code, over connections in
 * memory whose other end answers with what a destination says, made wrong, and announces what nobody asked for. Each step ends, with a code
 * where it fails.
 */
import { mkdirSync, openSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import type { DwcpError } from '../src/model/errors';
import { learnBases } from '../src/sync/source/base-pages';
import { askPageHashes, learnHeld } from '../src/sync/source/held-manifest';
import { ReferenceSources } from '../src/sync/source/reference-sources';
import { UNLIMITED } from '../src/sync/source/source-context';
import { SourceMigration } from '../src/sync/source/source-migration';
import type { Connection } from '../src/transport/connection';
import { greet } from '../src/transport/endpoint';
import { buildFrame, type Frame } from '../src/transport/frame';
import { type Hello, RELEASE, SESSION_PROTOCOL } from '../src/transport/hello';
import type { PeerPool } from '../src/transport/peer-pool';
import type { SendingSession } from '../src/transport/sending-session';
import type { SessionSupplier } from '../src/transport/session-supplier';
import { HELD, IMAGE_BYTES } from './fuzz-batches';
import { mutateBytes } from './fuzz-bytes';
import type { Draw } from './fuzz-draw';
import { mutatedFrame } from './fuzz-frames';
import { grantFor, WELCOME } from './fuzz-hello';
import { openFuzzHost } from './fuzz-host';
import { mutateJson } from './fuzz-json';
import { REQUESTS } from './fuzz-requests';
import { sealed } from './fuzz-sealed';
import { MemorySocket } from './fuzz-socket';
import { describe, Finding, type Outcome, refusal, type Target } from './fuzz-target';

const IMAGE = { imageId: 'vda', kind: 'disk' as const, sizeBytes: IMAGE_BYTES };
/** An answer that has not come by then does not come: the other side hangs up. */
const PATIENCE_MS = 40;

/** The other end of all connections of one input. */
class WrongDestination {
  readonly faults: string[] = [];
  readonly said: [string, Buffer][] = [];
  readonly #draw: Draw;
  readonly #sockets: MemorySocket[] = [];

  constructor(draw: Draw) {
    this.#draw = draw;
  }

  /** In the place of a pool of connections. */
  get peers(): PeerPool {
    const connect = async (_peer: unknown, hello: Omit<Hello, 'release' | 'protocol'>): Promise<Connection> => {
      const socket = new MemorySocket((frame) => void setImmediate(() => this.#hear(socket, frame)));
      this.#sockets.push(socket);
      const connection = socket.connection(new Set());
      await greet(connection, { ...hello, release: RELEASE, protocol: SESSION_PROTOCOL }, 1000);
      return connection;
    };
    const giveBack = (_peer: unknown, { socket }: Connection): void => void socket.destroy();
    return { connect, giveBack } as unknown as PeerPool;
  }

  hangUp(): void {
    for (const socket of this.#sockets) socket.hangUp();
  }

  #hear(socket: MemorySocket, frame: Frame): void {
    const draw = this.#draw;
    if (frame.type === 'hello')
      this.#say(socket, draw.oneIn(30) ? mutatedFrame(draw, 'welcome') : buildFrame('welcome', 0, json(WELCOME)));
    if (frame.type === 'ping')
      this.#say(socket, draw.oneIn(6) ? mutatedFrame(draw, 'pong') : buildFrame('pong', frame.sequence));
    if (frame.type !== 'request') return;
    while (draw.oneIn(6))
      this.#say(
        socket,
        mutatedFrame(draw, draw.pick(['event', 'event', 'response', 'ping', 'pong', 'refused', 'request'])),
      );
    const { method } = JSON.parse(frame.meta.toString()) as { readonly method: string };
    const example = REQUESTS[method];
    const answer = { ...(example ? draw.pick(example.answers) : {}), ok: true };
    const payload = example?.answerPayload ?? Buffer.alloc(0);
    const wrong = draw.below(4);
    this.#say(
      socket,
      sealed(
        'response',
        draw.oneIn(40) ? 77 : frame.sequence,
        wrong === 0 ? mutateJson(answer, draw) : json(answer),
        wrong === 1 ? mutateBytes(payload, draw) : payload,
      ),
    );
    setTimeout(() => socket.hangUp(), PATIENCE_MS);
  }

  #say(socket: MemorySocket, bytes: Buffer): void {
    this.said.push(['says', bytes.subarray(0, 500)]);
    try {
      if (!socket.destroyed) socket.receive(bytes);
    } catch (error) {
      this.faults.push(`thrown into the process: ${describe(error)}`);
    }
  }
}

function json(value: unknown): Buffer {
  return Buffer.from(JSON.stringify(value));
}

/** Has nothing to send, and hears what is said of batches that never were. */
const NOTHING_TO_SEND: SessionSupplier = {
  next: () => new Promise((resolve) => setTimeout(() => resolve(undefined), 1)),
  written: () => undefined,
  lost: () => undefined,
  refused: () => undefined,
  verified: () => undefined,
  finished: false,
  exhausted: true,
  ended: false,
};

type Step = (migration: SourceMigration, session: SendingSession) => Promise<unknown>;

export async function sourceTarget(): Promise<Target> {
  const host = await openFuzzHost();
  const { registry, source } = host.parts;
  const path = registry.imagePath(undefined, 'vm', 'vda');
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, Buffer.concat(HELD));
  const file = { fd: openSync(path, 'r'), sizeBytes: IMAGE_BYTES };
  const pageKey = Buffer.alloc(32, 1);
  const steps: readonly Step[] = [
    (migration, session) =>
      learnHeld(migration, session, IMAGE, { useBaseline: true, baseline: undefined, feed: { file } }),
    (migration, session) => learnHeld(migration, session, IMAGE, { useBaseline: false, baseline: undefined }),
    (_migration, session) => askPageHashes(session, 0, [0, 1], pageKey),
    (migration, session) => learnBases(migration, session, [path], pageKey),
    (_migration, session) => new ReferenceSources([IMAGE], []).declare(session, () => 0),
    (migration) => migration.takeOver('vm', { vda: 'ab'.repeat(32) }),
    (_migration, session) => session.transfer(NOTHING_TO_SEND, AbortSignal.timeout(PATIENCE_MS)),
  ];
  const play = async (draw: Draw, index: number, told: (what: unknown) => void): Promise<Outcome> => {
    const destination = new WrongDestination(draw);
    told(destination.said);
    const explain = (_id: string, line: string): void => {
      if (/is not a function|of undefined|of null|Invalid array length/.test(line)) destination.faults.push(line);
    };
    const context = { ...source, peers: destination.peers, explain };
    const at = { hostId: 'b', address: '127.0.0.1', port: 1, grant: grantFor(`m${index}`) };
    const migration = new SourceMigration(`m${index}`, at, UNLIMITED, context);
    let outcome: Outcome = 'accepted';
    try {
      for (let left = 1 + draw.below(4); left > 0; left -= 1)
        await draw.pick(steps)(migration, await migration.session());
    } catch (error) {
      outcome = isTimeout(error) ? 'CANCELLED' : refusal(error, true);
    }
    migration.close();
    destination.hangUp();
    for (const fault of destination.faults) throw new Finding(fault);
    return outcome;
  };
  return { name: 'source', share: 2, play, close: () => host.close() };
}

/** The signal's own reason, as the transfer says it. */
function isTimeout(error: unknown): boolean {
  return (error as DwcpError).code === 'CANCELLED' || (error instanceof Error && error.name === 'TimeoutError');
}
