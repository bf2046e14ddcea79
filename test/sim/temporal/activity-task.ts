/**
 * An activity as the server keeps it: it waits in a queue, is given to a worker, is watched by its timeouts, is tried again
 * as its retry policy says, and ends with one outcome for the workflow. An attempt that has timed out is forgotten here and
 * may still run: what it says later is refused.
 */
import { ActivityAttempt, type AttemptOwner, describeOutcome, type StopReason } from './activity-attempt';
import { type Failure, milliseconds, type Payload, protoSdk, type ScheduleActivity } from './sdk';
import type { ActivityOutcome, SimWorker, Surroundings, Task } from './types';
import type { QueuedTask, Workers } from './workers';

const { RetryState, TimeoutType } = protoSdk.temporal.api.enums.v1;
const TIMEOUTS = {
  START_TO_CLOSE: TimeoutType.TIMEOUT_TYPE_START_TO_CLOSE,
  SCHEDULE_TO_START: TimeoutType.TIMEOUT_TYPE_SCHEDULE_TO_START,
  SCHEDULE_TO_CLOSE: TimeoutType.TIMEOUT_TYPE_SCHEDULE_TO_CLOSE,
  HEARTBEAT: TimeoutType.TIMEOUT_TYPE_HEARTBEAT,
} as const;

type TimeoutName = keyof typeof TIMEOUTS;
type RetryEnd = NonNullable<NonNullable<Failure['activityFailureInfo']>['retryState']>;

const DEFAULT_RETRY = { initialMs: 1_000, coefficient: 2, maximumOfInitial: 100 };

export interface ActivityOwner {
  readonly workflowId: string;
  readonly runId: string;
  readonly workflowType: string;
  resolved(command: ScheduleActivity, outcome: ActivityOutcome): void;
  /** Every attempt that begins, for whoever watches. */
  attempted(attempt: ActivityAttempt): void;
}

export class ActivityTask implements AttemptOwner, QueuedTask {
  readonly command: ScheduleActivity;
  readonly label: string;
  readonly #owner: ActivityOwner;
  readonly #surroundings: Surroundings;
  readonly #workers: Workers;
  readonly #taskQueue: string;
  #number = 0;
  /** The present attempt has not been taken yet. */
  #queued = false;
  #current: ActivityAttempt | undefined;
  #cancelRequested = false;
  #paused = false;
  #resetRequested = false;
  #done = false;
  #heartbeatDetails: Payload | undefined;
  /** Of the present attempt; all end with it. */
  #timers: Task[] = [];
  #heartbeatTimer: Task | undefined;
  #scheduleToClose: Task | undefined;

  constructor(command: ScheduleActivity, owner: ActivityOwner, surroundings: Surroundings, workers: Workers) {
    this.command = command;
    this.label = command.activityId ?? '';
    this.#owner = owner;
    this.#surroundings = surroundings;
    this.#workers = workers;
    this.#taskQueue = command.taskQueue ?? '';
    const limitMs = milliseconds(command.scheduleToCloseTimeout);
    if (limitMs > 0)
      this.#scheduleToClose = this.#after(limitMs, 'schedule to close', () => this.#timedOut('SCHEDULE_TO_CLOSE'));
    this.#enqueue();
  }

  get current(): ActivityAttempt | undefined {
    return this.#current;
  }

  take(worker: SimWorker): void {
    const { faults, scheduler } = this.#surroundings;
    this.#clearTimers();
    this.#queued = false;
    const { workflowId, runId, workflowType } = this.#owner;
    const attempt = new ActivityAttempt(
      {
        number: this.#number,
        command: this.command,
        workflowId,
        runId,
        workflowType,
        heartbeatDetails: this.#heartbeatDetails,
      },
      worker,
      this,
      this.#surroundings,
      this.#workers,
    );
    this.#current = attempt;
    const limitMs = milliseconds(this.command.startToCloseTimeout);
    if (limitMs > 0) this.#timers.push(this.#after(limitMs, 'start to close', () => this.#timedOut('START_TO_CLOSE')));
    this.#awaitHeartbeat();
    this.#owner.attempted(attempt);
    attempt.start();
    if (faults.strikes('unreachable')) {
      const { process } = worker;
      scheduler.post(
        undefined,
        `${process.name} gets out of reach`,
        () => this.#workers.setReachable(process, false),
        faults.spell(1, 10_000),
      );
      scheduler.post(
        undefined,
        `${process.name} comes back`,
        () => this.#workers.setReachable(process, true),
        faults.spell(11_000, 300_000),
      );
    }
  }

