/**
 * All timeouts and retry policies in one place. Every call gets a readable activity id and summary, since operators
 * address it by them.
 */
import type { RetryPolicy } from '@temporalio/common';
import { ActivityCancellationType, type ActivityOptions, proxyActivities } from '@temporalio/workflow';
import type { ControlActivities, DestinationActivities, DictionaryActivities, SourceActivities } from '../activities';
import type { ErrorCode } from '../src/model/error-codes';
import { CONTROL_QUEUE, hostQueue } from '../src/model/names';
import { HEARTBEAT_TIMEOUT_MS, HOST_PATIENCE_MS } from '../src/model/timing';
import { atHost } from './failures';

const RETRY = { initialInterval: '1s', backoffCoefficient: 2, maximumInterval: '15s' } as const;

const IN_DOUBT: ErrorCode = 'HANDOVER_IN_DOUBT';
const UNLESS_IN_DOUBT: RetryPolicy = { ...RETRY, nonRetryableErrorTypes: [IN_DOUBT] };

const COMMON = {
  scheduleToStartTimeout: HOST_PATIENCE_MS,
  heartbeatTimeout: HEARTBEAT_TIMEOUT_MS,
  cancellationType: ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
  retry: RETRY,
} as const;

/** Exported for the test that checks what every preset must have. */
export const PRESETS = {
  /** Seconds, with heartbeats. */
  quick: { ...COMMON, startToCloseTimeout: '5m' },
  /** Hours, with heartbeats throughout; tried again for as long as it may help. */
  long: { ...COMMON, startToCloseTimeout: '7d' },
  /** Too short for a heartbeat to be of use. */
  brief: { ...COMMON, startToCloseTimeout: '30s', heartbeatTimeout: undefined },
  /** After some minutes without an answer the workflow itself decides what a hand-over in doubt means. */
  handOver: { ...COMMON, startToCloseTimeout: '1h', retry: { ...RETRY, maximumAttempts: 20 } },
  /** Nobody knows who has the VM until the link answers: soon the destination is asked by another way. */
  handOverByLink: { ...COMMON, startToCloseTimeout: '1h', retry: { ...RETRY, maximumAttempts: 3 } },
  /** Whoever rolls back has to know at once that it is in doubt: then the destination is asked, not the source again. */
  rollBack: { ...COMMON, startToCloseTimeout: '1h', retry: UNLESS_IN_DOUBT },
  /** Nice to have done now; agents sweep up what is left undone. */
  courtesy: {
    ...COMMON,
    startToCloseTimeout: '1h',
    scheduleToStartTimeout: '20s',
    retry: { ...RETRY, maximumAttempts: 3 },
  },
} as const;

export type Preset = keyof typeof PRESETS;

export interface Call {
  readonly activityId: string;
  readonly summary: string;
}

function options(preset: Preset, { activityId, summary }: Call): ActivityOptions {
  const { heartbeatTimeout, ...rest } = PRESETS[preset];
  return { ...rest, ...(heartbeatTimeout !== undefined && { heartbeatTimeout }), activityId, summary };
}

/** Activities whose failures say on which host they were to run. */
function onHost<A extends object>(hostId: string, activities: A): A {
  return new Proxy(activities, {
    get: (all, name) => {
      const activity: unknown = Reflect.get(all, name);
      return typeof activity === 'function'
        ? (...input: readonly unknown[]) => atHost(hostId, Reflect.apply(activity, all, input) as Promise<unknown>)
        : activity;
    },
  });
}

export function onSource(hostId: string, preset: Preset, call: Call): SourceActivities {
  return onHost(hostId, proxyActivities<SourceActivities>({ ...options(preset, call), taskQueue: hostQueue(hostId) }));
}

export function onDestination(hostId: string, preset: Preset, call: Call): DestinationActivities {
  return onHost(
    hostId,
    proxyActivities<DestinationActivities>({ ...options(preset, call), taskQueue: hostQueue(hostId) }),
  );
}

/** Minutes of one thread, with heartbeats; a host that is away is not waited for, a host without zstd not asked again. */
export function onDictionaries(hostId: string, call: Call): DictionaryActivities {
  return onHost(
    hostId,
    proxyActivities<DictionaryActivities>({
      ...options('courtesy', call),
      retry: { ...RETRY, maximumAttempts: 2 },
      taskQueue: hostQueue(hostId),
    }),
  );
}

export function onControl(call: Call): ControlActivities {
  return proxyActivities<ControlActivities>({
    startToCloseTimeout: '10s',
    retry: { ...RETRY, maximumAttempts: 5 },
    activityId: call.activityId,
    summary: call.summary,
    taskQueue: CONTROL_QUEUE,
  });
}
