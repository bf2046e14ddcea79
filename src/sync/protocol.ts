/**
 * The requests of a session's control connection, as schemas: what the source asks, what the destination answers.
 * Framing is src/transport's; the order of things is docs/migration-protocol.md's.
 *
 *   open_image    {imageId, useBaseline} (+ a proof)  -> {image, state, root, zero, bases, pageKey}   opens the working image;
 *                                             or {prove: {nonce, blocks}}: not before its baseline is proven
 *   manifest      {image, first, count}       -> payload: packed hashes of those blocks
 *   page_hashes   {image} + u32 list          -> payload: 16 x 8 bytes a block, keyed
 *   references    {key, disks, files}         -> {accepted}   what pages may be referred to, by their addresses
 *   bases         {} + page hashes, a sample   -> {bases}      bases of the destination that are like it
 *   base_pages    {name, first, count}        -> page hashes, keyed
 *   dictionary    {hash} (+ it)               -> {active}   frames may be packed with it from now on; false: it is to be sent along
 *   finish_image  {image, root}               -> {}    all durable, roots equal
 *   guest_ready   {}                       -> {}    its QEMU stands and has taken the set-up that `prepare` brought; else GUEST_REFUSED
 *   guest_begin   {sectionId} + set-up        -> {}    a running guest's QEMU is started and fed from here on
 *   guest_left    {}                          -> {bytes}   of the RAM image, that its QEMU has not been given yet
 *   guest_load    {commandBytes, totalBytes} + zstd  -> {}    its device state; all images are finished
 *   take_over     {vmId, roots}               -> {generation, resumedAtMs, responds}    the point of no return
 *   keep          {}                          -> {}    warm-up: what is verified becomes the baseline
 *   prepare       {record: DirectRecord}      -> {}    makes a direct session; the library's adapter only
 *   install_image {imageId}                   -> {}    direct sessions only
 *   train         {}                          -> {bytes, spanMs}   arrival of the last packet train
 *   abandon       {vmId, fence}               -> {}    promises not to start the VM; ALREADY_PAST_RETURN where it is too late
 */
import { z } from 'zod';
import { HASH_BYTES } from '../encoder/hash';
import { keyedHash } from '../encoder/keyed-hash';
import { DwcpError, misfitOf } from '../model/errors';
import { rootsSchema } from '../model/hand-over';
import { baseNameSchema, hostIdSchema, imageIdSchema, migrationIdSchema, vmIdSchema } from '../model/ids';
import { imageSpecSchema, MAX_IMAGE_BYTES, MAX_IMAGES } from '../model/image';
import type { Message } from '../transport/control-channel';

/** Blocks whose hashes travel in one answer: 1 MiB of them, 4 GiB of image. */
export const MANIFEST_BLOCKS = 65_536;
export const MAX_PAGE_HASH_BLOCKS = 64;

/** A plain PC has an eighth of a megabyte. */
export const MAX_DEVICE_STATE_BYTES = 64 * 1024 * 1024;

const imageNumber = z.int().min(0).max(65_535);
const hashKey = z.string().regex(/^[0-9a-f]{64}$/);

export const openImageSchema = z.looseObject({ imageId: imageIdSchema, useBaseline: z.boolean() });
/** What a working image began with. */
const workingState = z.enum(['empty', 'baseline', 'resumed']);
export type WorkingState = z.infer<typeof workingState>;
export const openedImageSchema = z.looseObject({
  image: imageNumber,
  state: workingState,
  root: z.string().max(64),
  /** True where every block is zero: no manifest needs to travel. */
  zero: z.boolean(),
  /** True where there are bases that the VM may refer to: only then is it worth asking which. */
  bases: z.boolean(),
  /** Page hashes that cross for this migration are made with it. */
  pageKey: hashKey,
});
/** Blocks that a baseline is proven by, at most. */
export const MAX_PROOF_BLOCKS = 64;
export const challengeSchema = z.strictObject({
  nonce: hashKey,
  blocks: z
    .array(
      z
        .int()
        .min(0)
        .max(2 ** 31 - 1),
    )
    .min(1)
    .max(MAX_PROOF_BLOCKS),
});
export type Challenge = z.infer<typeof challengeSchema>;
export type OpenedImage = z.infer<typeof openedImageSchema>;
export const openAnswerSchema = z.union([
  z.looseObject({ prove: challengeSchema }).transform(({ prove }) => ({ challenge: prove })),
  openedImageSchema.transform((opened) => ({ opened })),
]);

