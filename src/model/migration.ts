/**
 * What goes in and out of a migration: request, progress, result, as schemas. The contract's JSON Schemas
 * (contract/schemas) and its Go structs are made from and checked against these; only optional fields are ever added.
 */
import { z } from 'zod';
import { errorReportSchema } from './errors';
import { guestProgressSchema, guestResultSchema } from './guest';
import { guestConsolesSchema } from './guest-console';
import { hostIdSchema, imageIdSchema, imageKindSchema, migrationIdSchema, vmIdSchema } from './ids';
import { migrationOverridesSchema } from './option-schemas';
import { PHASE_NAMES, type Phase } from './phases';
import { migrationPlanSchema } from './plan';
import { signedLineSchema } from './signed-line';

const phaseSchema = z.enum(PHASE_NAMES as [Phase, ...Phase[]]);

/** The argument of migrateVm, warmBaseline and planMigration. */
export const migrationRequestSchema = z.strictObject({
  schemaVersion: z.literal(1).default(1),
  vmId: vmIdSchema,
  sourceHost: hostIdSchema,
  destinationHost: hostIdSchema,
  /** Names this migration; asking again under the same one is the same request. Without it the run's id serves. */
  migrationId: migrationIdSchema.optional(),
  options: migrationOverridesSchema.optional(),
  /** The same, signed by whoever asks: src/model/warrant.ts. */
  authorisation: signedLineSchema.optional(),
});
export type MigrationRequest = z.input<typeof migrationRequestSchema>;
export type ParsedMigrationRequest = z.infer<typeof migrationRequestSchema>;

export const linkSchema = z.object({
  rttMs: z.number(),
  bandwidthBytesPerSecond: z.number(),
  lossRatio: z.number().optional(),
  congestionControl: z.string().optional(),
  /** How many streams the path was expected to need; what it came to is each image's `streams`. */
  expectedStreams: z.number().optional(),
  expectedBecause: z.string().optional(),
});

/** Where the bytes on the link went, by encoding and without framing, and the encoder's time, of all threads. Of the last attempt. */
const encoderReportSchema = z.object({
  bytes: z.object({
    full: z.number(),
    pages: z.number(),
    runDelta: z.number(),
    oldPages: z.number(),
    references: z.number(),
    heads: z.number(),
  }),
  /** What remains after deltas and references, by how it was packed. */
  packings: z.object({
    stored: z.number(),
    zstd: z.number(),
    dictionary: z.number(),
    numbers: z.number(),
    hex: z.number(),
    brotli: z.number(),
  }),
  times: z.object({ readMs: z.number(), chooseMs: z.number(), deltaMs: z.number(), packMs: z.number() }),
});
export type EncoderReport = z.infer<typeof encoderReportSchema>;

export const imageResultSchema = z.object({
  imageId: imageIdSchema,
  kind: imageKindSchema,
  totalBytes: z.number(),
  /** What the transfer put on the link for this image, counted by the program: frames and manifests, without TCP/IP. */
  linkBytes: z.number(),
  ratio: z.number(),
  seconds: z.number(),
  began: z.enum(['empty', 'baseline', 'resumed']),
  /** Both sides' roots were equal. False where QEMU itself brought the image of a running guest. */
  verified: z.boolean(),
  root: z.string(),
  streams: z.number(),
  level: z.number(),
  batchBytes: z.number(),
  /** Of the blocks the destination held in some version, the share that did not have to be sent in full, 0 to 1. */
  deltaHitRate: z.number(),
  blocks: z.object({
    zero: z.number(),
    unchanged: z.number(),
    full: z.number(),
    pages: z.number(),
    runDelta: z.number(),
    oldPages: z.number(),
    references: z.number(),
    resent: z.number(),
    refused: z.number(),
  }),
  encoder: encoderReportSchema,
  attempts: z.number(),
});
export type ImageResult = z.infer<typeof imageResultSchema>;

const verdictSchema = z.object({ met: z.boolean(), reason: z.string() });

