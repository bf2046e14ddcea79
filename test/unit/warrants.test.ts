/** Warrants, requests and words: what the control plane signs for whom, and what a host does by it. */
import { generateKeyPairSync } from 'node:crypto';
import { join } from 'node:path';
import { createIssuer, signRequest } from '../../src/control/issuer';
import type { ActivityInput, ActivityName } from '../../src/model/activity-inputs';
import { WARRANT_LIFETIME_MS, type Warrant } from '../../src/model/warrant';
import { sayWord } from '../../src/trust/host-words';
import type { PeerTrust } from '../../src/trust/peer-trust';
import { signText } from '../../src/trust/signed-text';
import { TrustFolder } from '../../src/trust/trust-folder';
import { createWarrantJudge } from '../../src/trust/warrant-judge';
import { GOOD } from '../helpers/activity-inputs';
import { temporaryFolder } from '../helpers/data';
import { identityOf } from '../helpers/identities';

const IDENTITY = { migrationId: 'm1', vmId: 'vm', sourceHost: 'a', destinationHost: 'b' };
const { fence: _fence, ...WITHOUT_FENCE } = GOOD.prepareDestination as ActivityInput<'prepareDestination'>;
const { generation, images, allocatedBytes, guest, stoppedGuest, vmType, tenant, diskMap, overwriteDisks } =
  WITHOUT_FENCE;
const PREPARED = { generation, images, allocatedBytes, guest, stoppedGuest, vmType, tenant, diskMap, overwriteDisks };

let trust: TrustFolder;
let a: PeerTrust;
let b: PeerTrust;
let refusals: unknown[];
let shown: unknown[];
beforeEach(async () => {
  trust = TrustFolder.make(join(temporaryFolder(), 'trust'));
  a = await identityOf('a', trust);
  b = await identityOf('b', trust);
  refusals = [];
  shown = [];
});

type Wanted = ActivityInput<'authorise'>;
const request = (mode: 'migrate' | 'warm' = 'migrate', of: object = IDENTITY): string =>
  signRequest(trust, { mode, ...(of as typeof IDENTITY) }) ?? '';

async function warrantFor(more: Partial<Wanted> = {}): Promise<string> {
  const wanted = { mode: 'migrate', ...IDENTITY, request: request(), ...more } as Wanted;
  return (await createIssuer(trust)(wanted)).warrant ?? '';
}

function judgeOf(hostId: string, peers: PeerTrust, folder = trust) {
  return createWarrantJudge({
    hostId,
    controlKeys: () => folder.controlKeys(),
    peers,
    refused: (details) => void refusals.push(details),
    shown: (details) => void shown.push(details),
  });
}

/** Undefined, or the code it is refused with. */
async function verdict(
  side: 'source' | 'destination',
  step: ActivityName,
  warrant: string | undefined,
  input: unknown = GOOD[step],
): Promise<string | undefined> {
  const judge = side === 'source' ? judgeOf('a', a) : judgeOf('b', b);
  return judge.assertMay(side, step, input, warrant).then(
    () => undefined,
    (error: unknown) => (error as { code: string }).code,
  );
}