  heartbeat(attempt: ActivityAttempt, details: Payload): StopReason | undefined {
    if (this.#current !== attempt) return 'NOT_FOUND';
    this.#heartbeatDetails = details;
    this.#awaitHeartbeat();
    if (this.#cancelRequested) return 'CANCELLED';
    if (this.#resetRequested) return 'RESET';
    return this.#paused ? 'PAUSED' : undefined;
  }

  report(attempt: ActivityAttempt, outcome: ActivityOutcome, lastDetails: Payload | undefined): void {
    if (this.#current !== attempt) {
      this.#surroundings.scheduler.trace(
        `temporal: ${attempt.label} is not wanted any more: its ${outcome.kind} is refused`,
      );
      return;
    }
    if (outcome.kind === 'completed') this.#resolve(outcome);
    else if (outcome.kind === 'failed') {
      this.#heartbeatDetails = lastDetails ?? this.#heartbeatDetails;
      this.#failed(outcome.failure);
    } else if (this.#cancelRequested)
      this.#resolve({
        kind: 'cancelled',
        failure: this.#activityFailure('Activity cancelled', outcome.failure, RetryState.RETRY_STATE_CANCEL_REQUESTED),
      });
    else
      this.#surroundings.scheduler.trace(`temporal: ${attempt.label} says cancelled, and nobody cancelled it: refused`);
  }

  /** The workflow asks: at once where no attempt runs, else with the reply to the next heartbeat. */
  requestCancel(): void {
    if (this.#done) return;
    this.#cancelRequested = true;
    if (!this.#current)
      this.#resolve({
        kind: 'cancelled',
        failure: this.#activityFailure(
          'Activity cancelled',
          { canceledFailureInfo: {} },
          RetryState.RETRY_STATE_CANCEL_REQUESTED,
        ),
      });
  }

