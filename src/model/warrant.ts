/**
 * Warrants: what the control plane has authorised, as data. A host does nothing for a migration that a warrant does not say; who signs one,
 * and whose signature counts, is src/trust's, and what it is held against at a host activities/border.ts's.
 *
 *   warrant := base64url(JSON of the body) "." base64url(Ed25519 signature over that text)
 */
import { z } from 'zod';
import { type ActivityName, type WarrantMode, warrantModeSchema } from './activity-inputs';
import { hostIdSchema, migrationIdSchema, vmIdSchema } from './ids';
import { countSchema } from './image';
import { pinSchema, signedLineSchema } from './signed-line';

/** So long steps may be begun by one; what they have begun goes on. */
export const WARRANT_LIFETIME_MS = 15 * 60_000;
/** Clocks of two hosts may be so far apart. */
export const CLOCK_LEEWAY_MS = 2 * 60_000;

/** Milliseconds since 1970. */
const timeSchema = z.int().min(0);

export const warrantSchema = z.strictObject({
  /** `link` measures a path or opens connections ahead; `upkeep` is about one host's own baselines and dictionaries. */
  mode: warrantModeSchema,
  migrationId: migrationIdSchema.optional(),
  vmId: vmIdSchema.optional(),
  sourceHost: hostIdSchema.optional(),
  destinationHost: hostIdSchema.optional(),
  /** SHA-256 of the hosts' public keys: by these they know each other. */
  sourceKey: pinSchema.optional(),
  destinationKey: pinSchema.optional(),
  fence: countSchema.optional(),
  /** Of what the destination prepares for: preparedDigest(). */
  digest: z.string().max(64).optional(),
  /** An operator takes the risk that the VM runs twice. */
  acceptTwoCopies: z.literal(true).optional(),
  /** Whose request it was. */
  by: z.string().max(120),
  issuedAtMs: timeSchema,
  expiresAtMs: timeSchema,
});
export type Warrant = z.infer<typeof warrantSchema>;

/** A thousand hosts' names and keys would not be longer. */
export const signedSchema = signedLineSchema.regex(/^[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+$/);

/** What each mode lets a host do, by the names of activities. */
const OF_SESSION: readonly ActivityName[] = [
  'prepareSource',
  'prepareDestination',
  'establishStreams',
  'detectTier',
  'checkBaseline',
  'computePlan',
  'closeSource',
  'abandonDestination',
];
const OF_COPY: readonly ActivityName[] = [...OF_SESSION, 'transferImage', 'setBandwidthLimit'];
export const STEPS_OF: Readonly<Record<WarrantMode, ReadonlySet<ActivityName>>> = {
  plan: new Set(OF_SESSION),
  warm: new Set<ActivityName>([...OF_COPY, 'keepWarm']),
  migrate: new Set<ActivityName>([
    ...OF_COPY,
    'standardTransferImage',
    'guestRounds',
    'guestSwitchover',
    'handedOverRoots',
    'handedOverWord',
    'releaseGuest',
    'switchover',
    'handOver',
    'takeOver',
    'release',
    'rollBackSource',
  ]),
  link: new Set<ActivityName>(['grantLink', 'surveyLink', 'grantPeer', 'connectPeer']),
  upkeep: new Set<ActivityName>(['keepBaselineCopies', 'pruneBaselines', 'refreshDictionary']),
};

/** What somebody asks for, signed in their name; the control plane authorises nothing else for it. */
export const requestSchema = z.strictObject({
  mode: z.enum(['migrate', 'warm', 'plan', 'accept-two-copies']),
  migrationId: migrationIdSchema,
  vmId: vmIdSchema.optional(),
  sourceHost: hostIdSchema.optional(),
  destinationHost: hostIdSchema.optional(),
  issuedAtMs: timeSchema,
});
export type SignedRequest = z.infer<typeof requestSchema>;

/** So long after it was signed a request may be the beginning of something. */
export const REQUEST_LIFETIME_MS = 24 * 3_600_000;
