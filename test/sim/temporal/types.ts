/**
 * What the parts of the simulated Temporal tell each other: what a workflow takes in, what is remembered of a run, what a
 * worker is, how a process is given something to do, and what the server's parts need of their surroundings.
 */
import type { Scheduler, SimProcess, Task } from '../scheduler';
import type { FaultInjector } from './faults';
import type { Failure, Payload } from './sdk';

export type { Scheduler, SimProcess, Task } from '../scheduler';

export type RunStatus = 'RUNNING' | 'COMPLETED' | 'FAILED' | 'CANCELLED' | 'TERMINATED';

export type ActivityOutcome =
  | { readonly kind: 'completed'; readonly result: Payload | undefined }
  | { readonly kind: 'failed' | 'cancelled'; readonly failure: Failure };

/** Something that happens to a workflow: an event of its history that its code sees. */
export type Input =
  | { readonly kind: 'start'; readonly args: readonly Payload[] }
  /** After a reset: chance is another from here on. */
  | { readonly kind: 'seed'; readonly bytes: readonly number[] }
  | { readonly kind: 'signal'; readonly name: string; readonly args: readonly Payload[] }
  | { readonly kind: 'update'; readonly id: string; readonly name: string; readonly args: readonly Payload[] }
  | { readonly kind: 'cancel' }
  | {
      readonly kind: 'activity';
      readonly seq: number;
      readonly activityId: string;
      readonly type: string;
      readonly outcome: ActivityOutcome;
    }
  | { readonly kind: 'timer'; readonly seq: number }
  | { readonly kind: 'childStarted'; readonly seq: number; readonly runId: string }
  | { readonly kind: 'childRefused'; readonly seq: number; readonly workflowId: string; readonly workflowType: string }
  | { readonly kind: 'childClosed'; readonly seq: number; readonly outcome: ActivityOutcome };

/** What activities a run has had the results of, in their order. */
export interface HistoryEntry {
  readonly activityId: string;
  readonly type: string;
  readonly outcome: 'completed' | 'failed' | 'cancelled';
  /** Of what did not complete: what the workflow was told. */
  readonly failure?: string;
}

export type Activities = Readonly<Record<string, (...args: never[]) => Promise<unknown>>>;

export interface SimWorker {
  readonly process: SimProcess;
  readonly taskQueue: string;
  readonly activities: Activities;
}

/** A process whose events wait while it is suspended takes them itself. */
interface Acting extends SimProcess {
  post?(label: string, act: () => void, delayMs?: number): Task;
}

export function postTo(
  scheduler: Scheduler,
  process: SimProcess | undefined,
  label: string,
  act: () => void,
  delayMs?: number,
): Task {
  const acting: Acting | undefined = process;
  return acting?.post ? acting.post(label, act, delayMs) : scheduler.post(process, label, act, delayMs);
}

export interface Surroundings {
  readonly scheduler: Scheduler;
  readonly faults: FaultInjector;
  /** Milliseconds that a message between Temporal and a worker takes. */
  readonly hop: () => number;
}