export const migrationResultSchema = z.object({
  migrationId: migrationIdSchema,
  vmId: vmIdSchema,
  sourceHost: hostIdSchema,
  destinationHost: hostIdSchema,
  outcome: z.enum(['completed', 'cancelled']),
  /** How the bytes went: DWCP, or the standard transfer, asked for or fallen back to. */
  path: z.enum(['dwcp', 'standard', 'fallback']),
  fallbackReason: errorReportSchema.optional(),
  tier: z.enum(['local', 'regional', 'global']).optional(),
  link: linkSchema.optional(),
  plan: migrationPlanSchema.optional(),
  images: z.array(imageResultSchema),
  /** Of a guest that was moved while it ran. */
  guest: guestResultSchema.optional(),
  /** Where its consoles are at the destination, once it runs there. */
  consoles: guestConsolesSchema.optional(),
  totalSeconds: z.number(),
  totalBytes: z.number(),
  linkBytes: z.number(),
  ratio: z.number(),
  /** Times faster than the standard transfer is expected to be on the measured link. */
  speedup: z.number(),
  goals: z.object({ speedup: verdictSchema, transferRate: verdictSchema }),
});
export type MigrationResult = z.infer<typeof migrationResultSchema>;

export const parkedSchema = z.object({
  error: errorReportSchema,
  step: z.string(),
  sinceMs: z.number(),
});
export type Parked = z.infer<typeof parkedSchema>;

/** A progress report of one image: what an agent's heartbeat carries, at most some hundred bytes. */
export const imageProgressSchema = z.object({
  v: z.literal(1),
  imageId: imageIdSchema,
  totalBytes: z.number(),
  doneBytes: z.number(),
  linkBytes: z.number(),
  bytesPerSecond: z.number(),
  streams: z.number(),
  level: z.number(),
  /** Why it is this zstd level. */
  levelReason: z.string().optional(),
  batchBytes: z.number(),
  rttMs: z.number(),
  etaMs: z.number().optional(),
  /** Time spent on this image so far, over all attempts. */
  elapsedMs: z.number().optional(),
  /** What the first attempt found at the destination. */
  began: z.enum(['empty', 'baseline', 'resumed']).optional(),
  /** Blocks verified at the destination so far: an attempt after a crash of this agent counts on from here. */
  verifiedBlocks: z.number(),
  /** Of a running guest, with its memory: where it is on its way. */
  guest: guestProgressSchema.optional(),
});
export type ImageProgress = z.infer<typeof imageProgressSchema>;

/** The answer of the `progress` query. */
export const migrationProgressSchema = z.object({
  migrationId: migrationIdSchema,
  vmId: vmIdSchema,
  sourceHost: hostIdSchema,
  destinationHost: hostIdSchema,
  phase: phaseSchema,
  path: z.enum(['dwcp', 'standard', 'fallback']),
  pastReturn: z.boolean(),
  cancelRequested: z.boolean(),
  images: z.array(imageProgressSchema),
  plan: migrationPlanSchema.optional(),
  tier: z.enum(['local', 'regional', 'global']).optional(),
  parked: parkedSchema.optional(),
});
export type MigrationProgress = z.infer<typeof migrationProgressSchema>;

/** Arguments of the operator's messages. */
export const retryStepSchema = z
  .object({
    note: z.string().max(1000).optional(),
    /** For a guest that does not converge: a longer pause is allowed from now on. */
    maxDowntimeMs: z.number().min(0).max(3_600_000).optional(),
    /** It may be slowed down, or may not. */
    autoConverge: z.boolean().optional(),
  })
  .default({});
export const abortMigrationSchema = z
  .object({
    reason: z.string().max(1000).optional(),
    /** Only while a hand-over is in doubt: takes the VM back although the destination may run it. Two copies are the risk. */
    acceptTwoCopies: z.boolean().optional(),
    /** acceptTwoCopies, signed by whoever says it. */
    authorisation: signedLineSchema.optional(),
  })
  .default({});
export const setBandwidthLimitSchema = z.object({ bytesPerSecond: z.number().min(0) });
