/**
 * The transport under its contract, plain and as TLS 1.3. And who is believed to be whom
 * before a word is said.
 */
import { copyFileSync } from 'node:fs';
import { connect as tlsConnect } from 'node:tls';
import type { DwcpError } from '../../src/model/errors';
import { mintGrant } from '../../src/transport/grants';
import { PeerPool } from '../../src/transport/peer-pool';
import type { PeerSecurity } from '../../src/transport/peer-security';
import { CredentialFiles } from '../../src/trust/credential-files';
import { PeerTrust } from '../../src/trust/peer-trust';
import { TrustFolder } from '../../src/trust/trust-folder';
import { temporaryFolder } from '../helpers/data';
import { Authority, identityOf, sharedTrust } from '../helpers/identities';
import { until } from '../helpers/waiting';
import { transportSuite } from './transport.suite';
import { at, CountingSupplier, KEY, openLab } from './transport-lab';

const authority = new Authority('ours');

async function pinned(): Promise<{ a: PeerTrust; lab: PeerTrust }> {
  return { a: await identityOf('a'), lab: await identityOf('lab') };
}

transportSuite('TCP');
transportSuite('TLS 1.3, pinned keys', pinned);

const HELLO = {
  role: 'control' as const,
  stream: 0,
  sessionId: 's1',
  epoch: 1,
  sourceHost: 'a',
  grant: mintGrant(KEY, { purpose: 'session', subject: 's1', holder: 'a' }, 60_000),
};

/** Dials a lab, and says how that ends and whether the listener has heard a hello. */
async function dialled(a: PeerSecurity | undefined, lab: PeerSecurity, hostId = 'lab'): Promise<unknown> {
  const ends = await openLab({ ...(a && { a }), lab });
  const pool = new PeerPool(60_000, a);
  const outcome = await pool.connect({ ...at(ends.port), hostId }, HELLO, 2000).then(
    () => 'let in',
    (error: unknown) => (error as DwcpError).code,
  );
  const heard = ends.accepted.size;
  pool.close();
  await ends.close();
  return { outcome, heard };
}

const REFUSED = { outcome: 'PEER_UNTRUSTED', heard: 0 };

describe('before a hello is written or read', () => {
  it('lets in who shows the key of the host that it calls itself', async () => {
    const { a, lab } = await pinned();
    expect(await dialled(a, lab)).toEqual({ outcome: 'let in', heard: 1 });
    const certified = (hostId: string): Promise<PeerTrust> =>
      identityOf(hostId, sharedTrust(), authority.certify(hostId));
    expect(await dialled(await certified('a'), await certified('lab'))).toEqual({ outcome: 'let in', heard: 1 });
  });

  it('a source that nobody knows is refused', async () => {
    const { lab } = await pinned();
    const stranger = await identityOf('stranger', TrustFolder.make(`${temporaryFolder()}/trust`));
    expect(await dialled(stranger, lab)).toEqual(REFUSED);
  });

  it('a source with a key of its own making is refused in another host’s name', async () => {
    const { lab } = await pinned();
    const stranger = await identityOf('a', TrustFolder.make(`${temporaryFolder()}/trust`));
    expect(await dialled(stranger, lab)).toEqual(REFUSED);
  });

  it('a host that has another’s address gets no hello of the source', async () => {
    const { a, lab } = await pinned();
    expect(await dialled(a, lab, 'another')).toEqual(REFUSED);
  });

  it('a host with a key of its own making gets no hello in another’s name', async () => {
    const { a } = await pinned();
    const theirs = TrustFolder.make(`${temporaryFolder()}/trust`);
    theirs.admit('a', { keys: [a.pin] });
    expect(await dialled(a, await identityOf('lab', theirs))).toEqual(REFUSED);
  });

  it('nobody who speaks no TLS, and nobody without a certificate, is let in', async () => {
    const { lab } = await pinned();
    expect(await dialled(undefined, lab)).toEqual({ outcome: 'PEER_UNREACHABLE', heard: 0 });
    const ends = await openLab({ lab });
    const socket = tlsConnect({ host: '127.0.0.1', port: ends.port, rejectUnauthorized: false });
    const answer = await new Promise<string>((resolve) =>
      socket.once('data', (bytes: Buffer) => resolve(bytes.toString('latin1'))),
    );
    expect(answer).toContain('PEER_UNTRUSTED');
    socket.destroy();
    await ends.close();
  });

  it('certificates of another authority, and of this one without the host’s name, are refused', async () => {
    const lab = await identityOf('lab', sharedTrust(), authority.certify('lab'));
    const other = new Authority('theirs');
    expect(await dialled(await identityOf('a', sharedTrust(), other.certify('a')), lab)).toEqual(REFUSED);
    const asB = await identityOf('b', sharedTrust(), authority.certify('b'));
    expect(await dialled(asB, lab, 'other')).toEqual(REFUSED);
    // A name that only looks as if it were another: Node writes the names of a certificate in one line.
    const files = authority.certify('b', '@names\n[names]\nDNS.1=x, URI:spiffe://dwcp/host/a, y');
    await expect(CredentialFiles.open('a', temporaryFolder(), files)).rejects.toMatchObject({ code: 'CONFIG_INVALID' });
  });

  it('a self-made certificate does not stand where an authority is asked for', async () => {
    const lab = await identityOf('lab', sharedTrust(), authority.certify('lab'));
    expect(await dialled(await identityOf('a'), lab)).toEqual(REFUSED);
  });
});

