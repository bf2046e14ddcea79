/**
 * One finished transfer as the history of paths keeps it: what the path was like, and how many streams carried how much.
 */
import { z } from 'zod';

export const pathRowSchema = z.strictObject({
  /** The destination's address as it is dialled. */
  path: z.string().max(300),
  atMs: z.number(),
  /** Of the day, 0 to 23, local. */
  hour: z.int().min(0).max(23),
  rttMs: z.number().min(0),
  lossRatio: z.number().min(0).max(1).optional(),
  congestionControl: z.string().max(40).optional(),
  /** What was begun with, and what the tuner held in the end. */
  expectedStreams: z.int().min(1),
  streams: z.int().min(1),
  bytesPerSecond: z.number().min(0),
});
export type PathRow = z.infer<typeof pathRowSchema>;
