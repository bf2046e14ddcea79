/**
 * Queries, signals and updates of a migration: their names and types, for workflows and clients alike.
 */
import { defineQuery, defineSignal, defineUpdate } from '@temporalio/workflow';
import type { ImageProgress, MigrationProgress } from '../src/model/migration';
import { MESSAGES } from '../src/model/names';

export interface RetryStep {
  readonly note?: string;
  readonly maxDowntimeMs?: number;
  readonly autoConverge?: boolean;
}

export interface AbortMigration {
  readonly reason?: string;
  readonly acceptTwoCopies?: boolean;
  readonly authorisation?: string;
}

export const progressQuery = defineQuery<MigrationProgress>(MESSAGES.progressQuery);
export const reportProgressSignal = defineSignal<[ImageProgress]>(MESSAGES.reportProgress);
export const cancelSignal = defineSignal(MESSAGES.cancelSignal);
export const retryStepUpdate = defineUpdate<string, [RetryStep?]>(MESSAGES.retryStep);
export const abortMigrationUpdate = defineUpdate<string, [AbortMigration?]>(MESSAGES.abortMigration);
export const setBandwidthLimitUpdate = defineUpdate<string, [{ bytesPerSecond: number }]>(MESSAGES.setBandwidthLimit);
