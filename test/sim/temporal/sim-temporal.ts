/**
 * A small Temporal for the simulation: the real workflow code on the SDK's real workflow runtime, the real activities under
 * its real context, and between them, in the scheduler's time and order, what the SDK's native core and the server do.
 * Deterministic: the same seed, the same story. One process's world, files and network are not here.
 *
 * How to join:
 *
 *   const temporal = createSimTemporal(scheduler, (modules) => load('dist/workflows/index.js', modules));
 *   // modules of a simulated process: { ...temporal.modules, ...its own }, and its client: temporal.clientOf(process)
 *   temporal.registerWorker(control, CONTROL_QUEUE, createControlActivities(...));   // also carries out workflow tasks
 *   temporal.registerWorker(agent, hostQueue('a'), { ...createSourceActivities(...), ...createDestinationActivities(...) });
 *   const run = temporal.startWorkflow('migrateVm', migrationWorkflowId('vm'), [request]);
 *   temporal.faults.budget.resets = 1;          // and what else may happen by chance
 *
 * Kill a process by making `alive` false; its restart is another SimProcess, registered anew. One that has post() takes its
 * events itself, and may hold them while it is suspended. A server that is away is setReachable(false) of all. Import this before anything
 * else that loads @temporalio/workflow. Steps are made from a macrotask. Timers of simulated processes keep the async context
 * of who set them (AsyncResource.bind): heartbeats come from an interval. A Date for workflows reads `workflowNowMs`.
 * `problems` is empty at the end, or the workflow's code is wrong; a workflow task that fails, or a replay that differs,
 * throws out of the step.
 */
import { CONTROL_QUEUE, MESSAGES } from '../../../src/model/names';
import type { Scheduler, SimProcess } from '../scheduler';
import type { ActivityAttempt } from './activity-attempt';
import type { ActivityTask } from './activity-task';
import { currentActivator } from './async-context';
import { ClientFactory, type SimClient } from './client';
import { FaultInjector } from './faults';
import type { Fork } from './history';
import { activitySdk, type Command, commonSdk, protoSdk, toPayloads, workflowSdk } from './sdk';
import { type Activities, type ActivityOutcome, postTo, type Surroundings } from './types';
import { Workers } from './workers';
import { type RunHost, WorkflowRun } from './workflow-run';

export type { ActivityAttempt } from './activity-attempt';
export type { SimClient } from './client';
export type { FaultBudget, FaultInjector } from './faults';
export type { Activities, HistoryEntry, RunStatus } from './types';
/** What the runner holds of a run. See the class for all of it. */
export type { WorkflowRun as SimWorkflowHandle } from './workflow-run';

type WorkflowCode = Readonly<Record<string, unknown>>;
export type WorkflowType = keyof typeof import('../../../workflows');

export interface SimTemporal {
  /** Replacements for require() of @temporalio/... inside simulated processes and workflows. */
  readonly modules: Readonly<Record<string, object>>;
  readonly faults: FaultInjector;
  /** Faults of workflow code that Temporal would only warn of. */
  readonly problems: readonly string[];
  /** Attempts whose code runs now, zombies among them. */
  readonly running: readonly ActivityAttempt[];
  /** Of the workflow that asks, else of the simulation: what Date.now() is in a workflow, in replays as at first. */
  readonly workflowNowMs: number;
  clientOf(process?: SimProcess): SimClient;
  registerWorker(process: SimProcess, taskQueue: string, activities: Activities): void;
  /**
   * SIGTERM: takes no more work; after the grace what it runs is told to stop, and reports that. When it ends is the
   * process's own business.
   */
  shutDown(process: SimProcess, graceMs?: number): void;
  /** Whether Temporal and that process reach each other; it lives and works on either way. */
  setReachable(process: SimProcess, reachable: boolean): void;
  /** @throws WorkflowExecutionAlreadyStartedError while one of that id is open */
  startWorkflow(type: WorkflowType, workflowId: string, args: readonly unknown[]): WorkflowRun;
  /** The newest run of that id. */
  find(workflowId: string): WorkflowRun | undefined;
  /** All of one id, the oldest first. */
  runsOf(workflowId: string): readonly WorkflowRun[];
  /** Told of every attempt that begins. */
  onAttempt(listener: (attempt: ActivityAttempt) => void): void;
}

