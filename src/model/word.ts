/**
 * What a host says of a hand-over so that others may act on it, whoever carries the message: signed with the key by which the data plane
 * knows it. Signing and believing is src/trust/host-words.ts's.
 */
import { z } from 'zod';
import { hostIdSchema, migrationIdSchema, vmIdSchema } from './ids';

/** The source's: it never starts the VM by itself again. The destination's: it has the VM; it promises never to start it. */
export const WORDS = ['handed_over', 'taken_over', 'abandoned'] as const;
export type Word = (typeof WORDS)[number];

export const wordSchema = z.strictObject({
  word: z.enum(WORDS),
  hostId: hostIdSchema,
  migrationId: migrationIdSchema,
  vmId: vmIdSchema,
});
export type Said = z.infer<typeof wordSchema>;

/** With the certificate of whoever says it. */
export const signedWordSchema = z.string().max(16_000);
