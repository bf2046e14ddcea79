/**
 * One run of a workflow as the server keeps it: its history, what is open, its workflow tasks, one at a time, given to the
 * control worker that remembers it or replayed by another. Starting runs, resets and children are sim-temporal.ts.
 */
import type { ActivityAttempt } from './activity-attempt';
import { type ActivityOwner, ActivityTask } from './activity-task';
import { assertSame, type Batch, entriesOf, type Fork, forkAt, openWork } from './history';
import {
  type Command,
  commonSdk,
  type Failure,
  fromFailure,
  fromPayload,
  milliseconds,
  type ScheduleActivity,
  toPayloads,
} from './sdk';
import {
  type ActivityOutcome,
  type HistoryEntry,
  type Input,
  postTo,
  type RunStatus,
  type SimProcess,
  type SimWorker,
  type Surroundings,
  type Task,
} from './types';
import type { QueuedTask, Workers } from './workers';
import { WorkflowInstance } from './workflow-instance';

const TASK_TIMEOUT_MS = 10_000;
const CANCELLATION = { TRY_CANCEL: 0, WAIT_CANCELLATION_COMPLETED: 1 } as const;

export interface RunOptions {
  readonly type: string;
  readonly workflowId: string;
  readonly runId: string;
  readonly taskQueue: string;
  readonly seed: readonly number[];
}

/** What a run needs of the server around it. */
export interface RunHost {
  readonly surroundings: Surroundings;
  readonly workers: Workers;
  codeOf(type: string): (...args: unknown[]) => Promise<unknown>;
  startChild(parent: WorkflowRun, command: NonNullable<Command['startChildWorkflowExecution']>): void;
  reset(run: WorkflowRun, fork: Fork): WorkflowRun;
  attempted(attempt: ActivityAttempt): void;
  taskDone(run: WorkflowRun): void;
  closed(run: WorkflowRun): void;
  /** What no correct workflow does, such as ending while a handler runs. */
  problem(text: string): void;
}

interface PendingUpdate {
  accepted: boolean;
  resolve(value: unknown): void;
  reject(error: Error): void;
}

export class WorkflowRun implements ActivityOwner, QueuedTask {
  readonly label: string;
  readonly #options: RunOptions;
  readonly #host: RunHost;
  readonly #startedAtMs: number;
  readonly #batches: Batch[];
  #pending: Input[];
  #status: RunStatus = 'RUNNING';
  #result: unknown;
  #failure: Failure | undefined;
  #searchAttributes = new commonSdk.TypedSearchAttributes();
  #details = '';
  #resident: { readonly process: SimProcess; readonly instance: WorkflowInstance } | undefined;
  /** A workflow task is waiting or under way. */
  #taskOpen = false;
  #task: object | undefined;
  #taskTimer: Task | undefined;
  readonly #activities = new Map<number, ActivityTask>();
  readonly #timers = new Map<number, Task>();
  readonly #updates = new Map<string, PendingUpdate>();
  #updateNumber = 0;

  constructor(options: RunOptions, host: RunHost, fork: Fork) {
    this.#options = options;
    this.#host = host;
    this.#startedAtMs = host.surroundings.scheduler.nowMs;
    this.label = `${options.workflowId} (${options.runId})`;
    this.#batches = [...fork.retained];
    this.#pending = [...fork.pending];
    this.#searchAttributes = fork.retained.at(-1)?.searchAttributes ?? this.#searchAttributes;
    const { activities, timers } = openWork(fork);
    for (const { command, cancelRequested } of activities) {
      this.#schedule(command);
      if (cancelRequested) this.#cancelActivity(command.seq ?? 0);
    }
    for (const { seq, dueMs } of timers) this.#startTimer(seq, dueMs - this.#startedAtMs);
    this.#wake();
  }

