/**
 * All timeouts and retry policies in one place. Every call gets a readable activity id and summary, since operators
 * address it by them. What hosts answer is read here, and nowhere else: by the schemas of src/model/activity-results.ts.
 */
import type { RetryPolicy } from '@temporalio/common';
import { ActivityCancellationType, type ActivityOptions, proxyActivities } from '@temporalio/workflow';
import type { ControlActivities, DestinationActivities, DictionaryActivities, SourceActivities } from '../activities';
import type { ActivityInput, ActivityName } from '../src/model/activity-inputs';
import { ACTIVITY_RESULTS, type ActivityResult } from '../src/model/activity-results';
import type { ErrorCode } from '../src/model/error-codes';
import { DwcpError } from '../src/model/errors';
import type { Side } from '../src/model/ids';
import { CONTROL_QUEUE, hostQueue } from '../src/model/names';
import { HEARTBEAT_TIMEOUT_MS, HOST_PATIENCE_MS } from '../src/model/timing';
import { atHost, failWith, toCoded } from './failures';

const RETRY = { initialInterval: '1s', backoffCoefficient: 2, maximumInterval: '15s' } as const;

const IN_DOUBT: ErrorCode = 'HANDOVER_IN_DOUBT';
const UNLESS_IN_DOUBT: RetryPolicy = { ...RETRY, nonRetryableErrorTypes: [IN_DOUBT] };
/** What a worker without the key answers, of which the SDK says that it may be tried again; only before anything is handed over. */
const UNREADABLE: ErrorCode = 'PAYLOAD_UNREADABLE';
const UNLESS_UNREADABLE: RetryPolicy = { ...RETRY, nonRetryableErrorTypes: [UNREADABLE] };

const COMMON = {
  scheduleToStartTimeout: HOST_PATIENCE_MS,
  heartbeatTimeout: HEARTBEAT_TIMEOUT_MS,
  cancellationType: ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
  retry: RETRY,
} as const;

/** Exported for the test that checks what every preset must have. */
export const PRESETS = {
  /** Seconds, with heartbeats. */
  quick: { ...COMMON, startToCloseTimeout: '5m', retry: UNLESS_UNREADABLE },
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

/** Activities of a worker as workflows have them: their answers parsed. */
type Asked<A> = {
  readonly [N in keyof A & ActivityName]: (
    ...input: undefined extends ActivityInput<N> ? [] : [ActivityInput<N>]
  ) => Promise<ActivityResult<N>>;
};

export type PreparedSource = ActivityResult<'prepareSource'>;
export type MovedGuest = ActivityResult<'guestSwitchover'>;

/** Behind the hand-over an answer that cannot be read leaves open what has happened: nobody may take it for a failure. */
const BEHIND_HAND_OVER: ReadonlySet<string> = new Set<ActivityName>([
  'switchover',
  'guestSwitchover',
  'takeOver',
  'releaseGuest',
]);

function parseResult(side: Side, hostId: string, name: ActivityName, answer: unknown): unknown {
  const parsed = ACTIVITY_RESULTS[name].safeParse(answer);
  if (parsed.success) return parsed.data;
  const what = parsed.error.issues
    .slice(0, 3)
    .map((issue) => `${issue.path.join('.') || 'answer'}: ${issue.message}`)
    .join('; ');
  throw failWith(
    new DwcpError(
      BEHIND_HAND_OVER.has(name) ? 'HANDOVER_IN_DOUBT' : 'INVALID_INPUT',
      `Host ${hostId} answers ${name} with what cannot be read: ${what}`.slice(0, 500),
      { side, hint: `Bring agents and control worker to one release. Where they are, look at host ${hostId}` },
    ),
  );
}

/** By whose word hosts are asked: authority.ts. */
export interface Authority {
  readonly isInForce: boolean;
  current(): Promise<string | undefined>;
  expire(): void;
}

/** More would be clocks that are apart. */
const MAX_RENEWALS = 3;

/** Runs an activity by the authority that there is, with a new warrant where its time was over before the host began. */
async function authorised(
  run: (input: readonly unknown[]) => Promise<unknown>,
  input: readonly unknown[],
  authority: Authority | undefined,
): Promise<unknown> {
  if (authority?.isInForce !== true) return run(input);
  for (let renewals = 0; ; renewals += 1) {
    const warrant = await authority.current();
    const [given, ...more] = input;
    try {
      return await run(warrant === undefined ? input : [{ ...(given as object), warrant }, ...more]);
    } catch (error) {
      if (toCoded(error).code !== 'WARRANT_EXPIRED' || renewals >= MAX_RENEWALS) throw error;
      authority.expire();
    }
  }
}

interface Asking {
  readonly side: Side;
  readonly hostId: string;
  readonly authority?: Authority | undefined;
}

/** Activities whose failures say on which host they were to run, and whose answers are read by their schemas. */
function asked<A extends object>({ side, hostId, authority }: Asking, activities: object): Asked<A> {
  return new Proxy(activities, {
    get: (all, name) => {
      const activity: unknown = Reflect.get(all, name);
      if (typeof activity !== 'function') return activity;
      return async (...input: readonly unknown[]): Promise<unknown> =>
        parseResult(
          side,
          hostId,
          name as ActivityName,
          await authorised(
            (given) => atHost(hostId, Reflect.apply(activity, all, given) as Promise<unknown>),
            input,
            authority,
          ),
        );
    },
  }) as Asked<A>;
}

/** @param authority by whose word; every host asks for it */
export function onSource(
  hostId: string,
  preset: Preset,
  call: Call,
  authority: Authority | undefined,
): Asked<SourceActivities> {
  const taskQueue = hostQueue(hostId);
  return asked(
    { side: 'source', hostId, authority },
    proxyActivities<SourceActivities>({ ...options(preset, call), taskQueue }),
  );
}

export function onDestination(
  hostId: string,
  preset: Preset,
  call: Call,
  authority: Authority | undefined,
): Asked<DestinationActivities> {
  const taskQueue = hostQueue(hostId);
  return asked(
    { side: 'destination', hostId, authority },
    proxyActivities<DestinationActivities>({ ...options(preset, call), taskQueue }),
  );
}

/** Minutes of one thread, with heartbeats; a host that is away is not waited for, a host without zstd not asked again. */
export function onDictionaries(
  hostId: string,
  call: Call,
  authority: Authority | undefined,
): Asked<DictionaryActivities> {
  return asked(
    { side: 'source', hostId, authority },
    proxyActivities<DictionaryActivities>({
      ...options('courtesy', call),
      retry: { ...RETRY, maximumAttempts: 2 },
      taskQueue: hostQueue(hostId),
    }),
  );
}

export function onControl(call: Call): Asked<ControlActivities> {
  return asked(
    { side: 'control', hostId: 'of the control worker' },
    proxyActivities<ControlActivities>({
      startToCloseTimeout: '10s',
      retry: { ...RETRY, maximumAttempts: 5 },
      activityId: call.activityId,
      summary: call.summary,
      taskQueue: CONTROL_QUEUE,
    }),
  );
}
