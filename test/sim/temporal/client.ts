/**
 * What simulated processes take for @temporalio/client: handles of workflows with what the agents use of them. Calls take
 * their time, and fail from a process that does not reach Temporal.
 */
import type { SimProcess } from '../scheduler';
import { commonSdk } from './sdk';
import { postTo, type Surroundings } from './types';
import type { Workers } from './workers';
import type { WorkflowRun } from './workflow-run';

/** A call that does not get through is given up after this time. */
const GIVE_UP_MS = 10_000;

export interface Description {
  readonly workflowId: string;
  readonly runId: string;
  readonly type: string;
  readonly status: { readonly name: string };
  readonly typedSearchAttributes: commonSdk.TypedSearchAttributes;
  readonly staticDetails?: string;
}

export interface SimClientHandle {
  readonly workflowId: string;
  describe(): Promise<Description>;
  signal(definition: string | { readonly name: string }, ...args: unknown[]): Promise<void>;
  query(definition: string | { readonly name: string }): Promise<unknown>;
  cancel(): Promise<void>;
  terminate(reason?: string): Promise<void>;
}

export interface SimClient {
  readonly options: { readonly namespace: string };
  readonly workflow: { getHandle(workflowId: string, runId?: string): SimClientHandle };
}

export class ClientFactory {
  readonly #surroundings: Surroundings;
  readonly #workers: Workers;
  readonly #find: (workflowId: string, runId: string | undefined) => WorkflowRun | undefined;

  constructor(
    surroundings: Surroundings,
    workers: Workers,
    find: (workflowId: string, runId: string | undefined) => WorkflowRun | undefined,
  ) {
    this.#surroundings = surroundings;
    this.#workers = workers;
    this.#find = find;
  }

  /** @param process where it is used; without it nothing stands between it and Temporal */
  clientOf(process?: SimProcess): SimClient {
    return {
      options: { namespace: 'default' },
      workflow: { getHandle: (workflowId, runId) => this.#handle(process, workflowId, runId) },
    };
  }

  module(): object {
    const client = (): SimClient => this.clientOf();
    return {
      ...commonSdk,
      Client: class {
        readonly options = client().options;
        readonly workflow = client().workflow;
      },
      Connection: { connect: () => Promise.resolve({ close: () => Promise.resolve() }) },
    };
  }

  #handle(process: SimProcess | undefined, workflowId: string, runId: string | undefined): SimClientHandle {
    const call = <T>(what: string, act: (run: WorkflowRun) => T): Promise<T> =>
      this.#call(process, `${what} ${workflowId}`, () => act(this.#required(workflowId, runId)));
    const nameOf = (definition: string | { readonly name: string }): string =>
      typeof definition === 'string' ? definition : definition.name;
    return {
      workflowId,
      describe: () =>
        call('describe', (run) => ({
          workflowId,
          runId: run.runId,
          type: run.workflowType,
          status: { name: run.status },
          typedSearchAttributes: run.typedSearchAttributes,
        })),
      signal: (definition, ...args) => call('signal', (run) => run.signal(nameOf(definition), ...args)),
      query: (definition) => call('query', (run) => run.query(nameOf(definition))),
      cancel: () => call('cancel', (run) => run.cancel()),
      terminate: (reason) => call('terminate', (run) => run.terminate(reason)),
    };
  }

  #required(workflowId: string, runId: string | undefined): WorkflowRun {
    const run = this.#find(workflowId, runId);
    if (!run) throw new commonSdk.WorkflowNotFoundError('workflow not found', workflowId, runId);
    return run;
  }

  #call<T>(process: SimProcess | undefined, label: string, act: () => T): Promise<T> {
    const { scheduler, hop } = this.#surroundings;
    return new Promise<T>((resolve, reject) => {
      const answer = (settle: () => void): void =>
        void postTo(scheduler, process, `answer to ${label}`, () => settle(), hop());
      if (process && !this.#workers.isReachable(process)) {
        postTo(
          scheduler,
          process,
          `${label} is given up`,
          () => reject(new Error(`14 UNAVAILABLE: Temporal does not answer (${label})`)),
          GIVE_UP_MS,
        );
        return;
      }
      scheduler.post(
        undefined,
        label,
        () => {
          try {
            const value = act();
            answer(() => resolve(value));
          } catch (error) {
            answer(() => reject(error));
          }
        },
        hop(),
      );
    });
  }
}
