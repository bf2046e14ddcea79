/**
 * Where a VM was handed to, kept on disk from just before the hand-over until it is settled: what the sweep needs where
 * the workflow is gone. Holds a short-lived grant, so only the agent's user may read it.
 */
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { guestResultSchema } from '../model/guest';
import { hostIdSchema, imageIdSchema } from '../model/ids';
import { imageResultSchema } from '../model/migration';
import { readIfThere, writeDurably } from '../store/durable-file';

const outgoingSchema = z.strictObject({
  destinationHost: hostIdSchema,
  destination: z.strictObject({
    address: z.string(), port: z.int(),
    furtherPaths: z.array(z.strictObject({ address: z.string(), port: z.int() })).readonly().optional(),
    grant: z.strictObject({ purpose: z.enum(['session', 'peer']), subject: z.string(), expiresAtMs: z.number(), token: z.string() }),
  }),
  roots: z.record(imageIdSchema, z.string()),
  /** Of a running guest: what its result is made from, where the agent that measured it is gone. */
  live: z.object({ pausedAtMs: z.number(), guest: guestResultSchema.omit({ downtimeMs: true, responds: true }), images: z.array(imageResultSchema) }).optional(),
});
export type Outgoing = z.infer<typeof outgoingSchema>;

function pathOf(dataDir: string, migrationId: string): string {
  return join(dataDir, 'outgoing', `${migrationId}.json`);
}

export async function writeOutgoing(dataDir: string, migrationId: string, outgoing: Outgoing): Promise<void> {
  await writeDurably(pathOf(dataDir, migrationId), JSON.stringify(outgoing));
}

export async function readOutgoing(dataDir: string, migrationId: string): Promise<Outgoing | undefined> {
  const text = await readIfThere(pathOf(dataDir, migrationId));
  return text && outgoingSchema.parse(JSON.parse(text.toString('utf8')));
}

export async function removeOutgoing(dataDir: string, migrationId: string): Promise<void> {
  await rm(pathOf(dataDir, migrationId), { force: true });
}
