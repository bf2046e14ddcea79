/**
 * One workflow in the memory of one control worker: the real workflow code on the real SDK's runtime. Takes in batches of
 * what happened and gives out commands, as between the SDK and its native core. Where batches come from and what becomes of
 * commands is workflow-run.ts.
 */
import { asWorkflow, runMicrotasks } from './async-context';
import { Activator, type Command, commonSdk, fromPayload, type Job, runtime, SdkFlags, toPayload } from './sdk';
import type { Input } from './types';

const KNOWN_FLAGS = Object.values(SdkFlags).map(({ id }) => id);

export interface InstanceOptions {
  readonly code: (...args: unknown[]) => Promise<unknown>;
  readonly type: string;
  readonly workflowId: string;
  readonly runId: string;
  readonly taskQueue: string;
  readonly seed: readonly number[];
  readonly startedAtMs: number;
}

export class WorkflowInstance {
  readonly #activator: Activator;
  readonly #patches: string[] = [];
  readonly warnings: string[] = [];

  constructor({ code, type, workflowId, runId, taskQueue, seed, startedAtMs }: InstanceOptions) {
    const execution = { runId, workflowId };
    const info = {
      ...execution,
      workflowType: type,
      taskQueue,
      namespace: 'default',
      firstExecutionRunId: runId,
      originalExecutionRunId: runId,
      attempt: 1,
      historyLength: 0,
      historySize: 0,
      searchAttributes: {},
      typedSearchAttributes: new commonSdk.TypedSearchAttributes(),
      continueAsNewSuggested: false,
      targetWorkerDeploymentVersionChanged: false,
      taskTimeoutMs: 10_000,
      startTime: new Date(startedAtMs),
      runStartTime: new Date(startedAtMs),
      unsafe: {
        now: () => startedAtMs,
        random: () => {
          throw new Error('a workflow asked for chance that replays differently');
        },
        isReplaying: false,
        isReplayingHistoryEvents: false,
      },
    };
    this.#activator = asWorkflow(
      undefined as unknown as Activator,
      () =>
        new Activator({
          info: info as unknown as Activator['info'],
          now: startedAtMs,
          randomnessSeed: [...seed],
          registeredActivityNames: new Set(),
          getTimeOfDay: () => 0n,
          showStackTraceSources: false,
          stackTracesEnabled: false,
          sourceMap: {} as ConstructorParameters<typeof Activator>[0]['sourceMap'],
        }),
    );
    this.#activator.workflow = code;
    // What this SDK does, in replays too; the real core hands on what the history names.
    this.#activator.addKnownFlags(KNOWN_FLAGS);
  }

  /** The history has its marker: before anything is replayed. */
  knowPatch(marker: Command['setPatchMarker']): void {
    const patchId = marker?.patchId;
    if (patchId) this.#patches.push(patchId);
  }

  get searchAttributes(): commonSdk.TypedSearchAttributes {
    return this.#activator.info.typedSearchAttributes;
  }

  get details(): string {
    return this.#activator.currentDetails;
  }

  /** One activation. @throws what the SDK calls a workflow task failure: a fault of the workflow's code, never of a migration */
  apply(inputs: readonly Input[], atMs: number, replaying: boolean): Command[] {
    const activator = this.#activator;
    activator.now = atMs;
    activator.mutateWorkflowInfo((info) => ({
      ...info,
      unsafe: { ...info.unsafe, now: () => atMs, isReplaying: replaying, isReplayingHistoryEvents: replaying },
    }));
    if (replaying) for (const patchId of this.#patches.splice(0)) activator.notifyHasPatch({ patchId });
    const jobs = inputs
      .filter(({ kind }) => kind !== 'seed')
      .map((input) => jobOf(input, this.#activator.info.workflowType, replaying))
      .sort((one, other) => rankOf(one) - rankOf(other));
    asWorkflow(activator, () => {
      const start = jobs[0]?.initializeWorkflow;
      if (start) runtime.initialize(start);
      for (const input of inputs)
        if (input.kind === 'seed')
          activator.updateRandomSeed({ randomnessSeed: { toBytes: () => [...input.bytes] } } as unknown as Parameters<
            Activator['updateRandomSeed']
          >[0]);
      runtime.activate({ jobs: [...jobs] });
    });
    runMicrotasks();
    while (asWorkflow(activator, () => runtime.tryUnblockConditions()) > 0) runMicrotasks();
    const { successful } = asWorkflow(activator, () => runtime.concludeActivation());
    for (const { fnName, args } of activator.getAndResetSinkCalls() as { fnName: string; args: unknown[] }[])
      if (fnName === 'warn' && args[0] !== 'Workflow failed') this.warnings.push(String(args[0]));
    return [...(successful?.commands ?? [])];
  }

  /** The answer of a query's handler. */
  query(name: string): unknown {
    const handler = this.#activator.queryHandlers.get(name)?.handler;
    if (!handler) throw new Error(`No query ${name}`);
    return fromPayload(toPayload(asWorkflow(this.#activator, () => handler() as unknown)));
  }
}

/** As the SDK's core orders the jobs of one activation. */
function rankOf({ variant }: Job): number {
  if (variant === 'initializeWorkflow') return 0;
  return variant === 'signalWorkflow' || variant === 'doUpdate' ? 1 : 2;
}

function jobOf(input: Input, workflowType: string, replaying: boolean): Job {
  switch (input.kind) {
    case 'start':
      return job('initializeWorkflow', { workflowType, arguments: [...input.args], headers: {} });
    case 'signal':
      return job('signalWorkflow', { signalName: input.name, input: [...input.args], headers: {} });
    case 'update':
      return job('doUpdate', {
        id: input.id,
        protocolInstanceId: input.id,
        name: input.name,
        input: [...input.args],
        headers: {},
        runValidator: !replaying,
      });
    case 'cancel':
      return job('cancelWorkflow', {});
    case 'activity':
      return job('resolveActivity', { seq: input.seq, result: resolution(input.outcome) });
    case 'timer':
      return job('fireTimer', { seq: input.seq });
    case 'childStarted':
      return job('resolveChildWorkflowExecutionStart', { seq: input.seq, succeeded: { runId: input.runId } });
    case 'childRefused':
      return job('resolveChildWorkflowExecutionStart', {
        seq: input.seq,
        failed: { workflowId: input.workflowId, workflowType: input.workflowType, cause: 1 },
      });
    case 'childClosed':
      return job('resolveChildWorkflowExecution', { seq: input.seq, result: resolution(input.outcome) });
    case 'seed':
      throw new Error('not a job');
  }
}

function job(variant: string, content: object): Job {
  return { variant, [variant]: content } as Job;
}

function resolution(outcome: Extract<Input, { kind: 'activity' }>['outcome']): object {
  return outcome.kind === 'completed'
    ? { completed: { result: outcome.result } }
    : { [outcome.kind]: { failure: outcome.failure } };
}