  /** An operator's pause: no further attempt, and what runs is interrupted with its next heartbeat. */
  pause(): void {
    this.#surroundings.scheduler.trace(`temporal: ${this.label} is paused`);
    this.#paused = true;
    if (!this.#current) this.#clearTimers();
    this.#workers.withdraw(this.#taskQueue, this);
  }

  unpause(): void {
    if (!this.#paused || this.#done) return;
    this.#surroundings.scheduler.trace(`temporal: ${this.label} is not paused any more`);
    this.#paused = false;
    if (this.#current) return;
    if (this.#queued) this.#number -= 1;
    this.#enqueue();
  }

  /** An operator's reset of the activity: its attempts begin at 1 again, at once or with the next heartbeat of what runs. */
  reset(): void {
    if (this.#done) return;
    this.#surroundings.scheduler.trace(`temporal: ${this.label} is reset`);
    this.#paused = false;
    if (this.#current) this.#resetRequested = true;
    else this.#beginAnew();
  }

  /** Its workflow is closed: nobody waits for it. What runs of it goes on until it hears so. */
  close(): void {
    this.#done = true;
    this.#current = undefined;
    this.#clearTimers();
    this.#scheduleToClose?.cancel();
    this.#workers.withdraw(this.#taskQueue, this);
  }

  #beginAnew(): void {
    this.#resetRequested = false;
    this.#number = 0;
    this.#clearTimers();
    this.#workers.withdraw(this.#taskQueue, this);
    this.#enqueue();
  }

  #enqueue(): void {
    this.#number += 1;
    this.#queued = true;
    if (this.#paused) return;
    const limitMs = milliseconds(this.command.scheduleToStartTimeout);
    if (limitMs > 0)
      this.#timers.push(this.#after(limitMs, 'schedule to start', () => this.#timedOut('SCHEDULE_TO_START')));
    this.#workers.offer(this.#taskQueue, this);
  }

  #awaitHeartbeat(): void {
    const limitMs = milliseconds(this.command.heartbeatTimeout);
    if (limitMs === 0) return;
    this.#heartbeatTimer?.cancel();
    this.#heartbeatTimer = this.#after(limitMs, 'heartbeat', () => this.#timedOut('HEARTBEAT'));
  }

  #timedOut(name: TimeoutName): void {
    this.#surroundings.scheduler.trace(
      `temporal: ${this.label} #${this.#number}: ${name} timeout${this.#current?.running ? ', while it runs on' : ''}`,
    );
    const failure: Failure = {
      message: `activity ${name} timeout`,
      timeoutFailureInfo: {
        timeoutType: TIMEOUTS[name],
        ...(this.#heartbeatDetails && { lastHeartbeatDetails: { payloads: [this.#heartbeatDetails] } }),
      },
    };
    if (name === 'START_TO_CLOSE' || name === 'HEARTBEAT') this.#failed(failure);
    else
      this.#resolve({
        kind: 'failed',
        failure: this.#activityFailure('Activity task timed out', failure, RetryState.RETRY_STATE_TIMEOUT),
      });
  }

  #failed(failure: Failure): void {
    if (this.#resetRequested && !failure.applicationFailureInfo?.nonRetryable) {
      this.#current = undefined;
      this.#beginAnew();
      return;
    }
    const end = this.#mayRetry(failure);
    if (end !== undefined) {
      this.#resolve({
        kind: 'failed',
        failure: this.#activityFailure(
          failure.timeoutFailureInfo ? 'Activity task timed out' : 'Activity task failed',
          failure,
          end,
        ),
      });
      return;
    }
    this.#current = undefined;
    this.#clearTimers();
    this.#timers.push(
      this.#after(this.#backoffMs(failure), 'next attempt', () => {
        this.#clearTimers();
        this.#enqueue();
      }),
    );
  }

  #mayRetry(failure: Failure): RetryEnd | undefined {
    const { maximumAttempts, nonRetryableErrorTypes } = this.command.retryPolicy ?? {};
    const info = failure.applicationFailureInfo;
    if (info?.nonRetryable || (info?.type && nonRetryableErrorTypes?.includes(info.type)))
      return RetryState.RETRY_STATE_NON_RETRYABLE_FAILURE;
    if (this.#cancelRequested) return RetryState.RETRY_STATE_CANCEL_REQUESTED;
    if (maximumAttempts && this.#number >= maximumAttempts) return RetryState.RETRY_STATE_MAXIMUM_ATTEMPTS_REACHED;
    return undefined;
  }

  #backoffMs(failure: Failure): number {
    const { initialInterval, backoffCoefficient, maximumInterval } = this.command.retryPolicy ?? {};
    if (failure.applicationFailureInfo?.nextRetryDelay)
      return milliseconds(failure.applicationFailureInfo.nextRetryDelay);
    const initialMs = milliseconds(initialInterval) || DEFAULT_RETRY.initialMs;
    const maximumMs = milliseconds(maximumInterval) || initialMs * DEFAULT_RETRY.maximumOfInitial;
    return Math.min(maximumMs, initialMs * (backoffCoefficient || DEFAULT_RETRY.coefficient) ** (this.#number - 1));
  }

  #activityFailure(message: string, cause: Failure, retryState: RetryEnd): Failure {
    const { activityId, activityType } = this.command;
    return {
      message,
      cause,
      activityFailureInfo: {
        activityId: activityId ?? '',
        activityType: { name: activityType ?? '' },
        identity: this.#current?.worker.process.name ?? '',
        retryState,
      },
    };
  }

  #resolve(outcome: ActivityOutcome): void {
    this.#surroundings.scheduler.trace(`temporal: ${this.label}: ${describeOutcome(outcome)}`);
    this.close();
    this.#owner.resolved(this.command, outcome);
  }

  #clearTimers(): void {
    for (const timer of this.#timers.splice(0)) timer.cancel();
    this.#heartbeatTimer?.cancel();
  }

  #after(ms: number, what: string, act: () => void): Task {
    return this.#surroundings.scheduler.post(
      undefined,
      `${this.label}: ${what}`,
      () => {
        if (!this.#done) act();
      },
      ms,
    );
  }
}
