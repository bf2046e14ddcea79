/**
 * The head of a host's audit log, signed with the host's key once a minute at most and handed out with what activities answer, and
 * read again by whoever checks the log. That a log holds every head that was signed is src/store/audit-reader.ts's to say.
 */
import { AUDIT_HEAD, type AuditHead, auditHeadSchema } from '../model/audit-head';
import { warrantSchema } from '../model/warrant';
import type { AuditLog } from '../store/audit-log';
import type { TlsCredentials } from '../transport/peer-security';
import { hostOf, keyPinOf } from './host-certificate';
import { certificateOf, openByHost, signAsHost } from './host-signed';
import { openSigned } from './signed-text';
import type { TrustFolder } from './trust-folder';

const SIGN_EVERY_MS = 60_000;

interface SignerParts {
  readonly hostId: string;
  readonly audit: Pick<AuditLog, 'written'>;
  readonly credentials: () => TlsCredentials;
  readonly now?: () => number;
}

/** @returns the newest signed head, signed anew where the log has gone on and a minute is over; undefined while there is none */
export function auditHeadSigner({ hostId, audit, credentials, now = Date.now }: SignerParts): () => string | undefined {
  let last: { readonly seq: number; readonly atMs: number; readonly signed: string } | undefined;
  return () => {
    const { written } = audit;
    const atMs = now();
    if (!written || (last && (written.seq === last.seq || atMs - last.atMs < SIGN_EVERY_MS))) return last?.signed;
    const head: AuditHead = { hostId, seq: written.seq, head: written.head, at: new Date(atMs).toISOString() };
    try {
      last = { seq: written.seq, atMs, signed: signAsHost('audit', head, credentials()) };
    } catch {
      // An activity's answer does not fail for it: the next one carries it.
    }
    return last?.signed;
  };
}

export interface ReadHeads {
  /** Each once, the oldest line first. */
  readonly heads: readonly (AuditHead & { readonly keyKnown: boolean })[];
  /** Why others were not believed, each reason once. */
  readonly refused: readonly string[];
}

/**
 * The heads of one host among what activities have answered.
 * @param folder by which keys are known: as that host's, and by the control plane's warrants that stand among the answers
 */
export function headsAmong(answers: readonly unknown[], hostId: string, folder: TrustFolder | undefined): ReadHeads {
  const known = knownKeys(answers, hostId, folder);
  const heads = new Map<string, AuditHead & { readonly keyKnown: boolean }>();
  const refused = new Set<string>();
  for (const signed of new Set(answers.map((answer) => fieldOf(answer, AUDIT_HEAD)))) {
    if (signed === undefined) continue;
    const certificate = certificateOf(signed);
    const named = certificate && hostOf(certificate);
    if (named !== undefined && named !== hostId) continue;
    const head = certificate && openByHost('audit', signed, certificate, auditHeadSchema);
    if (!certificate || named === undefined) refused.add('one has no certificate of a host');
    else if (!head) refused.add('one is not signed by its certificate’s key');
    else if (head.hostId !== hostId) refused.add('one names another host than its certificate');
    else if (known.size > 0 && !known.has(keyPinOf(certificate.publicKey)))
      refused.add(`one is by the key ${keyPinOf(certificate.publicKey)}, which is not known as that of host ${hostId}`);
    else heads.set(signed, { ...head, keyKnown: known.size > 0 });
  }
  return { heads: [...heads.values()].sort((a, b) => a.seq - b.seq), refused: [...refused] };
}

/** Also former ones: what a warrant of this control plane has named stays known, whoever holds the host now. */
function knownKeys(answers: readonly unknown[], hostId: string, folder: TrustFolder | undefined): ReadonlySet<string> {
  const known = new Set(folder?.host(hostId)?.keys ?? []);
  const controlKeys = folder?.controlKeys() ?? [];
  for (const line of new Set(answers.map((answer) => fieldOf(answer, 'warrant')))) {
    const warrant = line === undefined ? undefined : openSigned('warrant', line, controlKeys, warrantSchema)?.value;
    if (warrant?.sourceHost === hostId && warrant.sourceKey !== undefined) known.add(warrant.sourceKey);
    if (warrant?.destinationHost === hostId && warrant.destinationKey !== undefined) known.add(warrant.destinationKey);
  }
  return known;
}

function fieldOf(answer: unknown, name: string): string | undefined {
  if (typeof answer !== 'object' || answer === null) return undefined;
  const value = (answer as Readonly<Record<string, unknown>>)[name];
  return typeof value === 'string' ? value : undefined;
}
