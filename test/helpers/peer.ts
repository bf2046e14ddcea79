/**
 * A peer that holds a grant and a key, and says what it likes: no source of ours, only the wire. For claims about
 * what a destination refuses.
 */
import type { Role } from '../../src/transport/hello';
import { PeerPool } from '../../src/transport/peer-pool';
import { SendingSession } from '../../src/transport/sending-session';
import type { TestHost } from './hosts';
import { identityOf } from './identities';

export interface Peer {
  /** @throws the refusal */
  ask(method: string, body?: Record<string, unknown>, payload?: Buffer): Promise<Readonly<Record<string, unknown>>>;
  close(): void;
}

interface Said {
  readonly sourceHost?: string;
  /** Whose key it has; without it that of sourceHost. */
  readonly proven?: string;
  /** Whose grant it shows; without it sourceHost's. */
  readonly holder?: string;
  readonly epoch?: number;
  readonly role?: Role & ('control' | 'settle');
}

const open = new Set<Peer>();
let epochs = 0;

/** Opens a session by a grant for it. @throws the refusal of its hello */
export async function connectPeer(host: TestHost, sessionId: string, said: Said = {}): Promise<Peer> {
  const sourceHost = said.sourceHost ?? 'a';
  const { grant, ...place } = host.destinationFor(sessionId, said.holder ?? sourceHost);
  const pool = new PeerPool(60_000, await identityOf(said.proven ?? sourceHost));
  const hello = { sessionId, epoch: said.epoch ?? (epochs += 1), sourceHost, grant };
  const session = await SendingSession.open(pool, [place], hello, said.role ?? 'control');
  const peer: Peer = {
    ask: async (method, body = {}, payload) => (await session.control.request(method, body, payload)).body,
    close: () => {
      open.delete(peer);
      session.close();
      pool.close();
    },
  };
  open.add(peer);
  return peer;
}

afterEach(() => {
  for (const peer of [...open]) peer.close();
});
