/**
 * One attempt of an activity in its worker's process, as the SDK runs it: the real activity under the real context,
 * heartbeats at most once a second, the reply to one carrying a cancel, timeouts of its own. An attempt that Temporal has
 * given up runs on like any other until it hears of it. What Temporal makes of all that is activity-task.ts.
 */
import {
  ActivityCancellationDetails,
  type ActivityCancellationDetailsHolder,
} from '@temporalio/common/lib/activity-cancellation-details';
import { isAbortError } from '@temporalio/common/lib/type-helpers';
import { HEARTBEAT_THROTTLE_MS } from '../../../src/model/timing';
import {
  activitySdk,
  commonSdk,
  type Failure,
  fromPayload,
  milliseconds,
  type Payload,
  type ScheduleActivity,
  toFailure,
  toPayload,
} from './sdk';
import { type ActivityOutcome, postTo, type SimWorker, type Surroundings, type Task } from './types';
import type { Workers } from './workers';

/** How much later than the server a worker itself ends an attempt that is out of time. */
const LOCAL_PATIENCE_MS = 5_000;
/** So long a worker tries to hand in a result that Temporal does not take. */
const REPORT_PATIENCE_MS = 10_000;
const REPORT_AGAIN_MS = 1_000;

/** Why an attempt should stop, as the SDK names it. */
export type StopReason = 'CANCELLED' | 'NOT_FOUND' | 'TIMED_OUT' | 'PAUSED' | 'RESET' | 'WORKER_SHUTDOWN';

/** The server's end of an attempt. */
export interface AttemptOwner {
  /** @returns why it should stop, if it should */
  heartbeat(attempt: ActivityAttempt, details: Payload): StopReason | undefined;
  report(attempt: ActivityAttempt, outcome: ActivityOutcome, lastDetails: Payload | undefined): void;
}

export interface AttemptOptions {
  readonly number: number;
  readonly command: ScheduleActivity;
  readonly workflowId: string;
  readonly runId: string;
  readonly workflowType: string;
  readonly heartbeatDetails: Payload | undefined;
}

/** What an attempt fails with that stops for another reason than a cancel. */
const FAILURES: Partial<Record<StopReason, string>> = {
  PAUSED: 'ActivityPause',
  RESET: 'ActivityReset',
  WORKER_SHUTDOWN: 'WorkerShutdown',
};
const DETAILS = {
  CANCELLED: 'cancelRequested',
  NOT_FOUND: 'notFound',
  TIMED_OUT: 'timedOut',
  PAUSED: 'paused',
  RESET: 'reset',
  WORKER_SHUTDOWN: 'workerShutdown',
} as const;

export class ActivityAttempt {
  readonly number: number;
  readonly worker: SimWorker;
  readonly label: string;
  readonly #options: AttemptOptions;
  readonly #owner: AttemptOwner;
  readonly #surroundings: Surroundings;
  readonly #workers: Workers;
  readonly #abort = new AbortController();
  #state: 'coming' | 'running' | 'ended' = 'coming';
  #stopReason: StopReason | undefined;
  readonly #details: ActivityCancellationDetailsHolder = {};
  #lastDetails: Payload | undefined;
  #unsentDetails: Payload | undefined;
  #throttled: Task | undefined;
  #heartbeatLimit: Task | undefined;
  #attemptLimit: Task | undefined;
  #deafUntilMs = 0;
  #resultDelayMs = 0;

  constructor(
    options: AttemptOptions,
    worker: SimWorker,
    owner: AttemptOwner,
    surroundings: Surroundings,
    workers: Workers,
  ) {
    this.#options = options;
    this.number = options.number;
    this.worker = worker;
    this.#owner = owner;
    this.#surroundings = surroundings;
    this.#workers = workers;
    this.label = `${options.command.activityId ?? ''} #${options.number}`;
  }

  /** Whether its code runs: in a process that lives, and not at its end. */
  get running(): boolean {
    return this.#state === 'running' && this.worker.process.alive;
  }

  /** Whether it may run yet, or still runs. */
  get unfinished(): boolean {
    return this.#state !== 'ended' && this.worker.process.alive;
  }

  /** Its heartbeats do not arrive for that long. */
  loseHeartbeats(forMs: number): void {
    this.#surroundings.scheduler.trace(`temporal: heartbeats of ${this.label} are lost for ${forMs} ms`);
    this.#deafUntilMs = this.#surroundings.scheduler.nowMs + forMs;
  }

