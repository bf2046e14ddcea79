/**
 * A peer that holds a grant and says what it likes: no source of ours, only the wire. For claims about what a destination refuses.
 */
import type { Role } from '../../src/transport/hello';
import { PeerPool } from '../../src/transport/peer-pool';
import { SendingSession } from '../../src/transport/sending-session';
import type { TestHost } from './hosts';

export interface Peer {
  /** @throws the refusal */
  ask(method: string, body?: Record<string, unknown>, payload?: Buffer): Promise<Readonly<Record<string, unknown>>>;
  close(): void;
}

interface Said {
  readonly sourceHost?: string;
  readonly epoch?: number;
  readonly role?: Role & ('control' | 'settle');
}

const open = new Set<Peer>();
let epochs = 0;

/** Opens a session by a grant for it. @throws the refusal of its hello */
export async function connectPeer(host: TestHost, sessionId: string, said: Said = {}): Promise<Peer> {
  const { address, port, grant } = host.destinationFor(sessionId);
  const pool = new PeerPool(60_000);
  const hello = { sessionId, epoch: said.epoch ?? (epochs += 1), sourceHost: said.sourceHost ?? 'a', grant };
  const session = await SendingSession.open(pool, [{ address, port }], hello, said.role ?? 'control');
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
