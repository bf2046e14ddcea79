/**
 * The one border where an error of ours becomes a Temporal failure: its type is the code, its details the report, and
 * whether Temporal may try again by itself comes from the table of codes. Nothing else throws ApplicationFailure.
 */
import { cancellationSignal } from '@temporalio/activity';
import { ApplicationFailure, ApplicationFailureCategory } from '@temporalio/common';
import { type DwcpErrorFields, toDwcpError } from '../src/model/errors';

export function toFailure(error: unknown, fields: Pick<DwcpErrorFields, 'side' | 'phase'> = {}): ApplicationFailure {
  const reason = toDwcpError(error, 'INTERNAL', fields);
  return ApplicationFailure.create({
    message: reason.message,
    type: reason.code,
    nonRetryable: reason.spec.retry !== 'transient',
    details: [{ ...fields, ...reason.report() }],
    ...(reason.code === 'SUPERSEDED' && { category: ApplicationFailureCategory.BENIGN }),
    ...(reason.cause instanceof Error && { cause: reason.cause }),
  });
}

type Activity = (...args: never[]) => Promise<unknown>;

/**
 * Wraps every activity of a record: an error leaves it as a failure with its code; where the activity was told to stop,
 * whatever it threw on the way out leaves as the reason for stopping, which keeps pause, reset and shutdown apart from
 * cancel: Temporal takes any error of a cancelled activity for its answer to that.
 */
export function withFailures<T extends Readonly<Record<string, Activity>>>(
  activities: T,
  fields: Pick<DwcpErrorFields, 'side'>,
): T {
  const wrapped = Object.entries(activities).map(([name, run]) => [
    name,
    async (...args: never[]): Promise<unknown> => {
      try {
        return await run(...args);
      } catch (error) {
        const signal = cancellationSignal();
        if (signal.aborted) throw signal.reason;
        throw toFailure(error, fields);
      }
    },
  ]);
  return Object.fromEntries(wrapped) as T;
}
