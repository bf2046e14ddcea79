/**
 * Whether a host may do a step that somebody has asked for by way of Temporal: the control plane's signature on a warrant, this host's
 * name in it, the step among those of its mode, its time; and the step's input about the very migration, VM, hosts and content that the
 * warrant names. What it says of keys is learnt: by them the two hosts know each other on the data plane.
 */
import { createHash, type KeyObject } from 'node:crypto';
import type { ActivityName } from '../model/activity-inputs';
import { DwcpError } from '../model/errors';
import { forgetOldest } from '../model/forget-oldest';
import type { Side } from '../model/ids';
import { CLOCK_LEEWAY_MS, STEPS_OF, type Warrant, warrantSchema } from '../model/warrant';
import type { Word } from '../model/word';
import { doubtOf } from './host-words';
import type { PeerTrust } from './peer-trust';
import { openSigned } from './signed-text';

/** Fields of inputs that have to be what the warrant says, where an input has them. */
const BOUND = ['migrationId', 'vmId', 'sourceHost', 'destinationHost', 'fence'] as const;
/** What the destination makes room for, and what it will run. */
const PREPARED = [
  ...['vmType', 'tenant', 'uuid', 'generation'],
  ...['images', 'allocatedBytes', 'guest', 'stoppedGuest', 'diskMap', 'overwriteDisks'],
] as const;

export interface JudgeParts {
  readonly hostId: string;
  /** Read anew each time: keys are rotated while agents run. */
  readonly controlKeys: () => readonly KeyObject[];
  readonly peers: PeerTrust;
  /** Hears of what was refused, and of each warrant that was shown here first. */
  readonly refused: (details: Readonly<Record<string, string | undefined>>) => void;
  readonly shown: (details: Readonly<Record<string, string | undefined>>) => void;
}

export interface WarrantJudge {
  /** @throws NOT_AUTHORISED; WARRANT_EXPIRED */
  assertMay(side: Side, step: ActivityName, input: unknown, warrant: string | undefined): Promise<void>;
  /** Writes down that a step was asked for with what it does not take. */
  misfits(step: string, why: string): void;
}

const MOST_SEEN = 1024;

/** SHA-256 over what a destination is to prepare for, of a canonical text of it. */
export function preparedDigest(input: Readonly<Record<string, unknown>>): string {
  return createHash('sha256')
    .update(canonical(Object.fromEntries(PREPARED.map((name) => [name, input[name]]))))
    .digest('base64url');
}