export function createSimTemporal(
  scheduler: Scheduler,
  loadWorkflows: (modules: Readonly<Record<string, object>>) => object,
): SimTemporal {
  return new Server(scheduler, loadWorkflows);
}

class Server implements SimTemporal, RunHost {
  readonly modules: Readonly<Record<string, object>>;
  readonly faults: FaultInjector;
  readonly problems: string[] = [];
  readonly surroundings: Surroundings;
  readonly workers: Workers;
  readonly #scheduler: Scheduler;
  readonly #clients: ClientFactory;
  readonly #workflows: WorkflowCode;
  readonly #runs = new Map<string, WorkflowRun[]>();
  readonly #parents = new Map<string, { readonly parent: WorkflowRun; readonly seq: number }>();
  readonly #listeners: ((attempt: ActivityAttempt) => void)[] = [];
  #attempts: ActivityAttempt[] = [];
  #runNumber = 0;

  constructor(scheduler: Scheduler, loadWorkflows: (modules: Readonly<Record<string, object>>) => object) {
    this.#scheduler = scheduler;
    this.faults = new FaultInjector(scheduler);
    this.surroundings = { scheduler, faults: this.faults, hop: () => Math.floor(scheduler.random() * 4) };
    this.workers = new Workers(this.surroundings);
    this.#clients = new ClientFactory(this.surroundings, this.workers, (workflowId, runId) =>
      runId === undefined ? this.find(workflowId) : this.#runs.get(workflowId)?.find((run) => run.runId === runId),
    );
    this.modules = {
      '@temporalio/activity': activitySdk,
      '@temporalio/common': commonSdk,
      '@temporalio/client': this.#clients.module(),
      '@temporalio/proto': protoSdk,
      '@temporalio/worker': {
        Runtime: { install: () => undefined },
        Worker: { create: () => Promise.reject(new Error('Simulated workers are made with registerWorker')) },
      },
      '@temporalio/workflow': workflowSdk,
    };
    this.#workflows = loadWorkflows(this.modules) as WorkflowCode;
  }

  get running(): readonly ActivityAttempt[] {
    return this.#attempts.filter((attempt) => attempt.running);
  }

  get workflowNowMs(): number {
    return currentActivator()?.now ?? this.#scheduler.nowMs;
  }

  clientOf(process?: SimProcess): SimClient {
    return this.#clients.clientOf(process);
  }

  registerWorker(process: SimProcess, taskQueue: string, activities: Activities): void {
    this.workers.register({ process, taskQueue, activities });
  }

  shutDown(process: SimProcess, graceMs = 1_000): void {
    this.#scheduler.trace(`temporal: the worker of ${process.name} shuts down`);
    this.workers.remove(process);
    postTo(
      this.#scheduler,
      process,
      `${process.name} stops its activities`,
      () => {
        for (const attempt of this.running) if (attempt.worker.process === process) attempt.stop('WORKER_SHUTDOWN');
      },
      graceMs,
    );
  }

  setReachable(process: SimProcess, reachable: boolean): void {
    this.workers.setReachable(process, reachable);
  }

  startWorkflow(type: string, workflowId: string, args: readonly unknown[]): WorkflowRun {
    return this.#start(type, workflowId, toPayloads(args));
  }

  find(workflowId: string): WorkflowRun | undefined {
    return this.#runs.get(workflowId)?.at(-1);
  }

  runsOf(workflowId: string): readonly WorkflowRun[] {
    return this.#runs.get(workflowId) ?? [];
  }

  onAttempt(listener: (attempt: ActivityAttempt) => void): void {
    this.#listeners.push(listener);
  }

  codeOf(type: string): (...args: unknown[]) => Promise<unknown> {
    const code = this.#workflows[type];
    if (typeof code !== 'function') throw new Error(`No workflow ${type}`);
    return code as (...args: unknown[]) => Promise<unknown>;
  }

  startChild(
    parent: WorkflowRun,
    { seq, workflowId, workflowType, input }: NonNullable<Command['startChildWorkflowExecution']>,
  ): void {
    const place = { seq: seq ?? 0, workflowId: workflowId ?? '', workflowType: workflowType ?? '' };
    this.#scheduler.post(
      undefined,
      `child ${place.workflowId}`,
      () => {
        if (this.find(place.workflowId)?.status === 'RUNNING') {
          parent.happened({ kind: 'childRefused', ...place });
          return;
        }
        const child = this.#start(place.workflowType, place.workflowId, input ?? []);
        this.#parents.set(child.runId, { parent, seq: place.seq });
        parent.happened({ kind: 'childStarted', seq: place.seq, runId: child.runId });
      },
      this.surroundings.hop(),
    );
  }

  reset(run: WorkflowRun, { retained, pending }: Fork): WorkflowRun {
    const open = this.find(run.workflowId);
    if (open?.status === 'RUNNING') open.terminate('because of a reset');
    return this.#add(run.workflowType, run.workflowId, run.taskQueue, run.seed, {
      retained,
      pending: [...pending, { kind: 'seed', bytes: this.#seed() }],
    });
  }

  attempted(attempt: ActivityAttempt): void {
    this.#attempts = [...this.#attempts.filter((other) => other.unfinished), attempt];
    for (const listener of this.#listeners) listener(attempt);
  }

  problem(text: string): void {
    this.#scheduler.trace(`PROBLEM ${text}`);
    this.problems.push(text);
  }

  closed(run: WorkflowRun): void {
    const link = this.#parents.get(run.runId);
    if (!link) return;
    const outcome: ActivityOutcome =
      run.status === 'COMPLETED'
        ? { kind: 'completed', result: toPayloads([run.result])[0] }
        : {
            kind: run.status === 'CANCELLED' ? 'cancelled' : 'failed',
            failure: {
              message: 'Child Workflow execution failed',
              cause: run.failure ?? null,
              childWorkflowExecutionFailureInfo: {
                workflowType: { name: run.workflowType },
                workflowExecution: { workflowId: run.workflowId, runId: run.runId },
              },
            },
          };
    link.parent.happened({ kind: 'childClosed', seq: link.seq, outcome });
  }

  /** An operator who does harm, at any later moment, to that workflow as it is then. */
  taskDone({ workflowId }: WorkflowRun): void {
    const { faults } = this;
    const later = (label: string, act: (run: WorkflowRun) => void): void => {
      this.#scheduler.post(
        undefined,
        label,
        () => {
          const run = this.find(workflowId);
          if (run) act(run);
        },
        faults.spell(1, 60_000),
      );
    };
    if (faults.strikes('evictions')) later('evict', (run) => run.evict());
    const activity = (act: (task: ActivityTask) => void): void =>
      later('an operator looks at an activity', (run) => {
        if (run.activities.length > 0) act(this.#scheduler.pick(run.activities));
      });
    if (faults.strikes('activityResets')) activity((task) => task.reset());
    if (faults.strikes('activityPauses'))
      activity((task) => {
        task.pause();
        this.#scheduler.post(undefined, 'unpause', () => task.unpause(), faults.spell(100, 120_000));
      });
    if (faults.strikes('terminations'))
      later('terminate', (run) => {
        if (run.status === 'RUNNING') run.terminate();
      });
    if (faults.strikes('resets'))
      later('reset', (run) =>
        run.reset(Math.floor(this.#scheduler.random() * (run.history.length + 1)), {
          reapply: this.#scheduler.random() < 0.8,
        }),
      );
    if (faults.strikes('cancels'))
      later('cancel', (run) => {
        if (run.status !== 'RUNNING') return;
        if (this.#scheduler.random() < 0.5) run.cancel();
        else run.signal(MESSAGES.cancelSignal);
      });
  }

  #start(type: string, workflowId: string, args: ReturnType<typeof toPayloads>): WorkflowRun {
    if (this.find(workflowId)?.status === 'RUNNING')
      throw new commonSdk.WorkflowExecutionAlreadyStartedError('Workflow execution already started', workflowId, type);
    this.codeOf(type);
    this.#scheduler.trace(`temporal: ${workflowId} is started`);
    return this.#add(type, workflowId, CONTROL_QUEUE, this.#seed(), {
      retained: [],
      pending: [{ kind: 'start', args }],
    });
  }

  #add(type: string, workflowId: string, taskQueue: string, seed: readonly number[], fork: Fork): WorkflowRun {
    const run = new WorkflowRun(
      { type, workflowId, taskQueue, seed, runId: `run-${(this.#runNumber += 1)}` },
      this,
      fork,
    );
    this.#runs.set(workflowId, [...(this.#runs.get(workflowId) ?? []), run]);
    return run;
  }

  #seed(): number[] {
    return Array.from({ length: 8 }, () => Math.floor(this.#scheduler.random() * 256));
  }
}