describe('while sessions are open', () => {
  const never = new AbortController().signal;

  it('a host that is revoked loses its session, and gets none again', async () => {
    const { a, lab } = await pinned();
    const ends = await openLab({ a, lab });
    const session = await ends.open();
    sharedTrust().revoke('a');
    lab.changed();
    await until(5000, 'the end of the session', () => session.ended);
    await expect(ends.open()).rejects.toMatchObject({ code: 'PEER_UNTRUSTED' });
    sharedTrust().forget('a');
    await ends.close();
  });

  it('a certificate that is taken back ends its session', async () => {
    const own = new Authority('taking back');
    const a = await identityOf('a', sharedTrust(), own.certify('a'));
    const files = await CredentialFiles.open('lab', temporaryFolder(), { ...own.certify('lab'), tlsCrl: own.listPath });
    const lab = await PeerTrust.open(files, sharedTrust(), temporaryFolder());
    const ends = await openLab({ a, lab });
    const session = await ends.open();
    own.revoke('a');
    await files.readAgain();
    lab.changed();
    await until(5000, 'the end of the session', () => session.ended);
    await expect(ends.open()).rejects.toMatchObject({ code: 'PEER_UNTRUSTED' });
    await ends.close();
  });

  it('certificates and the authority are replaced beneath a transfer, which goes on', async () => {
    const [first, second] = [new Authority('first'), new Authority('second')];
    const trust = sharedTrust();
    const folder = temporaryFolder();
    const place = (hostId: string, from: Authority): void => {
      const { tlsCert, tlsKey } = from.certify(hostId);
      copyFileSync(tlsCert, `${folder}/${hostId}.pem`);
      copyFileSync(tlsKey, `${folder}/${hostId}.key`);
    };
    const trustAuthority = ({ caPath }: Authority): void => copyFileSync(caPath, `${folder}/ca.pem`);
    trustAuthority(first);
    place('a', first);
    place('lab', first);
    const open = async (hostId: string): Promise<[CredentialFiles, PeerTrust]> => {
      const tls = {
        tlsCert: `${folder}/${hostId}.pem`,
        tlsKey: `${folder}/${hostId}.key`,
        tlsCa: `${folder}/ca.pem`,
        tlsCrl: '',
      };
      const files = await CredentialFiles.open(hostId, folder, tls);
      return [files, await PeerTrust.open(files, trust, folder)];
    };
    const [[aFiles, a], [labFiles, lab]] = [await open('a'), await open('lab')];
    const ends = await openLab({ a, lab });
    const session = await ends.open();
    await session.establish(4);
    const supplier = new CountingSupplier(400, 100_000);
    const done = session.transfer(supplier, never);
    for (const step of [
      (): void => place('a', first),
      (): void => {
        trustAuthority(second);
        place('a', second);
        place('lab', second);
      },
    ]) {
      step();
      await Promise.all([aFiles.readAgain(), labFiles.readAgain()]);
      a.changed();
      lab.changed();
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    await done.catch(() => undefined);
    const again = await ends.open('s2');
    again.close();
    session.close();
    await ends.close();
  });
});
