/**
 * Which agent this is: an id that stays with the data folder, and how often an agent has started on it. The id tells two
 * agents apart that were given the same host id; the count makes the numbers of an agent's sessions rise over restarts,
 * whatever its host's clock does. Read while the folder's lock is held.
 */
import { randomUUID } from 'node:crypto';
import { join } from 'node:path';
import { z } from 'zod';
import { readIfThere, writeDurably } from './durable-file';

const instanceSchema = z.strictObject({ instanceId: z.uuid(), starts: z.int().min(0) });
export type Instance = z.infer<typeof instanceSchema>;

/** Sessions of one start have this much room. */
const EPOCHS_A_START = 2 ** 32;

export async function beginInstance(dataDir: string): Promise<Instance> {
  const path = join(dataDir, 'instance.json');
  const text = await readIfThere(path);
  const before = text
    ? instanceSchema.parse(JSON.parse(text.toString('utf8')))
    : { instanceId: randomUUID(), starts: 0 };
  const instance = { ...before, starts: before.starts + 1 };
  await writeDurably(path, JSON.stringify(instance));
  return instance;
}

/** Numbers that rise with each call, and with each start. */
export function epochsOf({ starts }: Instance): () => number {
  let last = starts * EPOCHS_A_START;
  return () => (last += 1);
}
