/**
 * What `dwcp link` shows: a path as it was measured without a migration.
 */
import type { LevelAndStreams, LinkMeasurement } from './tiers';

export interface LinkSurvey {
  readonly link: LinkMeasurement;
  /** Mean difference between one round trip and the next. */
  readonly jitterMs: number;
  readonly streams: number;
  readonly oneStreamBytesPerSecond: number;
  readonly manyStreamsBytesPerSecond: number;
  /** What the source's kernel takes the rate of delivery of the many for; 0 where it does not tell. */
  readonly deliveryBytesPerSecond: number;
  /** Share of the one stream's time that the destination's receive window held it; absent where the kernel does not tell. */
  readonly windowLimitedShare?: number;
}

/** What the workflow comes to: also what a migration would start with. */
export interface SurveyResult extends LinkSurvey {
  readonly start: LevelAndStreams;
}
