/**
 * What each activity answers, by its name, as workflows take it in (workflows/activity-proxies.ts): a host may be in other hands,
 * and what the source says goes on to the destination. Unknown fields are dropped, so that a newer agent may say more; what does
 * not fit is an error with a code.
 */
import { z } from 'zod';
import type { ActivityName } from './activity-inputs';
import { grantSchema, reachedAtSchema } from './destination';
import { guestResultSchema, guestSpecSchema, stoppedGuestSchema } from './guest';
import { guestConsolesSchema } from './guest-console';
import { handOverSchema, rootSchema, rootsSchema, takenOverSchema } from './hand-over';
import { hostIdSchema, imageIdSchema, nameSchema, tenantSchema, vmIdSchema, vmTypeSchema, vmUuidSchema } from './ids';
import { allocatedBytesSchema, countSchema, imageSpecSchema, MAX_VM_IMAGES } from './image';
import { linkSurveySchema } from './link-survey';
import { imageResultSchema } from './migration';
import { migrationPlanSchema } from './plan';
import { signedLineSchema } from './signed-line';
import { linkMeasurementSchema } from './tiers';
import { signedWordSchema } from './word';

const nothing = z.unknown().transform((): void => undefined);
const text = z.string().max(4000);
/** Nothing from hosts that sign none. */
const word = signedWordSchema.nullish().transform((said) => said ?? undefined);
/** Histories from before grants had one name none. */
const grant = grantSchema.extend({ holder: hostIdSchema.default('unknown') });
const reachedAt = reachedAtSchema.extend({ grant }).strip();
const prepared = reachedAt.extend({ consoles: guestConsolesSchema.optional() });

/** Counts, of which an earlier agent may not have known some yet: those are 0. */
function counts<S extends z.ZodObject>(schema: S): z.ZodPreprocess<S> {
  const names = Object.entries(schema.shape);
  return z.preprocess((given) => {
    const known = z.record(z.string(), z.unknown()).safeParse(given ?? {});
    if (!known.success) return given;
    return Object.fromEntries(
      names.map(([name, inner]) => [name, known.data[name] ?? (inner instanceof z.ZodNumber ? 0 : undefined)]),
    );
  }, schema);
}

const { blocks, encoder } = imageResultSchema.shape;
const imageResult = imageResultSchema.extend({
  root: rootSchema,
  blocks: counts(blocks),
  encoder: counts(
    encoder.extend({
      bytes: counts(encoder.shape.bytes),
      packings: counts(encoder.shape.packings),
      times: counts(encoder.shape.times),
    }),
  ),
});
const movedGuest = z.object({ guest: guestResultSchema, images: z.array(imageResult).max(MAX_VM_IMAGES) });
const generation = z.object({ generation: countSchema });

const preparedSource = z.object({
  vmType: vmTypeSchema.optional(),
  tenant: tenantSchema.optional(),
  uuid: vmUuidSchema.optional(),
  images: z
    .array(imageSpecSchema.strip())
    .max(MAX_VM_IMAGES)
    .refine((images) => new Set(images.map(({ imageId }) => imageId)).size === images.length, 'two images have one id'),
  allocatedBytes: allocatedBytesSchema.optional(),
  /** Set where a QEMU runs the VM. */
  guest: guestSpecSchema.strip().optional(),
  /** Set where the VM is a guest that does not run. */
  stoppedGuest: stoppedGuestSchema.strip().optional(),
  fence: countSchema,
  generation: countSchema,
  alreadyMoved: z.boolean(),
  /** Set where it was handed over already and nobody knows what came of it: a workflow was reset. */
  handedOver: handOverSchema
    .extend({ destination: reachedAt, roots: rootsSchema })
    .strip()
    .transform((handedOver) => ({
      ...handedOver,
      destination: { ...handedOver.destination, hostId: handedOver.destinationHost },
    }))
    .optional(),
});

const trainingReport = z.object({
  vmType: vmTypeSchema,
  of: z.enum(['tenants', 'vms']).optional(),
  name: nameSchema.optional(),
  kept: z.boolean(),
  reason: text,
  samples: z.number(),
  gain: z.number(),
  version: z.object({ version: z.int().min(1) }).optional(),
});

export const ACTIVITY_RESULTS = {
  prepareSource: preparedSource,
  establishStreams: z.object({ streams: z.number(), fromPool: z.number() }),
  detectTier: linkMeasurementSchema.unwrap().strip(),
  computePlan: migrationPlanSchema,
  transferImage: imageResult,
  standardTransferImage: imageResult,
  guestRounds: z.object({ rounds: z.number(), reason: text }),
  guestSwitchover: movedGuest,
  handedOverWord: word,
  handedOverRoots: rootsSchema.nullish().transform((roots) => roots ?? undefined),
  releaseGuest: movedGuest,
  switchover: generation,
  handOver: nothing,
  release: nothing,
  keepWarm: nothing,
  rollBackSource: nothing,
  closeSource: nothing,
  setBandwidthLimit: nothing,
  surveyLink: linkSurveySchema,
  connectPeer: z.object({ idle: z.number() }),
  /** An earlier agent has one for all. */
  refreshDictionary: z.preprocess(
    (given): unknown => (Array.isArray(given) ? given : [given]),
    z.array(trainingReport).max(10_000),
  ),
  prepareDestination: prepared,
  checkBaseline: z.object({
    imageId: imageIdSchema,
    state: z.enum(['empty', 'baseline', 'resumed']),
    /** Bytes of blocks with content that the host holds. */
    heldBytes: z.number().min(0),
  }),
  abandonDestination: word,
  takeOver: takenOverSchema.extend({ takenOver: signedWordSchema.optional() }),
  keepBaselineCopies: z
    .array(z.object({ imageId: imageIdSchema, kept: z.enum(['clone', 'copy', 'no']), reason: text }))
    .max(MAX_VM_IMAGES),
  pruneBaselines: z.array(z.object({ vmId: vmIdSchema, imageId: imageIdSchema })).max(100_000),
  grantPeer: reachedAt,
  grantLink: reachedAt,
  /** Without a warrant where the control plane signs none. */
  authorise: z.object({ warrant: signedLineSchema.optional(), expiresAtMs: z.number() }),
  recordOutcome: nothing,
  /** They come from attributes that anybody may have set: what names no host is left out. */
  knownHosts: z
    .array(z.unknown())
    .max(10_000)
    .transform((hosts) => hosts.flatMap((host) => hostIdSchema.safeParse(host).data ?? [])),
} as const satisfies Readonly<Record<ActivityName, z.ZodType>>;

/** Whether an answer may hold more than its schema knows: of an object that is dropped; among roots it would be taken for one. */
export function maySayMore(name: ActivityName): boolean {
  return ACTIVITY_RESULTS[name] instanceof z.ZodObject;
}

export type ActivityResult<N extends ActivityName> = z.infer<(typeof ACTIVITY_RESULTS)[N]>;
