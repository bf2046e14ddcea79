/**
 * What is known of a hand-over whose answer did not come: only some answers say for certain that it has not happened.
 */
import type { ErrorCode } from '../../model/error-codes';
import { DwcpError, toDwcpError } from '../../model/errors';

/** Answers that are given before the point of no return only. Anything else leaves it open on which side of it we are. */
const NOT_TAKEN_OVER: ReadonlySet<ErrorCode> = new Set(['ABANDONED', 'FENCED']);

/** What a failed attempt at a hand-over means. */
export function inDoubtUnlessRefused(error: unknown, vmId: string): DwcpError {
  const reason = toDwcpError(error, 'SESSION_LOST');
  if (reason.code === 'INTEGRITY_MISMATCH')
    return new DwcpError('ABANDONED', `The destination does not take ${vmId} over: ${reason.message}`, {
      phase: 'switchover',
      side: 'destination',
      cause: reason,
    });
  if (NOT_TAKEN_OVER.has(reason.code)) return reason;
  return new DwcpError(
    'HANDOVER_IN_DOUBT',
    `The destination has not said whether it took ${vmId} over: ${reason.message}`,
    { phase: 'switchover', side: 'source', cause: reason },
  );
}
