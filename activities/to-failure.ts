/**
 * The one border where an error of ours becomes a Temporal failure: its type is the code, its details the report, and
 * whether Temporal may try again by itself comes from the table of codes. Nothing else throws ApplicationFailure.
 */
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
