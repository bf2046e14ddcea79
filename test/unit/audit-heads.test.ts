/**
 * The signed head of the audit log: seldom signed, never of a line that a crash may take back, and what stands in a history tells of a
 * log that was written anew, however whole that is in itself.
 */
import { createPrivateKey } from 'node:crypto';
import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { z } from 'zod';
import { behindBorder } from '../../activities/border';
import { ACTIVITY_INPUTS, type ActivityName } from '../../src/model/activity-inputs';
import { ACTIVITY_RESULTS, maySayMore } from '../../src/model/activity-results';
import { AUDIT_HEAD } from '../../src/model/audit-head';
import { AuditLog, auditFolder } from '../../src/store/audit-log';
import { type AuditVerdict, verifyAudit } from '../../src/store/audit-reader';
import { auditHeadSigner, headsAmong } from '../../src/trust/audit-heads';
import type { PeerTrust } from '../../src/trust/peer-trust';
import { signText } from '../../src/trust/signed-text';
import { TrustFolder } from '../../src/trust/trust-folder';
import { GOOD } from '../helpers/activity-inputs';
import { temporaryFolder } from '../helpers/data';
import { identityOf } from '../helpers/identities';

const fail = (error: unknown): never => {
  throw error;
};
const limits = { fileBytes: 2000, maxFiles: 2 };

let dataDir: string;
let log: AuditLog;
let trust: TrustFolder;
let host: PeerTrust;
let minutes: number;
let signed: () => string | undefined;
beforeEach(async () => {
  dataDir = temporaryFolder();
  log = await AuditLog.open(dataDir, fail, limits);
  trust = TrustFolder.make(join(temporaryFolder(), 'trust'));
  host = await identityOf('a', trust);
  minutes = 0;
  signed = auditHeadSigner({
    hostId: 'a',
    audit: log,
    credentials: () => host.credentials(),
    now: () => 1.8e12 + minutes * 60_000,
  });
});

async function happens(vmId: string): Promise<void> {
  log.write('ownership', { vmId, state: 'claimed' });
  await log.close();
}

/** Heads of so many minutes, one line in each, as answers in a history. */
async function answers(count: number): Promise<unknown[]> {
  const all: unknown[] = [];
  for (; minutes < count; minutes += 1) {
    await happens(`vm-${minutes}`);
    all.push({ generation: 1, [AUDIT_HEAD]: signed() });
  }
  return all;
}

/** Whoever may write the folder writes the log as it should have been, chain and all. */
async function writeAnew(lines: readonly string[]): Promise<void> {
  rmSync(auditFolder(dataDir), { recursive: true });
  log = await AuditLog.open(dataDir, fail);
  for (const line of lines) await happens(line);
}

function verify(given: readonly unknown[]): Promise<AuditVerdict> {
  return verifyAudit(dataDir, undefined, headsAmong(given, 'a', trust).heads);
}

describe('a head is signed', () => {
  it('once a minute at most, and only where the log has gone on', async () => {
    expect(signed()).toBeUndefined();
    await happens('vm-1');
    const first = signed();
    expect(first).toBeDefined();
    await happens('vm-2');
    expect(signed()).toBe(first);
    minutes = 1;
    const second = signed();
    expect(second).not.toBe(first);
    minutes = 9;
    expect(signed()).toBe(second);
  });

  it('of a line that is on the disk, not of one that waits to be written', async () => {
    await happens('vm-1');
    log.write('ownership', { vmId: 'waits' });
    expect(headsAmong([{ [AUDIT_HEAD]: signed() }], 'a', trust).heads).toMatchObject([{ hostId: 'a', seq: 1 }]);
  });

  it('also where the log goes on behind a restart of the agent', async () => {
    await happens('vm-1');
    const before = log.written;
    expect((await AuditLog.open(dataDir, fail)).written).toEqual(before);
  });
});

describe('a log', () => {
  it('that nobody has touched holds all that was signed', async () => {
    const given = await answers(5);
    expect(await verify(given)).toMatchObject({ anchored: 5, tooOld: 0, fault: undefined });
  });

  it('that was written anew is found, although its own chain is whole', async () => {
    const given = await answers(5);
    await writeAnew(['vm-0', 'vm-1', 'nothing happened here', 'vm-3', 'vm-4', 'vm-5']);
    expect((await verifyAudit(dataDir)).fault).toBeUndefined();
    expect((await verify(given)).fault).toMatch(/^line number \d is not the one that was signed at 2027-/);
  });

  it('whose newest lines were taken away, or all, is found', async () => {
    const given = await answers(3);
    const [file = ''] = readdirSync(auditFolder(dataDir));
    const path = join(auditFolder(dataDir), file);
    writeFileSync(path, readFileSync(path, 'utf8').replace(/^.*vm-2.*\n/m, ''));
    expect((await verifyAudit(dataDir)).fault).toBeUndefined();
    expect((await verify(given)).fault).toMatch(
      /^line number 3, signed at .* is not there: newer lines were taken away/,
    );
    rmSync(auditFolder(dataDir), { recursive: true });
    expect((await verify(given)).fault).toMatch(/is not there/);
  });

  it('of which old files are gone says how many heads it has no line for any more', async () => {
    const given = await answers(40);
    const { anchored, tooOld, fault } = await verify(given);
    expect(fault).toBeUndefined();
    expect(tooOld).toBeGreaterThan(0);
    expect(anchored + tooOld).toBe(40);
  });
});

