/**
 * Signs warrants, for those who may ask: whoever holds an operator's key that the trust folder knows, as far as its policy goes. Moving,
 * warming and planning need a signed request; what goes on from there is renewed on the strength of the warrant before, and the policy is
 * asked once more when the source has said whose VM it is. Measuring a path and the upkeep of a host's own baselines touch no VM, and need
 * no request.
 */
import type { ActivityInput } from '../model/activity-inputs';
import type { ActivityResult } from '../model/activity-results';
import { DwcpError, messageOf, toDwcpError } from '../model/errors';
import {
  REQUEST_LIFETIME_MS,
  requestSchema,
  type SignedRequest,
  WARRANT_LIFETIME_MS,
  type Warrant,
  warrantSchema,
} from '../model/warrant';
import type { AuditDetails } from '../store/audit-log';
import { openSigned, signText } from '../trust/signed-text';
import type { TrustFolder } from '../trust/trust-folder';
import { preparedDigest } from '../trust/warrant-judge';

type Wanted = ActivityInput<'authorise'>;
const IDENTITY = ['migrationId', 'vmId', 'sourceHost', 'destinationHost'] as const;
/** What everybody who reaches the control plane may have. */
type Free = 'link' | 'upkeep';

function isFree(mode: Wanted['mode']): mode is Free {
  return mode === 'link' || mode === 'upkeep';
}

function refused(what: string): DwcpError {
  return new DwcpError('NOT_AUTHORISED', `The control plane does not authorise that: ${what}`, { side: 'control' });
}

export type Authorise = (wanted: Wanted) => Promise<ActivityResult<'authorise'>>;

/** Hears of each decision: a renewal of what was decided is none. */
export interface DecisionsHeard {
  authorised(details: AuditDetails): void;
  refused(details: AuditDetails): void;
}

/** @param folder read anew for each warrant: keys, hosts, operators and the policy come and go */
export function createIssuer(folder: TrustFolder, heard?: DecisionsHeard): Authorise {
  return (wanted) => {
    const { mode, vmId, migrationId, sourceHost, destinationHost } = wanted;
    const asked = { mode, migrationId, vmId, sourceHost, destinationHost, tenant: tenantOf(wanted) };
    try {
      const { answer, decided } = issue(folder, wanted);
      for (const each of decided) heard?.authorised({ ...asked, ...each });
      return Promise.resolve(answer);
    } catch (error) {
      heard?.refused({ ...asked, code: toDwcpError(error, 'INTERNAL').code, why: messageOf(error) });
      throw error;
    }
  };
}

/** Known when the source has said whose VM it is. */
function tenantOf({ prepared }: Wanted): string | undefined {
  return prepared && (prepared.tenant ?? '');
}

interface Decision {
  readonly by: string;
  readonly action: SignedRequest['mode'];
}

function issue(
  folder: TrustFolder,
  wanted: Wanted,
): { readonly answer: ActivityResult<'authorise'>; readonly decided: readonly Decision[] } {
  const key = folder.controlKey();
  if (!key) throw refused(`${folder.path} holds no control.key`);
  const now = Date.now();
  const decided: Decision[] = [];
  const previous = wanted.previous === undefined ? undefined : openPrevious(folder, wanted, wanted.previous);
  const decide = (by: string, action: SignedRequest['mode']): void => {
    const objection = folder.objectionOf(by, { ...wanted, mode: action, tenant: tenantOf(wanted) });
    if (objection !== undefined) throw refused(objection);
    decided.push({ by, action });
  };
  let by = 'anybody';
  if (!isFree(wanted.mode)) {
    by = previous?.by ?? requestedBy(folder, wanted, now);
    if (!previous || (wanted.prepared && previous.digest === undefined)) decide(by, wanted.mode);
  }
  const risk = wanted.twoCopies === undefined ? undefined : acceptedBy(folder, wanted, wanted.twoCopies, now);
  if (risk !== undefined) decide(risk, 'accept-two-copies');
  const warrant: Warrant = {
    mode: wanted.mode,
    ...pick(wanted),
    ...keysOf(folder, wanted),
    ...(wanted.fence !== undefined && { fence: wanted.fence }),
    ...(wanted.prepared && { digest: preparedDigest(wanted.prepared) }),
    ...((risk !== undefined || previous?.acceptTwoCopies === true) && { acceptTwoCopies: true }),
    by,
    issuedAtMs: now,
    expiresAtMs: now + WARRANT_LIFETIME_MS,
  };
  const answer = { warrant: signText('warrant', warrantSchema.parse(warrant), key), expiresAtMs: warrant.expiresAtMs };
  return { answer, decided };
}

