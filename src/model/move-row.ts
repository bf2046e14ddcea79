/**
 * One move of a running guest as its source remembers it: what it cost, and what had been expected of its pause. Experience for the
 * forecast of the next (guest-forecast.ts), never state.
 */
import { z } from 'zod';
import { hostIdSchema, vmIdSchema } from './ids';

export const moveRowSchema = z.strictObject({
  vmId: vmIdSchema,
  destinationHost: hostIdSchema,
  atMs: z.number(),
  rttMs: z.number().min(0),
  /** What the rule of rounds said when it let the guest be paused, and what the pause came to. */
  expectedDowntimeMs: z.number().min(0),
  downtimeMs: z.number().min(0),
  /** From the first byte to the last, all images; and what the link alone and the encoder alone would have taken, whichever is more. */
  seconds: z.number().min(0),
  leastSeconds: z.number().min(0),
  memory: z.strictObject({
    began: z.enum(['empty', 'baseline', 'resumed']),
    totalBytes: z.number().min(0),
    linkBytes: z.number().min(0),
  }),
});
export type MoveRow = z.infer<typeof moveRowSchema>;

/** Older than that a host may be another. */
const MOST_ROWS = 5;

/** Too short to say anything of how fast a host is. */
const LEAST_SECONDS = 0.5;
/** Of a move where nothing else goes on: 72 % of a link of 100 Mbit/s (bench live, 15.0 s for 111 MB, set-up and end left out). */
const USUAL_SLOWNESS = 1.25;

/** How much longer pauses have been than the rule expected: the middle one of the last moves; 1 where there are none. */
export function downtimeFactor(rows: readonly MoveRow[]): number {
  const known = rows.filter(({ expectedDowntimeMs }) => expectedDowntimeMs > 0).slice(-MOST_ROWS);
  return middle(known.map(({ downtimeMs, expectedDowntimeMs }) => downtimeMs / expectedDowntimeMs)) ?? 1;
}

/** How much longer moves have taken than link or encoder alone would have: what goes on beside them, at either end, shows in that. */
export function slownessOf(rows: readonly MoveRow[]): number {
  const known = rows.filter(({ leastSeconds }) => leastSeconds >= LEAST_SECONDS).slice(-MOST_ROWS);
  return middle(known.map(({ seconds, leastSeconds }) => Math.max(1, seconds / leastSeconds))) ?? USUAL_SLOWNESS;
}

function middle(values: readonly number[]): number | undefined {
  const sorted = [...values].sort((a, b) => a - b);
  const [low, high] = [sorted[(sorted.length - 1) >> 1], sorted[sorted.length >> 1]];
  return low === undefined || high === undefined ? undefined : (low + high) / 2;
}

/** What of its memory crossed the link in its last move that began as this one will; undefined where there was none. */
export function memoryShareBefore(
  rows: readonly MoveRow[],
  vm: string,
  began: MoveRow['memory']['began'],
): number | undefined {
  const last = rows.findLast(({ vmId, memory }) => vmId === vm && memory.began === began && memory.totalBytes > 0);
  return last && last.memory.linkBytes / last.memory.totalBytes;
}