describe('a head in a history', () => {
  const head = { hostId: 'a', seq: 1, head: 'f'.repeat(64), at: '2026-11-27T00:00:00.000Z' };
  const seen = (answer: unknown): unknown => headsAmong([answer], 'a', trust);

  it('that is forged is refused: of another key, changed, of another host, of another kind, or nonsense', async () => {
    await happens('vm-1');
    const good = signed() ?? '';
    const [text = '', signature = '', certificate = ''] = good.split('.');
    const none = (why: RegExp): unknown => ({ heads: [], refused: [expect.stringMatching(why)] });
    const stranger = await identityOf('a', TrustFolder.make(join(temporaryFolder(), 'trust')));
    const forge = auditHeadSigner({ hostId: 'a', audit: log, credentials: () => stranger.credentials() });
    expect(seen({ [AUDIT_HEAD]: forge() })).toEqual(none(/which is not known as that of host a/));
    const changed = Buffer.from(JSON.stringify(head)).toString('base64url');
    expect(seen({ [AUDIT_HEAD]: `${changed}.${signature}.${certificate}` })).toEqual(none(/not signed/));
    const asWord = signText('word', head, createPrivateKey(host.credentials().key));
    expect(seen({ [AUDIT_HEAD]: `${asWord}.${certificate}` })).toEqual(none(/not signed/));
    expect(seen({ [AUDIT_HEAD]: `${text}.${signature}.${certificate}.x` })).toEqual(none(/not signed/));
    const other = auditHeadSigner({ hostId: 'b', audit: log, credentials: () => host.credentials() });
    expect(seen({ [AUDIT_HEAD]: other() })).toEqual(none(/another host/));
    expect(seen({ [AUDIT_HEAD]: 'nonsense' })).toEqual(none(/no certificate/));
    for (const answer of [undefined, null, 7, 'x', {}, { [AUDIT_HEAD]: { seq: 1 } }])
      expect(seen(answer)).toEqual({ heads: [], refused: [] });
    expect(seen({ [AUDIT_HEAD]: good })).toMatchObject({ heads: [{ seq: 1, keyKnown: true }], refused: [] });
  });

  it('of another host is that host’s', async () => {
    const b = await identityOf('b', trust);
    await happens('vm-1');
    const other = auditHeadSigner({ hostId: 'b', audit: log, credentials: () => b.credentials() });
    expect(seen({ [AUDIT_HEAD]: other() })).toEqual({ heads: [], refused: [] });
  });

  it('by a key that nobody here knows is told to be that', async () => {
    await happens('vm-1');
    expect(headsAmong([{ [AUDIT_HEAD]: signed() }], 'a', undefined).heads).toMatchObject([{ keyKnown: false }]);
  });

  it('by a former key counts where a warrant of the control plane names that', async () => {
    await happens('vm-1');
    const answer = { [AUDIT_HEAD]: signed() };
    const former = host.pin;
    trust.forget('a');
    await identityOf('a', trust);
    expect(seen(answer)).toMatchObject({ heads: [] });
    const warrant = (by: TrustFolder): unknown => ({
      warrant: signText(
        'warrant',
        { mode: 'plan', sourceHost: 'a', sourceKey: former, by: 'local', issuedAtMs: 0, expiresAtMs: 1 },
        by.controlKey()!,
      ),
    });
    const theirs = TrustFolder.make(join(temporaryFolder(), 'trust'));
    expect(headsAmong([answer, warrant(theirs)], 'a', trust).heads).toEqual([]);
    expect(headsAmong([answer, warrant(trust)], 'a', trust).heads).toMatchObject([{ seq: 1, keyKnown: true }]);
  });
});

describe('an answer', () => {
  const names = Object.keys(ACTIVITY_INPUTS) as ActivityName[];

  it('carries it where it is an object of known fields, and workflows read the same as without', () => {
    const carrying = names.filter(maySayMore);
    expect(carrying).toEqual(
      expect.arrayContaining(['prepareSource', 'transferImage', 'prepareDestination', 'takeOver']),
    );
    expect(carrying).not.toEqual(expect.arrayContaining(['handedOverRoots']));
    for (const name of carrying) {
      const { issues } = (ACTIVITY_RESULTS[name] as z.ZodType).safeParse({ [AUDIT_HEAD]: 'x' }).error ?? {};
      expect([name, (issues ?? []).filter(({ code }) => code === 'unrecognized_keys')]).toEqual([name, []]);
      expect((ACTIVITY_RESULTS[name] as z.ZodObject).def.catchall).toBeUndefined();
    }
  });

  it('of an activity of a host has it, others and those of the control worker have not', async () => {
    const given = { imageId: 'vda', state: 'empty', heldBytes: 0 };
    const roots = { vda: 'ab' };
    const made = {
      checkBaseline: () => Promise.resolve(given),
      handedOverRoots: () => Promise.resolve(roots),
      release: () => Promise.resolve(),
    };
    const ask = async (auditHead?: () => string | undefined): Promise<unknown[]> => {
      const { checkBaseline, handedOverRoots, release } = behindBorder(made, { side: 'source', auditHead });
      const asked = [
        [checkBaseline, GOOD.checkBaseline],
        [handedOverRoots, GOOD.handedOverRoots],
        [release, GOOD.release],
      ] as const;
      return Promise.all(asked.map(([run, input]) => (run as (input: unknown) => Promise<unknown>)(input)));
    };
    expect(await ask(() => 'signed')).toEqual([{ ...given, [AUDIT_HEAD]: 'signed' }, roots, undefined]);
    expect(await ask(() => undefined)).toEqual([given, roots, undefined]);
    expect(await ask()).toEqual([given, roots, undefined]);
    expect(ACTIVITY_RESULTS.checkBaseline.parse({ ...given, [AUDIT_HEAD]: 'signed' })).toEqual(given);
  });
});