describe('the control plane signs', () => {
  const refused = { code: 'NOT_AUTHORISED' };

  it('for a request of an operator, just what was asked for, with the keys of both hosts', async () => {
    const [text = ''] = (await warrantFor({ fence: 3 })).split('.');
    expect(JSON.parse(Buffer.from(text, 'base64url').toString())).toMatchObject({
      ...IDENTITY,
      mode: 'migrate',
      fence: 3,
      sourceKey: a.pin,
      destinationKey: b.pin,
      by: 'local',
    });
  });

  it('nothing without a request, for another VM, hosts or mode than it, or by a key that nobody knows', async () => {
    const other = TrustFolder.make(join(temporaryFolder(), 'trust'));
    const theirs = signRequest(other, { mode: 'migrate', ...IDENTITY });
    const attempts: Partial<Wanted>[] = [
      { request: undefined },
      { request: theirs },
      { request: request('warm') },
      { vmId: 'another' },
      { sourceHost: 'b', destinationHost: 'a' },
      { migrationId: 'm2' },
      { request: request().replace(/\../, (dot) => (dot === '.A' ? '.B' : '.A')) },
      { mode: 'warm' },
      { twoCopies: signRequest(trust, { mode: 'accept-two-copies', migrationId: 'm2' }) },
      { twoCopies: request() },
    ];
    for (const more of attempts) await expect(warrantFor(more).then(String)).rejects.toMatchObject(refused);
  });

  it('the next warrant on the strength of the one before, of the same migration alone', async () => {
    const previous = await warrantFor();
    expect(await warrantFor({ request: undefined, previous })).not.toBe('');
    for (const more of [{ vmId: 'another' }, { mode: 'warm' as const }, { destinationHost: 'c' }])
      await expect(warrantFor({ request: undefined, previous, ...more })).rejects.toMatchObject(refused);
    const fenced = await warrantFor({ fence: 3 });
    await expect(warrantFor({ previous: fenced, fence: 4 })).rejects.toMatchObject(refused);
  });

  it('nothing for a host that is revoked', async () => {
    trust.revoke('b');
    await expect(warrantFor()).rejects.toMatchObject(refused);
  });
});

describe('a host does', () => {
  it('what a warrant says, and nothing that none says', async () => {
    const warrant = await warrantFor({ fence: 1, prepared: PREPARED });
    expect(await verdict('source', 'prepareSource', warrant)).toBeUndefined();
    expect(await verdict('destination', 'prepareDestination', warrant)).toBeUndefined();
    expect(shown).toContainEqual({ ...IDENTITY, mode: 'migrate', by: 'local' });
    for (const step of ['prepareSource', 'transferImage', 'rollBackSource', 'switchover'] as const)
      expect(await verdict('source', step, undefined)).toBe('NOT_AUTHORISED');
    expect(refusals).toContainEqual(expect.objectContaining({ code: 'NOT_AUTHORISED' }));
  });

  it('nothing by a warrant of another control plane, of another host, mode or migration, or of the future', async () => {
    const warrant = await warrantFor({ fence: 1, prepared: PREPARED });
    const { privateKey } = generateKeyPairSync('ed25519');
    const now = Date.now();
    const body: Warrant = { mode: 'migrate', ...IDENTITY, by: 'x', issuedAtMs: now, expiresAtMs: now + 60_000 };
    const good = trust.controlKey()!;
    expect(await verdict('source', 'prepareSource', signText('warrant', body, good))).toBeUndefined();
    for (const forged of [
      signText('warrant', body, privateKey),
      signText('request', body, good),
      signText('warrant', { ...body, sourceHost: 'c' }, good),
      signText('warrant', { ...body, vmId: 'another' }, good),
      signText('warrant', { ...body, migrationId: 'm2' }, good),
      signText('warrant', { ...body, mode: 'plan' }, good),
      signText('warrant', { ...body, issuedAtMs: now + WARRANT_LIFETIME_MS }, good),
      `${warrant}.x`,
    ])
      expect(await verdict('source', 'prepareSource', forged)).toBe('NOT_AUTHORISED');
    expect(await verdict('source', 'transferImage', signText('warrant', { ...body, mode: 'link' }, good))).toBe(
      'NOT_AUTHORISED',
    );
    const old = { ...body, issuedAtMs: now - 3_600_000, expiresAtMs: now - 1_800_000 };
    expect(await verdict('source', 'prepareSource', signText('warrant', old, good))).toBe('WARRANT_EXPIRED');
  });

  it('prepares for the very content that was authorised', async () => {
    const warrant = await warrantFor({ fence: 1, prepared: PREPARED });
    const input = GOOD.prepareDestination as ActivityInput<'prepareDestination'>;
    const changes = [
      { fence: 9 },
      { generation: 7 },
      { tenant: 'other' },
      { images: [] },
      { stoppedGuest: { command: ['sh'], diskPaths: {}, rawDisks: [], needsFiles: [] } },
      { guest: undefined },
      { allocatedBytes: { vda: 1 } },
      { diskMap: 'vda=/dev/sda' },
      { overwriteDisks: undefined },
      { sourceHost: 'c' },
    ];
    for (const change of changes)
      expect(await verdict('destination', 'prepareDestination', warrant, { ...input, ...change })).toBe(
        'NOT_AUTHORISED',
      );
  });

  it('sends to the destination of its warrant alone', async () => {
    const warrant = await warrantFor();
    const input = GOOD.transferImage as { readonly destination: object };
    expect(await verdict('source', 'transferImage', warrant, input)).toBeUndefined();
    const elsewhere = { ...input, destination: { ...input.destination, hostId: 'c' } };
    expect(await verdict('source', 'transferImage', warrant, elsewhere)).toBe('NOT_AUTHORISED');
  });

  it('learns by which keys the two hosts know each other', async () => {
    const folder = TrustFolder.make(join(temporaryFolder(), 'trust'));
    const apart = await identityOf('b', folder);
    await createWarrantJudge({
      hostId: 'b',
      controlKeys: () => trust.controlKeys(),
      peers: apart,
      refused: () => undefined,
      shown: () => undefined,
    }).assertMay(
      'destination',
      'takeOver',
      { ...IDENTITY, roots: {}, handedOver: wordOf(a, 'handed_over', 'a') },
      await warrantFor(),
    );
  });
});

