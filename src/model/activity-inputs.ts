/**
 * What each activity takes, by its name: the one source of the types of inputs, and what activities/border.ts holds every call
 * against before any code of the activity runs. Temporal is no wall: whoever reaches its frontend can ask anything of a host.
 * A host's paths are not among it, but where an operator wants disks to lie, which the host holds against its own configuration.
 * Numbers are bounded by what the product allows, ids are names, lists and texts have an end, and nothing unknown is let in.
 */
import { z } from 'zod';
import { destinationSchema } from './destination';
import { diskMapSchema } from './disk-map';
import { ERROR_CODES, type ErrorCode } from './error-codes';
import { guestSpecSchema, stoppedGuestSchema } from './guest';
import { rootsSchema, takenOverSchema } from './hand-over';
import {
  hostIdSchema,
  imageIdSchema,
  migrationIdSchema,
  nameSchema,
  tenantSchema,
  vmIdSchema,
  vmTypeSchema,
  vmUuidSchema,
} from './ids';
import { allocatedBytesSchema, countSchema, imageSpecSchema, MAX_VM_IMAGES } from './image';
import { migrationOptionsSchema } from './option-schemas';
import { signedLineSchema } from './signed-line';
import { levelAndStreamsSchema, linkMeasurementSchema, streamCountSchema } from './tiers';
import { signedWordSchema } from './word';

const bytes = z.number().min(0).max(Number.MAX_SAFE_INTEGER);
/** A session that only measures a path: never that of a migration. */
const linkSession = nameSchema.startsWith('link-', 'a session that measures a path is called link-...');

/** Lets in, and drops, what releases before this one said beside it. */
function formerly<S extends z.ZodType>(names: readonly string[], schema: S): z.ZodPreprocess<S> {
  return z.preprocess(
    (given) =>
      typeof given === 'object' && given !== null
        ? Object.fromEntries(Object.entries(given).filter(([name]) => !names.includes(name)))
        : given,
    schema,
  );
}

/** By its id alone: where it lies is the host's own knowledge. */
const image = formerly(['path'], imageSpecSchema);
const images = z.array(image).max(MAX_VM_IMAGES).readonly();

const ofMigration = z.strictObject({ migrationId: migrationIdSchema });
const ofVm = ofMigration.extend({ vmId: vmIdSchema });
/** What every activity that uses the link needs to open it, after a restart of the agent too. */
const link = ofVm.extend({
  destination: destinationSchema,
  options: migrationOptionsSchema,
  /** A warm-up and a plan read a VM without a claim on it; without a mode there has to be one. */
  mode: z.enum(['migrate', 'warm', 'plan']).optional(),
});
const handOver = link.extend({ destinationHost: hostIdSchema });
const handOverRoots = handOver.extend({ roots: rootsSchema });
const started = { start: levelAndStreamsSchema, link: linkMeasurementSchema };

const SOURCE_INPUTS = {
  prepareSource: ofVm.extend({
    claim: z.boolean(),
    /** Where it goes, for the hooks of its host. */
    destinationHost: hostIdSchema.optional(),
    force: z.boolean().optional(),
    ahead: migrationOptionsSchema.optional(),
  }),
  establishStreams: link,
  detectTier: link,
  computePlan: formerly(
    ['guest'],
    link.extend({
      images,
      link: linkMeasurementSchema,
      level: z.int().min(-7).max(22),
      /** Of a plan alone, for the forecast of a guest that runs: what has gone by since it was asked for, and where its move would start. */
      forecast: z
        .strictObject({ setUpSeconds: z.number().min(0).max(86_400), start: levelAndStreamsSchema })
        .optional(),
    }),
  ),
  transferImage: link.extend({
    image,
    ...started,
    /** Disks that the destination has by now, each with its number in this migration: the image's pages may be found there. */
    disks: z
      .array(formerly(['path'], imageSpecSchema.extend({ number: z.int().min(0).max(MAX_VM_IMAGES) })))
      .max(MAX_VM_IMAGES)
      .optional(),
  }),
  standardTransferImage: link.extend({ image }),
  guestRounds: formerly(
    ['guest'],
    link.extend({
      images,
      /** What DWCP begins with; without it QEMU itself moves the guest. */
      dwcp: z.strictObject(started).optional(),
    }),
  ),
  guestSwitchover: handOver,
  handedOverRoots: ofVm,
  handedOverWord: ofVm,
  releaseGuest: handOver.extend({ taken: takenOverSchema, takenOver: signedWordSchema.optional() }),
  switchover: handOverRoots,
  handOver: handOverRoots,
  release: handOver.extend({ generation: countSchema, takenOver: signedWordSchema.optional() }),
  keepWarm: link.extend({ images }),
  rollBackSource: ofVm.extend({
    destinationAbandoned: z.boolean(),
    /** The destination's word for that. */
    abandoned: signedWordSchema.optional(),
    /** An operator's instead, in the warrant. */
    acceptTwoCopies: z.boolean().optional(),
    note: z.string().max(1000).optional(),
  }),
  closeSource: ofMigration,
  setBandwidthLimit: ofMigration.extend({ bytesPerSecond: bytes }),
  surveyLink: z.strictObject({
    sessionId: linkSession,
    destination: destinationSchema,
    streams: streamCountSchema,
    seconds: z.number().min(1).max(60),
  }),
  connectPeer: z.strictObject({ destination: destinationSchema, streams: streamCountSchema }),
  refreshDictionary: z.strictObject({ vmType: vmTypeSchema }),
} as const;

