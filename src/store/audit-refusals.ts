/** Writes refusals down, so many a minute, and counts the rest: a log that anybody can fill is none. */
import type { AuditDetails, AuditLog } from './audit-log';

const REFUSALS_A_MINUTE = 60;
const MINUTE_MS = 60_000;

export type WriteRefusal = (details: AuditDetails) => void;

export function refusalsOf(audit: Pick<AuditLog, 'write'>): WriteRefusal {
  let [minute, refusals, more] = [0, 0, 0];
  return (details) => {
    const now = Math.floor(Date.now() / MINUTE_MS);
    if (now !== minute) {
      if (more > 0) audit.write('more_refused', { count: more });
      [minute, refusals, more] = [now, 0, 0];
    }
    refusals += 1;
    if (refusals > REFUSALS_A_MINUTE) more += 1;
    else audit.write('refused', details);
  };
}