const wordOf = (
  peers: PeerTrust,
  word: 'handed_over' | 'taken_over' | 'abandoned',
  hostId: string,
  of = IDENTITY,
): string => sayWord(peers, { word, hostId, migrationId: of.migrationId, vmId: of.vmId });

describe('who owns the VM', () => {
  it('is not decided without the other host’s word', async () => {
    const warrant = await warrantFor();
    const stranger = await identityOf('a', TrustFolder.make(join(temporaryFolder(), 'trust')));
    const input = { migrationId: 'm1', vmId: 'vm', roots: {} };
    const take = (handedOver?: string): Promise<string | undefined> =>
      verdict('destination', 'takeOver', warrant, { ...input, ...(handedOver !== undefined && { handedOver }) });
    expect(await take(wordOf(a, 'handed_over', 'a'))).toBeUndefined();
    for (const word of [
      undefined,
      'x',
      wordOf(b, 'handed_over', 'b'),
      wordOf(b, 'handed_over', 'a'),
      wordOf(stranger, 'handed_over', 'a'),
      wordOf(a, 'abandoned', 'a'),
      wordOf(a, 'handed_over', 'a', { ...IDENTITY, migrationId: 'm2' }),
      wordOf(a, 'handed_over', 'a', { ...IDENTITY, vmId: 'another' }),
    ])
      expect(await take(word)).toBe('NOT_AUTHORISED');
  });

  it('a source takes back what it handed over by the destination’s promise, or an operator’s signed word, alone', async () => {
    const back = { migrationId: 'm1', vmId: 'vm', destinationAbandoned: true };
    const warrant = await warrantFor();
    const accepted = await warrantFor({
      twoCopies: signRequest(trust, { mode: 'accept-two-copies', migrationId: 'm1' }),
    });
    const verdictOf = (by: string, more: object): Promise<string | undefined> =>
      verdict('source', 'rollBackSource', by, { ...back, ...more });
    expect(await verdictOf(warrant, { destinationAbandoned: false })).toBeUndefined();
    expect(await verdictOf(warrant, { abandoned: wordOf(b, 'abandoned', 'b') })).toBeUndefined();
    expect(await verdictOf(accepted, { acceptTwoCopies: true })).toBeUndefined();
    expect(await verdictOf(warrant, {})).toBe('NOT_AUTHORISED');
    expect(await verdictOf(warrant, { acceptTwoCopies: true })).toBe('NOT_AUTHORISED');
    expect(await verdictOf(warrant, { abandoned: wordOf(a, 'abandoned', 'b') })).toBe('NOT_AUTHORISED');
  });

  it('a source lets go of its copy when the destination says that it has the VM', async () => {
    const warrant = await warrantFor();
    for (const step of ['release', 'releaseGuest'] as const) {
      const input = { ...(GOOD[step] as object) };
      expect(await verdict('source', step, warrant, input)).toBe('NOT_AUTHORISED');
      expect(
        await verdict('source', step, warrant, { ...input, takenOver: wordOf(b, 'taken_over', 'b') }),
      ).toBeUndefined();
    }
  });
});