function pick(wanted: Wanted): Pick<Warrant, (typeof IDENTITY)[number]> {
  return Object.fromEntries(IDENTITY.filter((name) => wanted[name] !== undefined).map((name) => [name, wanted[name]]));
}

/** By an earlier warrant of ours for the very same. */
function openPrevious(folder: TrustFolder, wanted: Wanted, signed: string): Warrant {
  const warrant = openSigned('warrant', signed, folder.controlKeys(), warrantSchema)?.value;
  if (!warrant) throw refused('the warrant that is to be renewed is not one of this control plane');
  const differs = [...IDENTITY, 'mode' as const].find((name) => warrant[name] !== wanted[name]);
  if (differs) throw refused(`the warrant that is to be renewed has another ${differs}`);
  if (warrant.fence !== undefined && wanted.fence !== warrant.fence)
    throw refused('the warrant that is to be renewed has another fence');
  return warrant;
}

function openRequest(
  folder: TrustFolder,
  signed: string,
  now: number,
): { readonly request: SignedRequest; readonly by: string } {
  const operators = [...folder.operators()];
  const opened = openSigned(
    'request',
    signed,
    operators.flatMap(([, keys]) => keys),
    requestSchema,
  );
  const by = opened && operators.find(([, keys]) => keys.some((key) => key.equals(opened.key)))?.[0];
  if (!opened || by === undefined) throw refused('the request is not signed by an operator of this trust folder');
  if (Math.abs(now - opened.value.issuedAtMs) > REQUEST_LIFETIME_MS)
    throw refused('the request is too old to begin anything');
  return { request: opened.value, by };
}

/** @throws NOT_AUTHORISED where nobody who may has asked for this */
function requestedBy(folder: TrustFolder, wanted: Wanted, now: number): string {
  if (wanted.request === undefined) throw refused('nobody has signed the request');
  const { request, by } = openRequest(folder, wanted.request, now);
  const differs = [...IDENTITY, 'mode' as const].find((name) => request[name] !== wanted[name]);
  if (differs) throw refused(`the signed request has another ${differs}`);
  return by;
}

/** Which operator takes the risk. @throws NOT_AUTHORISED where it is said of another migration, or by nobody who may */
function acceptedBy(folder: TrustFolder, wanted: Wanted, word: string, now: number): string {
  const { request, by } = openRequest(folder, word, now);
  if (request.mode !== 'accept-two-copies' || request.migrationId !== wanted.migrationId)
    throw refused('the signed word about two copies is of another migration');
  return by;
}

/** By which keys the two hosts know each other. @throws NOT_AUTHORISED where one is revoked */
function keysOf(folder: TrustFolder, wanted: Wanted): Pick<Warrant, 'sourceKey' | 'destinationKey'> {
  const keyOf = (hostId: string | undefined): string | undefined => {
    if (hostId === undefined) return undefined;
    if (folder.isRevoked(hostId)) throw refused(`host ${hostId} is revoked`);
    return folder.host(hostId)?.keys.at(-1);
  };
  const [sourceKey, destinationKey] = [keyOf(wanted.sourceHost), keyOf(wanted.destinationHost)];
  return { ...(sourceKey !== undefined && { sourceKey }), ...(destinationKey !== undefined && { destinationKey }) };
}

/** A request of this user, signed. @returns undefined where this user has no operator's key */
export function signRequest(
  folder: TrustFolder | undefined,
  request: Omit<SignedRequest, 'issuedAtMs'>,
): string | undefined {
  const key = folder?.operatorKey();
  return key && signText('request', requestSchema.parse({ ...request, issuedAtMs: Date.now() }), key);
}