  /** What it ends with arrives that much later. */
  delayResult(byMs: number): void {
    this.#surroundings.scheduler.trace(`temporal: the result of ${this.label} will be ${byMs} ms late`);
    this.#resultDelayMs = byMs;
  }

  start(): void {
    const { scheduler, hop, faults } = this.#surroundings;
    if (faults.strikes('heartbeatsLost')) this.loseHeartbeats(faults.spell(3_000, 60_000));
    if (faults.strikes('lateResults')) this.delayResult(faults.spell(500, 60_000));
    if (faults.strikes('lostTasks')) {
      scheduler.trace(`temporal: ${this.label} is given to ${this.worker.process.name}, which never hears of it`);
      this.#state = 'ended';
      return;
    }
    postTo(scheduler, this.worker.process, `begin ${this.label}`, () => this.#run(), hop());
  }

  #run(): void {
    const { scheduler } = this.#surroundings;
    const { command } = this.#options;
    scheduler.trace(`${this.worker.process.name}: ${this.label} begins`);
    this.#state = 'running';
    const startToClose = milliseconds(command.startToCloseTimeout);
    if (startToClose > 0)
      this.#attemptLimit = postTo(
        scheduler,
        this.worker.process,
        `${this.label} out of time`,
        () => this.stop('TIMED_OUT'),
        startToClose + LOCAL_PATIENCE_MS,
      );
    this.#awaitHeartbeat();
    this.#perform().then(
      (result) => this.#end({ kind: 'completed', result }),
      (error: unknown) => this.#end(this.#outcomeOf(error)),
    );
  }

  async #perform(): Promise<Payload> {
    const { command } = this.#options;
    const args = (command.arguments ?? []).map((payload) => fromPayload(payload)) as never[];
    const run = this.worker.activities[command.activityType ?? ''];
    if (!run)
      throw commonSdk.ApplicationFailure.create({
        type: 'NotFoundError',
        message: `Activity function ${command.activityType ?? ''} is not registered on this Worker`,
      });
    const cancelled = new Promise<never>((_, reject) =>
      this.#abort.signal.addEventListener('abort', () => reject(this.#abort.signal.reason)),
    );
    cancelled.catch(() => undefined);
    const context = new activitySdk.Context(
      this.#info(),
      cancelled,
      this.#abort.signal,
      (details: unknown) => this.#heartbeat(details),
      undefined,
      SILENT,
      commonSdk.noopMetricMeter,
      this.#details,
    );
    return toPayload(await activitySdk.asyncLocalStorage.run(context, () => run(...args)));
  }

  #info(): activitySdk.Info {
    const { command, workflowId, runId, workflowType, heartbeatDetails, number } = this.#options;
    const nowMs = this.#surroundings.scheduler.nowMs;
    const heartbeatTimeoutMs = milliseconds(command.heartbeatTimeout);
    return {
      taskToken: new Uint8Array(),
      base64TaskToken: '',
      activityId: command.activityId ?? '',
      activityType: command.activityType ?? '',
      taskQueue: this.worker.taskQueue,
      attempt: number,
      isLocal: false,
      inWorkflow: true,
      workflowExecution: { workflowId, runId },
      workflowType,
      workflowNamespace: 'default',
      activityNamespace: 'default',
      namespace: 'default',
      ...(heartbeatDetails && { heartbeatDetails: fromPayload(heartbeatDetails) }),
      ...(heartbeatTimeoutMs > 0 && { heartbeatTimeoutMs }),
      scheduledTimestampMs: nowMs,
      startedTimestampMs: nowMs,
      currentAttemptScheduledTimestampMs: nowMs,
      scheduleToCloseTimeoutMs: milliseconds(command.scheduleToCloseTimeout),
      startToCloseTimeoutMs: milliseconds(command.startToCloseTimeout),
    } as unknown as activitySdk.Info;
  }

  #heartbeat(details: unknown): void {
    if (!this.running) return;
    this.#lastDetails = toPayload(details);
    this.#awaitHeartbeat();
    if (this.#throttled) this.#unsentDetails = this.#lastDetails;
    else this.#send(this.#lastDetails);
  }

  /**
   * Before the function that says so has returned, a heartbeat may be on its way still; the first goes at once, the
   * next after the throttle's time.
   */
  #send(details: Payload): void {
    const { scheduler, hop, faults } = this.#surroundings;
    const { process } = this.worker;
    this.#unsentDetails = undefined;
    this.#throttled = postTo(
      scheduler,
      process,
      `${this.label} may beat again`,
      () => {
        this.#throttled = undefined;
        if (this.#unsentDetails && this.running) this.#send(this.#unsentDetails);
      },
      HEARTBEAT_THROTTLE_MS,
    );
    if (scheduler.nowMs < this.#deafUntilMs || !this.#workers.isReachable(process)) return;
    scheduler.post(
      undefined,
      `heartbeat of ${this.label}`,
      () => {
        const reason = this.#owner.heartbeat(this, details);
        if (!reason) return;
        const late = faults.strikes('lateCancels') ? faults.spell(500, 30_000) : 0;
        postTo(scheduler, process, `tell ${this.label} to stop`, () => this.stop(reason), hop() + late);
      },
      hop(),
    );
  }

  #awaitHeartbeat(): void {
    const timeoutMs = milliseconds(this.#options.command.heartbeatTimeout);
    if (timeoutMs === 0) return;
    this.#heartbeatLimit?.cancel();
    this.#heartbeatLimit = postTo(
      this.#surroundings.scheduler,
      this.worker.process,
      `${this.label} has been silent`,
      () => this.stop('TIMED_OUT'),
      timeoutMs + LOCAL_PATIENCE_MS,
    );
  }

  /** Aborts its signal. */
  stop(reason: StopReason): void {
    if (!this.running || this.#stopReason) return;
    this.#surroundings.scheduler.trace(`${this.worker.process.name}: ${this.label} is told to stop: ${reason}`);
    this.#stopReason = reason;
    this.#details.details = new ActivityCancellationDetails({ [DETAILS[reason]]: true });
    this.#abort.abort(new commonSdk.CancelledFailure(reason));
  }

  #outcomeOf(error: unknown): ActivityOutcome {
    const aborted = isAbortError(error);
    if (this.#stopReason && (error instanceof commonSdk.CancelledFailure || aborted)) {
      const type = FAILURES[this.#stopReason];
      if (type && !aborted)
        return {
          kind: 'failed',
          failure: toFailure(
            commonSdk.ApplicationFailure.create({ type, message: `Activity stopped: ${this.#stopReason}` }),
          ),
        };
      return { kind: 'cancelled', failure: aborted ? { canceledFailureInfo: {} } : toFailure(error) };
    }
    const failure: Failure = toFailure(commonSdk.ensureApplicationFailure(error));
    return { kind: 'failed', failure };
  }

  #end(outcome: ActivityOutcome): void {
    this.#state = 'ended';
    this.#heartbeatLimit?.cancel();
    this.#attemptLimit?.cancel();
    this.#throttled?.cancel();
    if (!this.worker.process.alive) return;
    const { scheduler } = this.#surroundings;
    scheduler.trace(`${this.worker.process.name}: ${this.label} ends: ${describeOutcome(outcome)}`);
    this.#report(outcome, scheduler.nowMs + REPORT_PATIENCE_MS, this.#resultDelayMs);
  }

  #report(outcome: ActivityOutcome, untilMs: number, delayMs: number): void {
    const { scheduler, hop } = this.#surroundings;
    const { process } = this.worker;
    if (this.#workers.isReachable(process)) {
      scheduler.post(
        undefined,
        `result of ${this.label}`,
        () => this.#owner.report(this, outcome, this.#lastDetails),
        delayMs + hop(),
      );
    } else if (scheduler.nowMs < untilMs) {
      postTo(
        scheduler,
        process,
        `hand in ${this.label} again`,
        () => this.#report(outcome, untilMs, delayMs),
        REPORT_AGAIN_MS,
      );
    } else scheduler.trace(`${process.name}: the result of ${this.label} never reaches Temporal`);
  }
}

export function describeOutcome(outcome: ActivityOutcome): string {
  if (outcome.kind === 'completed') return 'completed';
  const { failure } = outcome;
  const inner = failure.cause ?? failure;
  return `${outcome.kind} ${inner.applicationFailureInfo?.type ?? ''} ${inner.message ?? ''}`.trim();
}

const silently = (): void => undefined;
const SILENT = { log: silently, trace: silently, debug: silently, info: silently, warn: silently, error: silently };
