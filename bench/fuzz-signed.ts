/**
 * What is signed, and what stands in lines: warrants, words, requests of operators, codes of invitations, lines of the audit log. Half of
 * them are signed by a key that counts after they were made wrong, so that what lies behind the signature is reached.
 */
import { generateKeyPairSync, sign } from 'node:crypto';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { requestSchema, type Warrant } from '../src/model/warrant';
import { AuditLog, auditFolder } from '../src/store/audit-log';
import { verifyAudit } from '../src/store/audit-reader';
import { CredentialFiles } from '../src/trust/credential-files';
import { doubtOf, sayWord } from '../src/trust/host-words';
import { readCode } from '../src/trust/invitation';
import { PeerTrust } from '../src/trust/peer-trust';
import { openSigned, type SignedKind, signText } from '../src/trust/signed-text';
import { TrustFolder } from '../src/trust/trust-folder';
import { createWarrantJudge } from '../src/trust/warrant-judge';
import { mutateBytes } from './fuzz-bytes';
import type { Draw } from './fuzz-draw';
import { mutateJson } from './fuzz-json';
import { Finding, type Outcome, outcomeOf, refusal, type Target } from './fuzz-target';

const PIN = 'A'.repeat(43);
const WARRANT: Warrant = {
  ...{ mode: 'migrate', migrationId: 'm', vmId: 'vm', sourceHost: 'a', destinationHost: 'b' },
  ...{
    sourceKey: PIN,
    destinationKey: PIN,
    fence: 1,
    digest: 'x'.repeat(43),
    by: 'operator',
    issuedAtMs: 0,
    expiresAtMs: 2 ** 43,
  },
};
const REQUEST = { mode: 'migrate', migrationId: 'm', vmId: 'vm', sourceHost: 'a', destinationHost: 'b', issuedAtMs: 1 };
const INPUT = { migrationId: 'm', vmId: 'vm', imageId: 'vda', destination: { hostId: 'b' } };
const SAID = { word: 'taken_over', hostId: 'a', migrationId: 'm', vmId: 'vm' } as const;
const CODE = { at: ['127.0.0.1', 'host.example'], port: 9877, pin: PIN, secret: 'b'.repeat(22) };

const { privateKey: SIGNING_KEY, publicKey: CONTROL_KEY } = generateKeyPairSync('ed25519');

/** As signText(), of a text that need be no JSON. */
function signed(kind: SignedKind, json: Buffer): string {
  const text = json.toString('base64url');
  return `${text}.${sign(null, Buffer.from(`dwcp ${kind} 1\n${text}`), SIGNING_KEY).toString('base64url')}`;
}

function mutatedText(text: string, draw: Draw): string {
  return mutateBytes(Buffer.from(text), draw).toString(draw.oneIn(2) ? 'utf8' : 'latin1');
}

async function peersIn(folder: string): Promise<PeerTrust> {
  const trust = TrustFolder.make(join(folder, 'trust'));
  const own = join(folder, 'own');
  mkdirSync(own);
  const files = await CredentialFiles.open('a', own, { tlsCert: '', tlsKey: '', tlsCa: '', tlsCrl: '' });
  const peers = await PeerTrust.open(files, trust, own);
  trust.admit('a', { keys: [peers.pin] });
  return peers;
}

/** The lines of an honest log, to be made wrong. */
async function auditText(folder: string): Promise<Buffer> {
  const log = await AuditLog.open(folder, () => undefined);
  for (const vmId of ['vm', 'other']) log.write('ownership', { vmId, state: 'mine', fence: 3 });
  await log.close();
  return readFileSync(join(auditFolder(folder), '00000001.jsonl'));
}

export async function signedTargets(): Promise<Target[]> {
  const folder = mkdtempSync(join(tmpdir(), 'dwcp-fuzz-signed-'));
  const peers = await peersIn(folder);
  const word = sayWord(peers, SAID);
  const judge = createWarrantJudge({
    ...{
      hostId: 'a',
      controlKeys: () => [CONTROL_KEY],
      peers: { stillIs: () => false, learn: () => Promise.resolve() } as unknown as PeerTrust,
    },
    refused: () => undefined,
    shown: () => undefined,
  });
  const valid = signText('warrant', WARRANT, SIGNING_KEY);
  const lines = await auditText(folder);
  const honest = new Set(lines.toString('latin1').split('\n'));
  const head = (await verifyAudit(folder)).head;
  const auditPath = join(auditFolder(folder), '00000001.jsonl');
  const playWarrant = async (draw: Draw, told: (what: unknown) => void): Promise<Outcome> => {
    const shown = draw.oneIn(2) ? signed('warrant', mutateJson(WARRANT, draw)) : mutatedText(valid, draw);
    told(shown);
    try {
      await judge.assertMay('source', 'transferImage', INPUT, shown);
      return 'accepted';
    } catch (error) {
      return refusal(error);
    }
  };
  const playSync = (draw: Draw, told: (what: unknown) => void): Outcome => {
    const kind = draw.below(3);
    if (kind === 0) {
      const shown = draw.oneIn(2) ? signed('request', mutateJson(REQUEST, draw)) : mutatedText(valid, draw);
      told(shown);
      return outcomeOf(() => void openSigned('request', shown, [CONTROL_KEY], requestSchema));
    }
    if (kind === 1) {
      const shown = mutatedText(word, draw);
      told(shown);
      return outcomeOf(() => void doubtOf(peers, draw.oneIn(20) ? draw.edge() : shown, SAID));
    }
    const code = draw.oneIn(2)
      ? mutateJson(CODE, draw).toString('base64url')
      : mutatedText(Buffer.from(JSON.stringify(CODE)).toString('base64url'), draw);
    told(code);
    return outcomeOf(() => void readCode(code));
  };
  return [
    {
      name: 'signed',
      share: 40,
      play: (draw, _index, told) => (draw.oneIn(4) ? playWarrant(draw, told) : playSync(draw, told)),
    },
    {
      name: 'audit',
      share: 5,
      play: async (draw, _index, told) => {
        const text = mutateBytes(lines, draw);
        told(text);
        writeFileSync(auditPath, text);
        const { fault } = await verifyAudit(folder, head);
        if (
          fault === undefined &&
          text
            .toString('latin1')
            .split('\n')
            .some((line) => !honest.has(line))
        )
          throw new Finding('a line was changed, and the chain is said to hold');
        await (await AuditLog.open(folder, () => undefined)).close();
        return fault === undefined ? 'accepted' : 'INTEGRITY_MISMATCH';
      },
      close: () => {
        rmSync(folder, { recursive: true, force: true });
        return Promise.resolve();
      },
    },
  ];
}
