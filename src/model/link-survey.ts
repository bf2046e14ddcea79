/**
 * What `dwcp link` shows: a path as it was measured without a migration.
 */
import { z } from 'zod';
import { type LevelAndStreams, linkMeasurementSchema } from './tiers';

export const linkSurveySchema = z.object({
  link: linkMeasurementSchema.unwrap().strip(),
  /** Mean difference between one round trip and the next. */
  jitterMs: z.number(),
  streams: z.number(),
  oneStreamBytesPerSecond: z.number(),
  manyStreamsBytesPerSecond: z.number(),
  /** What the source's kernel takes the rate of delivery of the many for; 0 where it does not tell. */
  deliveryBytesPerSecond: z.number(),
  /** Share of the one stream's time that the destination's receive window held it; absent where the kernel does not tell. */
  windowLimitedShare: z.number().optional(),
  /** How the data plane's keys were agreed on; absent where it is plain TCP. */
  keyExchange: z.string().max(60).optional(),
});
export type LinkSurvey = z.infer<typeof linkSurveySchema>;

/** What the workflow comes to: also what a migration would start with. */
export interface SurveyResult extends LinkSurvey {
  readonly start: LevelAndStreams;
}