/** JSON with names in order and without what is undefined (RFC 8785, for what we have: no number of ours needs its section 3.2.2.3). */
function canonical(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonical).join(',')}]`;
  if (typeof value !== 'object' || value === null) return value === undefined ? 'null' : JSON.stringify(value);
  const entries = Object.entries(value)
    .filter(([, each]) => each !== undefined)
    .sort(([a], [b]) => (a < b ? -1 : 1));
  return `{${entries.map(([name, each]) => `${JSON.stringify(name)}:${canonical(each)}`).join(',')}}`;
}

export function createWarrantJudge({ hostId, controlKeys, peers, refused, shown }: JudgeParts): WarrantJudge {
  const seen = new Set<string>();
  return {
    assertMay: async (side, step, input, signed) => {
      const refuse = (what: string): DwcpError => {
        refused({ step, code: 'NOT_AUTHORISED', why: what });
        return new DwcpError('NOT_AUTHORISED', `Host ${hostId} does not ${step}: ${what}`, { side });
      };
      if (signed === undefined) throw refuse('it was shown no warrant');
      const warrant = openSigned('warrant', signed, controlKeys(), warrantSchema)?.value;
      if (!warrant) throw refuse('the warrant is not one of this control plane');
      const ours = side === 'source' ? warrant.sourceHost : warrant.destinationHost;
      const upkeep = warrant.mode === 'upkeep' && warrant.sourceHost === hostId;
      if (ours !== hostId && !upkeep) throw refuse(`the warrant is for ${side} ${ours ?? 'none'}`);
      if (!STEPS_OF[warrant.mode].has(step)) throw refuse(`a warrant of mode ${warrant.mode} does not say so`);
      const now = Date.now();
      if (warrant.issuedAtMs > now + CLOCK_LEEWAY_MS)
        throw refuse('the warrant is of the future: look at the clocks of both machines');
      if (now > warrant.expiresAtMs + CLOCK_LEEWAY_MS)
        throw new DwcpError('WARRANT_EXPIRED', `The warrant by which host ${hostId} was to ${step} has run out`, {
          side,
        });
      assertBound(step, input, warrant, refuse);
      const { sourceHost, sourceKey, destinationHost, destinationKey } = warrant;
      for (const [peer, pin] of [
        [sourceHost, sourceKey],
        [destinationHost, destinationKey],
      ] as const)
        if (peer !== undefined && pin !== undefined && peer !== hostId) await peers.learn(peer, pin);
      const doubt = doubtOfWord(step, input, warrant, peers);
      if (doubt !== undefined) throw refuse(doubt);
      if (!seen.has(signed)) {
        seen.add(signed);
        forgetOldest(seen, MOST_SEEN);
        const { migrationId, vmId, mode, by } = warrant;
        shown({ migrationId, vmId, mode, by, sourceHost, destinationHost });
      }
    },
    misfits: (step, why) => refused({ step, code: 'INVALID_INPUT', why }),
  };
}

/** By which word of the other host a step may be done, where it needs one, and the field of its input that carries it. */
const NEEDS: Readonly<Partial<Record<ActivityName, readonly [Word, 'source' | 'destination', string]>>> = {
  takeOver: ['handed_over', 'source', 'handedOver'],
  release: ['taken_over', 'destination', 'takenOver'],
  releaseGuest: ['taken_over', 'destination', 'takenOver'],
  rollBackSource: ['abandoned', 'destination', 'abandoned'],
};

/** Why a step may not be done by the word that its input carries. */
function doubtOfWord(step: ActivityName, input: unknown, warrant: Warrant, peers: PeerTrust): string | undefined {
  const [word, side, field] = NEEDS[step] ?? [];
  if (word === undefined || field === undefined) return undefined;
  const given = input as Readonly<Record<string, unknown>>;
  if (step === 'rollBackSource' && (given.destinationAbandoned !== true || given.acceptTwoCopies === true))
    return undefined;
  const hostId = side === 'source' ? warrant.sourceHost : warrant.destinationHost;
  const { migrationId, vmId } = warrant;
  if (hostId === undefined || migrationId === undefined || vmId === undefined) return 'the warrant names no hand-over';
  return doubtOf(peers, given[field], { word, hostId, migrationId, vmId });
}

function assertBound(step: ActivityName, input: unknown, warrant: Warrant, refuse: (what: string) => DwcpError): void {
  const given = (typeof input === 'object' && input !== null ? input : {}) as Readonly<Record<string, unknown>>;
  for (const name of BOUND) {
    if (given[name] === undefined) continue;
    // A workflow that was reset behind the hand-over asks for it, and has had no destination prepare.
    if (name === 'fence' && step === 'abandonDestination' && warrant.fence === undefined) continue;
    if (name === 'vmId' && warrant.mode === 'upkeep') continue;
    if (given[name] !== warrant[name])
      throw refuse(`the warrant is not of ${name} ${JSON.stringify(given[name]).slice(0, 120)}`);
  }
  const { destination } = given as { readonly destination?: { readonly hostId?: unknown } };
  if (destination !== undefined && destination.hostId !== warrant.destinationHost)
    throw refuse('the warrant is for another destination');
  const { mode, acceptTwoCopies } = given;
  if (mode !== undefined && step !== 'prepareDestination' && step !== 'abandonDestination' && mode !== warrant.mode)
    throw refuse(`the warrant is of mode ${warrant.mode}`);
  if (mode === 'migrate' && warrant.mode !== 'migrate') throw refuse(`the warrant is of mode ${warrant.mode}`);
  if (given.claim === true && warrant.mode !== 'migrate') throw refuse('the warrant lets nobody claim the VM');
  if (acceptTwoCopies === true && warrant.acceptTwoCopies !== true)
    throw refuse('no operator’s signed word takes the risk of two copies');
  if (step === 'prepareDestination' && warrant.digest !== preparedDigest(given))
    throw refuse('it is not what the warrant was written for');
}
