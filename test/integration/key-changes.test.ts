/**
 * A month of key changes, played within one running transfer: certificates and keys of both hosts replaced, the authority replaced, a
 * third host revoked, the destination itself revoked and let in again. The transfer goes on from the blocks that are there, and what
 * arrives is byte for byte the same.
 */
import { copyFileSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { ProcessOptions } from '../../src/model/options';
import type { SentImage } from '../../src/sync/source/image-sender';
import type { SendingSession } from '../../src/transport/sending-session';
import { sha256, temporaryFolder } from '../helpers/data';
import { diskLab, type Lab, onB } from '../helpers/disk-lab';
import type { TestHost } from '../helpers/hosts';
import { Authority, sharedTrust } from '../helpers/identities';
import { handOver, type Move, prepareMove, sendImage } from '../helpers/moves';
import { connectPeer } from '../helpers/peer';
import { until } from '../helpers/waiting';

jest.setTimeout(120_000);

/** So slow that it ends only when it is let go: what happens meanwhile takes the time that it takes. */
const SLOW_BYTES_PER_SECOND = 150_000;
/** Files are looked at every two seconds; a busy machine is late. */
const PATIENCE_MS = 20_000;

interface Running {
  readonly here: Lab;
  readonly move: Move;
  /** Not awaited before its end. */
  readonly sent: Promise<SentImage | Error>;
  readonly session: () => SendingSession | undefined;
  /** Waits until it sends: on another session than that, where one is given. */
  goesOn(besides?: SendingSession): Promise<SendingSession>;
  /** Lets it run to its end, and looks at what has come. */
  arrives(sending?: Promise<SentImage | Error>): Promise<SentImage>;
}

async function transferring(here: Lab): Promise<Running> {
  const content = sha256(here.disk);
  const move = await prepareMove('m1', 'vm', here.a, here.b);
  const send = (): Promise<SentImage | Error> =>
    sendImage(move, 'vda', { bandwidthLimit: SLOW_BYTES_PER_SECOND }).catch((error: unknown) => error as Error);
  const sent = send();
  const migration = () => here.a.sources.find('m1');
  const session = (): SendingSession | undefined => migration()?.openSession;
  const running: Running = {
    here,
    move,
    sent,
    session,
    goesOn: async (besides) => {
      await until(PATIENCE_MS, 'a session that sends', () => {
        const now = session();
        return now !== undefined && now !== besides && now.arrivedBytes > 0;
      });
      const now = session()!;
      const before = now.arrivedBytes;
      await until(PATIENCE_MS, 'bytes on it', () => now.arrivedBytes > before);
      return now;
    },
    arrives: async (sending = sent) => {
      migration()?.bucket.setRate(0);
      const image = await sending;
      if (image instanceof Error) throw image;
      await handOver(move, [image]);
      expect(sha256(onB(here))).toBe(content);
      return image;
    },
  };
  await running.goesOn();
  return running;
}

async function newKey(host: TestHost): Promise<void> {
  const [before] = sharedTrust().host(host.hostId)?.keys ?? [];
  rmSync(join(host.dataDir, 'host.key'));
  rmSync(join(host.dataDir, 'host.pem'));
  await until(PATIENCE_MS, `a new key of ${host.hostId}`, () => {
    const keys = sharedTrust().host(host.hostId)?.keys ?? [];
    return keys.length === 1 && keys[0] !== before;
  });
}

/** What it has revoked ends, and nothing else. */
async function revokeThird(running: Running): Promise<void> {
  const session = await running.goesOn();
  const third = await connectPeer(running.here.b, 'm3', { sourceHost: 'c' });
  await third.ask('train');
  sharedTrust().revoke('c');
  await until(PATIENCE_MS, 'the end of the session of c', () =>
    third.ask('train').then(
      () => false,
      () => true,
    ),
  );
  await expect(connectPeer(running.here.b, 'm3', { sourceHost: 'c' })).rejects.toMatchObject({
    code: 'PEER_UNTRUSTED',
  });
  expect(await running.goesOn()).toBe(session);
}

/** It is nobody until it is let in again, and goes on from what it holds. */
async function revokeDestination({ here, move, sent, arrives, goesOn }: Running): Promise<void> {
  const held = (await goesOn()).arrivedBytes;
  expect(held).toBeGreaterThan(0);
  sharedTrust().revoke('b');
  expect(await sent).toMatchObject({ code: 'PEER_UNTRUSTED', spec: { retry: 'operator' } });
  // What an operator’s retry does too early parks it again.
  await expect(sendImage(move, 'vda')).rejects.toMatchObject({ code: 'PEER_UNTRUSTED' });
  sharedTrust().forget('b');
  await until(PATIENCE_MS, 'b is let in again', () => (sharedTrust().host('b')?.keys ?? []).length === 1);
  const image = await arrives(sendImage(move, 'vda'));
  expect(image.began).toBe('resumed');
  expect(image.counts.unchangedBlocks).toBeGreaterThan(0);
  expect(here.b.registry.imagePath(undefined, 'vm', 'vda')).toBe(onB(here));
}

describe('while an image is on its way', () => {
  it('both hosts’ own keys are replaced, another host is revoked, and the destination itself: it arrives', async () => {
    const running = await transferring(await diskLab());
    const { a, b } = running.here;
    const first = await running.goesOn();
    await newKey(a);
    const second = await running.goesOn(first);
    await newKey(b);
    await running.goesOn(second);
    await revokeThird(running);
    await revokeDestination(running);
  });

  it('certificates are replaced, then the authority by way of both, then the old one goes: it arrives', async () => {
    const folder = temporaryFolder();
    const [first, second] = [new Authority('first'), new Authority('second')];
    const at = (name: string): string => join(folder, name);
    /** Whole, as a tool that renews certificates replaces files. */
    const put = (from: string, name: string): void => {
      copyFileSync(from, at(`${name}.new`));
      renameSync(at(`${name}.new`), at(name));
    };
    const trustThem = (...authorities: Authority[]): void => {
      const both = authorities.map(({ caPath }) => readFileSync(caPath, 'utf8')).join('');
      writeWhole(at('ca.pem'), both);
    };
    const certify = (hostId: string, by: Authority): void => {
      const { tlsCert, tlsKey } = by.certify(hostId);
      put(tlsKey, `${hostId}.key`);
      put(tlsCert, `${hostId}.pem`);
    };
    const tls = (hostId: string): Partial<ProcessOptions> => ({
      tlsCert: at(`${hostId}.pem`),
      tlsKey: at(`${hostId}.key`),
      tlsCa: at('ca.pem'),
    });
    trustThem(first);
    for (const hostId of ['a', 'b']) certify(hostId, first);
    const running = await transferring(await diskLab({ onA: tls('a'), onB: tls('b') }));
    const { a, b } = running.here;
    const shows = (host: TestHost): string => String(host.security?.peers.credentials().cert);
    const takenUp = async (change: () => void, of: readonly TestHost[]): Promise<void> => {
      const before = of.map(shows);
      change();
      await until(PATIENCE_MS, 'what has been replaced', () =>
        of.every((host, index) => shows(host) !== before[index]),
      );
    };
    const trusting = (host: TestHost): string => String(host.security?.peers.credentials().ca);

    const session = await running.goesOn();
    await takenUp(() => certify('a', first), [a]);
    await takenUp(() => certify('b', first), [b]);
    trustThem(first, second);
    await until(PATIENCE_MS, 'both authorities', () =>
      [a, b].every((host) => trusting(host).split('BEGIN').length === 3),
    );
    await takenUp(() => certify('a', second), [a]);
    await takenUp(() => certify('b', second), [b]);
    expect(await running.goesOn()).toBe(session);
    trustThem(second);
    await running.goesOn(session);
    await running.arrives();
  });
});

function writeWhole(path: string, text: string): void {
  writeFileSync(`${path}.new`, text);
  renameSync(`${path}.new`, path);
}
