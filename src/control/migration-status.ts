/**
 * What a migration is at, or came to, as its workflow and the heartbeats of its activities say. Which migration: orchestrator.ts.
 */
import {
  type WorkflowClient,
  WorkflowFailedError,
  type WorkflowHandle,
  WorkflowUpdateFailedError,
} from '@temporalio/client';
import { ApplicationFailure, type Payload } from '@temporalio/common';
import { z } from 'zod';
import { DwcpError, errorReportSchema, fromReport, toDwcpError } from '../model/errors';
import {
  type ImageProgress,
  imageProgressSchema,
  type MigrationProgress,
  type MigrationResult,
  migrationProgressSchema,
  migrationResultSchema,
} from '../model/migration';
import { MESSAGES } from '../model/names';
import { readAttribute } from './search-attributes';

export type MigrationState = 'running' | 'completed' | 'failed' | 'cancelled' | 'terminated';

export interface MigrationStatus {
  readonly migrationId: string;
  readonly workflowId: string;
  readonly runId: string;
  readonly state: MigrationState;
  /** While it runs, or where it could still be asked. */
  readonly progress?: MigrationProgress;
  /** What agents do right now, newer than `progress`: from the heartbeats of running activities. */
  readonly live: readonly ImageProgress[];
  readonly result?: MigrationResult;
  readonly error?: DwcpError;
}

interface RawDescription {
  readonly pendingActivities?:
    | readonly { readonly heartbeatDetails?: { readonly payloads?: readonly Payload[] | null } | null }[]
    | null;
}

/** One image, or all of a guest that is moved while it runs. */
const reportSchema = z.union([
  imageProgressSchema,
  z.object({ v: z.literal(1), images: z.array(imageProgressSchema) }),
]);

/** The last heartbeats of running activities that report an image's progress. */
async function liveProgress(raw: unknown, client: WorkflowClient): Promise<ImageProgress[]> {
  const codecs = client.options.loadedDataConverter.payloadCodecs;
  const reports = ((raw as RawDescription).pendingActivities ?? []).map(async (activity): Promise<ImageProgress[]> => {
    let payloads = [...(activity.heartbeatDetails?.payloads ?? [])].slice(0, 1);
    try {
      for (const codec of codecs.toReversed()) payloads = await codec.decode(payloads);
      const data = payloads[0]?.data;
      if (!data) return [];
      const parsedProgress = reportSchema.safeParse(JSON.parse(Buffer.from(data).toString('utf8')));
      if (!parsedProgress.success) return [];
      return 'images' in parsedProgress.data ? parsedProgress.data.images : [parsedProgress.data];
    } catch {
      return [];
    }
  });
  return (await Promise.all(reports)).flat();
}

/** The coded error that ended a workflow. */
export function failureOf(error: unknown): DwcpError {
  const cause =
    error instanceof WorkflowFailedError || error instanceof WorkflowUpdateFailedError ? error.cause : error;
  if (cause instanceof ApplicationFailure) {
    const report = errorReportSchema.safeParse(cause.details?.[0]);
    if (report.success) return fromReport(report.data);
  }
  if (cause instanceof Error && cause.name === 'CancelledFailure')
    return new DwcpError('CANCELLED', 'The migration was cancelled');
  return toDwcpError(cause, 'MIGRATION_FAILED');
}

/** What a run of a migration's workflow is at, or came to. */
export async function statusOf(handle: WorkflowHandle): Promise<MigrationStatus> {
  const described = await handle.describe();
  const { workflowId, runId, status } = described;
  const memo = described.memo?.migrationId;
  const migrationId =
    typeof memo === 'string' ? memo : (readAttribute(described.typedSearchAttributes, 'MigrationId') ?? workflowId);
  const live = await liveProgress(described.raw, handle.client);
  const common = { migrationId, workflowId, runId, live };
  if (status.name === 'RUNNING') {
    const progress = await handle.query<unknown>(MESSAGES.progressQuery).then(
      (value) => migrationProgressSchema.parse(value),
      () => undefined,
    );
    return { ...common, state: 'running', ...(progress && { progress }) };
  }
  if (status.name === 'TERMINATED')
    return {
      ...common,
      state: 'terminated',
      error: new DwcpError('MIGRATION_FAILED', 'It was terminated; the agents’ sweep cleans up'),
    };
  try {
    return { ...common, state: 'completed', result: migrationResultSchema.parse(await handle.result()) };
  } catch (error) {
    const failure = failureOf(error);
    return { ...common, state: failure.code === 'CANCELLED' ? 'cancelled' : 'failed', error: failure };
  }
}