const DESTINATION_INPUTS = {
  prepareDestination: ofVm.extend({
    vmType: vmTypeSchema.optional(),
    tenant: tenantSchema.optional(),
    uuid: vmUuidSchema.optional(),
    mode: z.enum(['migrate', 'warm']),
    fence: countSchema,
    generation: countSchema,
    sourceHost: hostIdSchema,
    images: z.array(imageSpecSchema).max(MAX_VM_IMAGES),
    allocatedBytes: allocatedBytesSchema.optional(),
    /** Set where the VM is moved while it runs. */
    guest: guestSpecSchema.optional(),
    /** Set where the VM is a guest that does not run. */
    stoppedGuest: stoppedGuestSchema.optional(),
    /** Where the operator wants its disks to lie: a host takes only what its own configuration names (imageRoots). */
    diskMap: diskMapSchema.optional(),
    overwriteDisks: z.boolean().optional(),
    force: z.boolean(),
  }),
  checkBaseline: ofMigration.extend({ imageId: imageIdSchema, useBaseline: z.boolean() }),
  abandonDestination: ofVm.extend({ fence: countSchema, mode: z.enum(['migrate', 'warm']) }),
  takeOver: ofVm.extend({ roots: rootsSchema, handedOver: signedWordSchema.optional() }),
  keepBaselineCopies: z.strictObject({
    vmId: vmIdSchema,
    images: z.array(z.strictObject({ imageId: imageIdSchema })).max(MAX_VM_IMAGES),
  }),
  /** 0 takes this host's own limit. */
  pruneBaselines: z.strictObject({ limitBytes: bytes }),
  grantPeer: z.strictObject({ sourceHost: hostIdSchema }),
  grantLink: z.strictObject({ sessionId: linkSession, sourceHost: hostIdSchema }),
} as const;

const WARRANT_MODES = ['migrate', 'warm', 'plan', 'link', 'upkeep'] as const;
export type WarrantMode = (typeof WARRANT_MODES)[number];

const CONTROL_INPUTS = {
  /** What is wanted of hosts, and by whose word. */
  authorise: z.strictObject({
    mode: z.enum(WARRANT_MODES),
    migrationId: migrationIdSchema.optional(),
    vmId: vmIdSchema.optional(),
    sourceHost: hostIdSchema.optional(),
    destinationHost: hostIdSchema.optional(),
    fence: countSchema.optional(),
    /** What the destination is to prepare for. */
    prepared: DESTINATION_INPUTS.prepareDestination
      .pick({
        vmType: true,
        tenant: true,
        uuid: true,
        generation: true,
        images: true,
        allocatedBytes: true,
        guest: true,
        stoppedGuest: true,
        diskMap: true,
        overwriteDisks: true,
      })
      .optional(),
    /** Signed by an operator. */
    request: signedLineSchema.optional(),
    twoCopies: signedLineSchema.optional(),
    /** Of the same migration. */
    previous: signedLineSchema.optional(),
  }),
  /** All of it but the id becomes labels and values of metrics: words from lists, nothing else. */
  recordOutcome: ofMigration.extend({
    outcome: z.enum(['completed', 'cancelled', 'failed']),
    path: z.enum(['dwcp', 'standard', 'fallback']),
    fallbackReason: z.enum(Object.keys(ERROR_CODES) as [ErrorCode, ...ErrorCode[]]).optional(),
    speedup: z.number().min(0).max(1e9),
    totalSeconds: z.number().min(0).max(1e9),
  }),
  knownHosts: z.undefined(),
} as const;

export const ACTIVITY_INPUTS = { ...SOURCE_INPUTS, ...DESTINATION_INPUTS, ...CONTROL_INPUTS } as const;

export type ActivityName = keyof typeof ACTIVITY_INPUTS;
export const warrantModeSchema = z.enum(WARRANT_MODES);

export type ActivityInput<N extends ActivityName> = z.infer<(typeof ACTIVITY_INPUTS)[N]>;

export type LinkInput = z.infer<typeof link>;
export type HandOverInput = z.infer<typeof handOver>;