  get workflowId(): string {
    return this.#options.workflowId;
  }
  get runId(): string {
    return this.#options.runId;
  }
  get workflowType(): string {
    return this.#options.type;
  }
  get taskQueue(): string {
    return this.#options.taskQueue;
  }
  get seed(): readonly number[] {
    return this.#options.seed;
  }
  get status(): RunStatus {
    return this.#status;
  }
  get result(): unknown {
    return this.#result;
  }
  get error(): Error | undefined {
    return this.#failure && fromFailure(this.#failure);
  }
  get failure(): Failure | undefined {
    return this.#failure;
  }
  get details(): string {
    return this.#details;
  }
  get typedSearchAttributes(): commonSdk.TypedSearchAttributes {
    return this.#searchAttributes;
  }
  get searchAttributes(): Readonly<Record<string, unknown>> {
    return Object.fromEntries(this.#searchAttributes.getAll().map(({ key, value }) => [key.name, value]));
  }
  get parked(): boolean {
    return this.#status === 'RUNNING' && this.searchAttributes['NeedsOperator'] === true;
  }
  get history(): readonly HistoryEntry[] {
    return entriesOf([...this.#batches.flatMap(({ inputs }) => inputs), ...this.#pending]);
  }
  /** Activities that have not ended, for an operator to pause or reset. */
  get activities(): readonly ActivityTask[] {
    return [...this.#activities.values()];
  }

  /** @throws WorkflowNotFoundError where the run is closed */
  signal(name: string, ...args: unknown[]): void {
    this.#assertOpen();
    this.happened({ kind: 'signal', name, args: toPayloads(args) });
  }

  /** Resolves with the handler's answer; rejects with its failure, the validator's, or that of a run that closed before. */
  update(name: string, ...args: unknown[]): Promise<unknown> {
    const id = `${this.runId}/update-${(this.#updateNumber += 1)}`;
    const answer = new Promise<unknown>((resolve, reject) =>
      this.#updates.set(id, { accepted: false, resolve, reject }),
    );
    answer.catch(() => undefined);
    if (this.#status === 'RUNNING') this.happened({ kind: 'update', id, name, args: toPayloads(args) });
    else this.#dropUpdates();
    return answer;
  }

  /** Temporal's own cancel, as of its UI. */
  cancel(): void {
    this.#assertOpen();
    this.#host.surroundings.scheduler.trace(`temporal: cancel of ${this.label}`);
    this.happened({ kind: 'cancel' });
  }

  terminate(reason = 'by the operator'): void {
    this.#assertOpen();
    this.#host.surroundings.scheduler.trace(`temporal: ${this.label} is terminated ${reason}`);
    this.#failure = { message: reason, terminatedFailureInfo: {} };
    this.#close('TERMINATED');
  }

  /** A new run that has had the first k results and goes on from there; this one, or whichever is open, is terminated. */
  reset(k: number, { reapply = true }: { readonly reapply?: boolean } = {}): WorkflowRun {
    this.#host.surroundings.scheduler.trace(
      `temporal: ${this.label} is reset to its result ${k} (${this.history[k - 1]?.activityId ?? 'none'})`,
    );
    return this.#host.reset(this, forkAt(this.#batches, this.#pending, k, reapply));
  }

  /** The control worker forgets the run; the next workflow task replays it. */
  evict(): void {
    this.#resident = undefined;
  }

  /** Asks the workflow's code as it is now; needs a control worker no more than the real thing's memory of it. */
  query(name: string): unknown {
    return (this.#resident?.instance ?? this.#replayed()).query(name);
  }

  /** An event of its history; nothing where the run is closed. */
  happened(input: Input): void {
    if (this.#status !== 'RUNNING') return;
    this.#pending.push(input);
    this.#wake();
  }

  attempted(attempt: ActivityAttempt): void {
    this.#host.attempted(attempt);
  }

  resolved({ seq, activityId, activityType }: ScheduleActivity, outcome: ActivityOutcome): void {
    if (!this.#activities.delete(seq ?? 0)) return;
    this.happened({ kind: 'activity', seq: seq ?? 0, activityId: activityId ?? '', type: activityType ?? '', outcome });
  }

  /** Workflow tasks go to the worker that remembers the run while that lives. */
  take(worker: SimWorker): void {
    if (this.#status !== 'RUNNING') return;
    const { scheduler, hop } = this.#host.surroundings;
    const process = this.#resident?.process.alive === true ? this.#resident.process : worker.process;
    const batch = [...this.#pending];
    const task = {};
    this.#task = task;
    postTo(scheduler, process, `workflow task of ${this.label}`, () => this.#carryOut(task, process, batch), hop());
    this.#taskTimer = scheduler.post(
      undefined,
      `workflow task timeout of ${this.label}`,
      () => {
        if (this.#task === task) this.#failTask('nobody completed it in time');
      },
      TASK_TIMEOUT_MS,
    );
  }

  #wake(): void {
    if (this.#taskOpen || this.#pending.length === 0 || this.#status !== 'RUNNING') return;
    this.#taskOpen = true;
    this.#host.workers.offer(this.taskQueue, this);
  }

  #carryOut(task: object, process: SimProcess, batch: readonly Input[]): void {
    const { scheduler, hop } = this.#host.surroundings;
    if (this.#task !== task || this.#status !== 'RUNNING') return;
    if (this.#resident?.process !== process) this.#resident = { process, instance: this.#replayed() };
    const { instance } = this.#resident;
    const atMs = scheduler.nowMs;
    const commands = this.#asTask(() => instance.apply(batch, atMs, false));
    for (const warning of instance.warnings.splice(0)) this.#host.problem(`${this.label}: ${warning}`);
    if (!this.#host.workers.isReachable(process)) return;
    scheduler.post(
      undefined,
      `workflow task of ${this.label} done`,
      () => {
        if (this.#task === task && this.#status === 'RUNNING') this.#complete(batch, commands, atMs, instance);
      },
      hop(),
    );
  }

  #replayed(): WorkflowInstance {
    const { type, workflowId, runId, taskQueue, seed } = this.#options;
    const instance = new WorkflowInstance({
      code: this.#host.codeOf(type),
      type,
      workflowId,
      runId,
      taskQueue,
      seed,
      startedAtMs: this.#startedAtMs,
    });
    for (const { setPatchMarker } of this.#batches.flatMap(({ commands }) => commands))
      instance.knowPatch(setPatchMarker);
    if (this.#batches.length > 0) this.#host.surroundings.scheduler.trace(`temporal: ${this.label} is replayed`);
    for (const { inputs, commands, atMs } of this.#batches)
      assertSame(
        this.label,
        commands,
        this.#asTask(() => instance.apply(inputs, atMs, true)),
      );
    instance.warnings.length = 0;
    return instance;
  }

  #asTask<T>(work: () => T): T {
    try {
      return work();
    } catch (error) {
      throw new Error(`A workflow task of ${this.label} fails: ${String(error)}`, { cause: error });
    }
  }

  #complete(batch: readonly Input[], commands: readonly Command[], atMs: number, instance: WorkflowInstance): void {
    const closing = commands.some(
      (command) =>
        command.completeWorkflowExecution ?? command.failWorkflowExecution ?? command.cancelWorkflowExecution,
    );
    if (closing && this.#pending.slice(batch.length).some(({ kind }) => kind !== 'update')) {
      this.#failTask('something happened before it could close');
      return;
    }
    this.#endTask();
    const accepted = new Set(
      commands.map(({ updateResponse }) => updateResponse?.accepted && updateResponse.protocolInstanceId),
    );
    const rejected = new Set(
      commands
        .map(({ updateResponse }) => updateResponse?.rejected && updateResponse.protocolInstanceId)
        .filter((id) => !accepted.has(id)),
    );
    this.#pending = this.#pending.slice(batch.length);
    this.#batches.push({
      inputs: batch.filter((input) => input.kind !== 'update' || !rejected.has(input.id)),
      commands,
      atMs,
      searchAttributes: instance.searchAttributes,
    });
    this.#searchAttributes = instance.searchAttributes;
    this.#details = instance.details;
    for (const command of commands) if (this.#status === 'RUNNING') this.#obey(command, commands);
    this.#host.taskDone(this);
    this.#wake();
  }

  #endTask(): void {
    this.#task = undefined;
    this.#taskTimer?.cancel();
    this.#taskOpen = false;
  }

  #failTask(reason: string): void {
    this.#host.surroundings.scheduler.trace(`temporal: a workflow task of ${this.label} is done again: ${reason}`);
    this.#endTask();
    this.evict();
    this.#wake();
  }

  #obey(command: Command, all: readonly Command[]): void {
    const {
      scheduleActivity,
      requestCancelActivity,
      startTimer,
      cancelTimer,
      startChildWorkflowExecution,
      updateResponse,
    } = command;
    if (scheduleActivity) {
      const cancelled = all.some((other) => other.requestCancelActivity?.seq === scheduleActivity.seq);
      if (!cancelled) this.#schedule(scheduleActivity);
      else this.#tellCancelled(scheduleActivity);
    } else if (requestCancelActivity) this.#cancelActivity(requestCancelActivity.seq ?? 0);
    else if (startTimer) this.#startTimer(startTimer.seq ?? 0, milliseconds(startTimer.startToFireTimeout));
    else if (cancelTimer) {
      this.#timers.get(cancelTimer.seq ?? 0)?.cancel();
      this.#timers.delete(cancelTimer.seq ?? 0);
    } else if (startChildWorkflowExecution) this.#host.startChild(this, startChildWorkflowExecution);
    else if (updateResponse) this.#answer(updateResponse);
    else if (command.completeWorkflowExecution) {
      this.#result = fromPayload(command.completeWorkflowExecution.result);
      this.#close('COMPLETED');
    } else if (command.failWorkflowExecution) {
      this.#failure = command.failWorkflowExecution.failure ?? {};
      this.#close('FAILED');
    } else if (command.cancelWorkflowExecution) {
      this.#failure = { canceledFailureInfo: {} };
      this.#close('CANCELLED');
    } else if (!command.upsertWorkflowSearchAttributes && !command.setPatchMarker)
      throw new Error(`The simulated Temporal has no ${Object.keys(command).join(', ')}`);
  }

  #schedule(command: ScheduleActivity): void {
    const { surroundings, workers } = this.#host;
    this.#activities.set(command.seq ?? 0, new ActivityTask(command, this, surroundings, workers));
  }

  #cancelActivity(seq: number): void {
    const task = this.#activities.get(seq);
    if (!task) return;
    const type: number = task.command.cancellationType ?? CANCELLATION.TRY_CANCEL;
    if (type !== CANCELLATION.WAIT_CANCELLATION_COMPLETED) {
      this.#activities.delete(seq);
      this.#tellCancelled(task.command);
    }
    if (type === CANCELLATION.TRY_CANCEL || type === CANCELLATION.WAIT_CANCELLATION_COMPLETED) task.requestCancel();
  }

  /** Without waiting for what runs of it, if anything does. */
  #tellCancelled({ seq, activityId, activityType }: ScheduleActivity): void {
    const failure: Failure = {
      message: 'Activity cancelled',
      cause: { canceledFailureInfo: {} },
      activityFailureInfo: { activityId: activityId ?? '', activityType: { name: activityType ?? '' } },
    };
    this.happened({
      kind: 'activity',
      seq: seq ?? 0,
      activityId: activityId ?? '',
      type: activityType ?? '',
      outcome: { kind: 'cancelled', failure },
    });
  }

  #startTimer(seq: number, inMs: number): void {
    const { scheduler } = this.#host.surroundings;
    this.#timers.set(
      seq,
      scheduler.post(
        undefined,
        `timer ${seq} of ${this.label}`,
        () => {
          if (this.#timers.delete(seq)) this.happened({ kind: 'timer', seq });
        },
        inMs,
      ),
    );
  }

  #answer({ protocolInstanceId, accepted, completed, rejected }: NonNullable<Command['updateResponse']>): void {
    const id = protocolInstanceId ?? '';
    const update = this.#updates.get(id);
    if (!update) return;
    if (accepted) update.accepted = true;
    else {
      this.#updates.delete(id);
      if (rejected) update.reject(fromFailure(rejected));
      else update.resolve(fromPayload(completed));
    }
  }

  #close(status: RunStatus): void {
    this.#status = status;
    this.#host.surroundings.scheduler.trace(`temporal: ${this.label} is closed: ${status}`);
    this.#endTask();
    this.#host.workers.withdraw(this.taskQueue, this);
    for (const task of this.#activities.values()) task.close();
    for (const timer of this.#timers.values()) timer.cancel();
    this.#activities.clear();
    this.#timers.clear();
    this.#dropUpdates();
    this.#host.closed(this);
  }

  #dropUpdates(): void {
    for (const { reject } of this.#updates.values())
      reject(new commonSdk.WorkflowNotFoundError('workflow execution already completed', this.workflowId, this.runId));
    this.#updates.clear();
  }

  #assertOpen(): void {
    if (this.#status !== 'RUNNING')
      throw new commonSdk.WorkflowNotFoundError('workflow execution already completed', this.workflowId, this.runId);
  }
}
