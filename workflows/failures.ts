/**
 * What a workflow knows of a failure: its code, from the activity's failure or from the kind of timeout. The table of
 * codes then says whether to go on, fall back, park or fail.
 */
import {
  ActivityFailure,
  ApplicationFailure,
  CancelledFailure,
  isCancellation,
  TimeoutFailure,
} from '@temporalio/workflow';
import type { z } from 'zod';
import { DwcpError, errorReportSchema, fromReport, messageOf } from '../src/model/errors';
import { compileMigrationOptions, type MigrationOptions } from '../src/model/options';

/** Thrown into the flow where the operator aborts a parked migration. */
export class AbortedByOperator extends Error {
  readonly acceptTwoCopies: boolean;

  constructor(reason: string, acceptTwoCopies: boolean) {
    super(reason);
    this.acceptTwoCopies = acceptTwoCopies;
  }
}

export function toCoded(error: unknown): DwcpError {
  if (error instanceof DwcpError) return error;
  if (error instanceof AbortedByOperator) return new DwcpError('CANCELLED', error.message, { side: 'control' });
  if (isCancellation(error)) return new DwcpError('CANCELLED', 'The migration was cancelled', { side: 'control' });
  const cause = error instanceof ActivityFailure ? error.cause : error;
  if (cause instanceof ApplicationFailure) return ofApplication(cause);
  if (cause instanceof TimeoutFailure) {
    return new DwcpError('HOST_UNAVAILABLE', ofTimeout(cause, error), { side: 'control' });
  }
  if (cause instanceof CancelledFailure)
    return new DwcpError('CANCELLED', 'The migration was cancelled', { side: 'control' });
  return new DwcpError('INTERNAL', messageOf(error), { side: 'control' });
}

/** Where the activity of each failure was to run. */
const hosts = new WeakMap<Error, string>();

/** Keeps in mind on which host an activity was to run, for what is said of its failure. */
export function atHost<T>(hostId: string, running: Promise<T>): Promise<T> {
  running.catch((error: unknown) => {
    if (error instanceof Error) hosts.set(error, hostId);
  });
  return running;
}

/** What an activity that ran out of its time has shown of its host: that nobody took it, or that whoever took it fell silent. */
function ofTimeout({ timeoutType }: TimeoutFailure, error: unknown): string {
  const work = error instanceof ActivityFailure ? error.activityType : 'the work';
  const agent = `agent of host ${(error instanceof Error && hosts.get(error)) || 'unknown'}`;
  switch (timeoutType) {
    case 'HEARTBEAT':
      return `The ${agent} fell silent in the midst of ${work}`;
    case 'START_TO_CLOSE':
      return `The ${agent} did not end ${work} in the time it has`;
    default:
      return `No ${agent} took ${work} in time`;
  }
}

function ofApplication(failure: ApplicationFailure): DwcpError {
  const report = errorReportSchema.safeParse(failure.details?.[0]);
  return report.success ? fromReport(report.data) : new DwcpError('INTERNAL', failure.message);
}

/** The failure that ends a workflow with a code. */
export function failWith(error: DwcpError): ApplicationFailure {
  return ApplicationFailure.create({
    message: error.message,
    type: error.code,
    nonRetryable: true,
    details: [error.report()],
  });
}

/** Checks a workflow's argument. @throws a failure INVALID_INPUT that names what is wrong, which ends the workflow */
export function parseArgument<T>(schema: z.ZodType<T>, value: unknown): T {
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const issues = parsed.error.issues.map((issue) => `${issue.path.join('.') || 'request'}: ${issue.message}`);
  throw failWith(new DwcpError('INVALID_INPUT', issues.join('; '), { side: 'control' }));
}

/** The options of a request, defaults filled. @throws a failure INVALID_INPUT */
export function parseOptions(given: Partial<MigrationOptions> | undefined): MigrationOptions {
  try {
    return compileMigrationOptions(given ?? {});
  } catch (error) {
    throw failWith(new DwcpError('INVALID_INPUT', messageOf(error), { side: 'control' }));
  }
}
