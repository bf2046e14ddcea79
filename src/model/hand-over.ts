/**
 * What a source writes down with its line `handed_over`: where the VM was handed to, what it consists of, and what a running
 * guest's result is made from. Enough to go on with the hand-over where agent and workflow are gone. It holds a grant, so only
 * the agent's user may read the journal.
 */
import { z } from 'zod';
import { guestResultSchema } from './guest';
import { hostIdSchema, imageIdSchema } from './ids';
import { countSchema, MAX_VM_IMAGES } from './image';
import { imageResultSchema } from './migration';

const pathSchema = z.strictObject({ address: z.string(), port: z.int() });

/** An image's hash over its hashes, in hex; nothing where QEMU itself has brought the image. */
export const rootSchema = z.string().regex(/^[0-9a-f]{0,64}$/, 'a root is written in hex');
export const rootsSchema = z
  .record(imageIdSchema, rootSchema)
  .refine((roots) => Object.keys(roots).length <= MAX_VM_IMAGES, 'more roots than a VM has images');

/** What a destination says that has taken a VM over. */
export const takenOverSchema = z.object({
  generation: countSchema,
  resumedAtMs: z.number().optional(),
  responds: z.boolean().optional(),
});
export type TakenOver = z.infer<typeof takenOverSchema>;

export const handOverSchema = z.strictObject({
  destinationHost: hostIdSchema,
  destination: pathSchema.extend({
    hostId: hostIdSchema,
    furtherPaths: z.array(pathSchema).readonly().optional(),
    grant: z.strictObject({
      purpose: z.enum(['session', 'peer']),
      subject: z.string(),
      holder: hostIdSchema,
      expiresAtMs: z.number(),
      token: z.string(),
    }),
  }),
  /** Roots of the images that both sides have agreed on; none where QEMU itself has brought them. */
  roots: z.record(imageIdSchema, z.string()),
  /** Of a running guest. */
  live: z
    .object({
      pausedAtMs: z.number(),
      /** `pausedMs` is of the pauses before this one. */
      guest: guestResultSchema.omit({ downtimeMs: true, responds: true }),
      images: z.array(imageResultSchema),
    })
    .optional(),
});
export type HandOver = z.infer<typeof handOverSchema>;
