/**
 * The real SDK as the simulation uses it: the workflow runtime (scopes, conditions, handlers, commands), the activity's
 * context, the converters of payloads and failures. What the SDK leaves to its native core and to the server is the rest
 * of this folder.
 */
import { AsyncLocalStorage } from 'node:async_hooks';
import './async-context';
import * as activitySdk from '@temporalio/activity';
import * as commonSdk from '@temporalio/common';
import { optionalTsToMs } from '@temporalio/common/lib/time';
import type { coresdk, temporal } from '@temporalio/proto';
import * as protoSdk from '@temporalio/proto';
import * as workflowSdk from '@temporalio/workflow';
import { SdkFlags } from '@temporalio/workflow/lib/flags';
import { Activator } from '@temporalio/workflow/lib/internals';
import * as runtime from '@temporalio/workflow/lib/worker-interface';

const loaded: unknown = workflowSdk.AsyncLocalStorage;
if (loaded !== AsyncLocalStorage)
  throw new Error('@temporalio/workflow was loaded before test/sim/temporal/sdk: import the simulation first');

export { Activator, activitySdk, commonSdk, protoSdk, runtime, SdkFlags, workflowSdk };

export type Command = coresdk.workflow_commands.IWorkflowCommand;
export type Job = coresdk.workflow_activation.IWorkflowActivationJob & { variant: string };
export type ScheduleActivity = coresdk.workflow_commands.IScheduleActivity;
export type Failure = temporal.api.failure.v1.IFailure;
export type Payload = commonSdk.Payload;

const { defaultFailureConverter, defaultPayloadConverter } = commonSdk;

export function toPayload(value: unknown): Payload {
  return defaultPayloadConverter.toPayload(value);
}

export function toPayloads(values: readonly unknown[]): Payload[] {
  return values.map(toPayload);
}

export function fromPayload(payload: Payload | null | undefined): unknown {
  return payload ? defaultPayloadConverter.fromPayload(payload) : undefined;
}

export function toFailure(error: unknown): Failure {
  return defaultFailureConverter.errorToFailure(error, defaultPayloadConverter);
}

export function fromFailure(failure: Failure): Error {
  return defaultFailureConverter.failureToError(failure, defaultPayloadConverter);
}

/** A duration of the server's protocol; 0 where there is none. */
export function milliseconds(duration: Parameters<typeof optionalTsToMs>[0]): number {
  return optionalTsToMs(duration) ?? 0;
}