/**
 * What answers a challenge: of each block a hash of its number (u32) and its hash, 16 bytes, with the nonce as key.
 * @param hashes of these blocks, one behind the other
 */
export function proofOf(nonce: Buffer, blocks: readonly number[], hashes: Buffer): Buffer {
  const number = Buffer.alloc(4);
  return Buffer.concat(
    blocks.map((block, index) => {
      number.writeUInt32BE(block);
      return keyedHash(nonce, number, hashes.subarray(index * HASH_BYTES, (index + 1) * HASH_BYTES));
    }),
  );
}
export const manifestRequestSchema = z.looseObject({
  image: imageNumber,
  first: z.int().min(0),
  count: z.int().min(1).max(MANIFEST_BLOCKS),
});
export const pageHashesSchema = z.looseObject({ image: imageNumber });
const address = z
  .int()
  .min(0)
  .max(2 ** 45);
export const referencesSchema = z.looseObject({
  /** Samples of files are made with it. */
  key: hashKey,
  disks: z.array(z.strictObject({ image: imageNumber, from: address })).max(MAX_IMAGES),
  files: z
    .array(
      z.strictObject({
        path: z.string().max(4096),
        sizeBytes: z.int().min(1),
        from: address,
        sample: z.string().max(64),
      }),
    )
    .max(16),
});
/** For each file whether it is the same here. */
export const referencesAnsweredSchema = z.looseObject({ accepted: z.array(z.boolean()).max(16) });
/** Page hashes of a base in one answer. */
export const MAX_BASE_PAGES = 65_536;
/** Of a sample of page hashes. */
export const MAX_SAMPLE_BYTES = 8192;
export const basesOfferedSchema = z.looseObject({
  bases: z
    .array(
      z.strictObject({
        name: baseNameSchema,
        /** A keyed hash of its root. */
        mark: z.string().max(64),
        sizeBytes: z.int().min(1).max(MAX_IMAGE_BYTES),
        from: address,
      }),
    )
    .max(16),
});
export const basePagesSchema = z.looseObject({
  name: baseNameSchema,
  first: z.int().min(0),
  count: z.int().min(1).max(MAX_BASE_PAGES),
});
export const dictionarySchema = z.looseObject({ hash: z.string().regex(/^[0-9a-f]{32}$/) });
export const dictionaryAnsweredSchema = z.looseObject({ active: z.boolean() });
export const finishImageSchema = z.looseObject({ image: imageNumber, root: z.string().min(1).max(64) });
export const takeOverSchema = z.looseObject({ vmId: vmIdSchema, roots: rootsSchema });
export { type TakenOver, takenOverSchema } from '../model/hand-over';
export const guestBeginSchema = z.looseObject({ sectionId: z.int().min(0) });
export const guestLeftSchema = z.looseObject({ bytes: z.number().min(0) });
/** The payload is both, one behind the other, packed: nearly all of a device state is zeros. */
export const guestLoadSchema = z.looseObject({
  commandBytes: z.int().min(0).max(65_536),
  totalBytes: z.int().min(1).max(MAX_DEVICE_STATE_BYTES),
});
/** All that a peer may say of a session of its own: images and their sizes. What runs, and where things lie, this host knows. */
export const prepareSchema = z.looseObject({
  record: z.strictObject({
    migrationId: migrationIdSchema,
    vmId: vmIdSchema,
    mode: z.literal('direct'),
    fence: z.literal(0),
    generation: z.literal(0),
    sourceHost: hostIdSchema,
    images: z
      .array(imageSpecSchema)
      .min(1)
      .max(MAX_IMAGES)
      .refine(
        (images) => new Set(images.map(({ imageId }) => imageId)).size === images.length,
        'an image is named twice',
      ),
  }),
});
export const installImageSchema = z.looseObject({ imageId: imageIdSchema });
export const trainSchema = z.looseObject({ bytes: z.number().min(0), spanMs: z.number().min(0) });
export const abandonSchema = z.looseObject({ vmId: vmIdSchema, fence: z.int().min(0) });

/** A message's body in the shape asked for. @throws PROTOCOL_VIOLATION */
export function readBody<T>(schema: z.ZodType<T>, message: Message): T {
  const parsed = schema.safeParse(message.body);
  if (parsed.success) return parsed.data;
  throw new DwcpError('PROTOCOL_VIOLATION', `A message is malformed at ${misfitOf(parsed.error)}`);
}
