/**
 * What `dwcp link` shows: a path as it was measured without a migration.
 */
import type { LinkMeasurement } from './tiers';

export interface LinkSurvey {
  readonly link: LinkMeasurement;
  /** Mean difference between one round trip and the next. */
  readonly jitterMs: number;
  readonly streams: number;
  readonly oneStreamBytesPerSecond: number;
  readonly manyStreamsBytesPerSecond: number;
}
