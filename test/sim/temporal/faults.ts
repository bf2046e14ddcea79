/**
 * What goes wrong by chance: how many times each kind may still happen (the runner sets it; nothing does unless it does),
 * and how probable it is at each opportunity. What a fault does is told where its kind is asked for.
 */
import type { Scheduler } from '../scheduler';

export interface FaultBudget {
  /** An attempt's heartbeats do not arrive for a while: Temporal begins the next attempt beside it. */
  heartbeatsLost: number;
  /** An attempt is given to a worker and gets lost on the way. */
  lostTasks: number;
  /** What an attempt ended with arrives late, perhaps after the next one has begun. */
  lateResults: number;
  /** An attempt hears late that it is not wanted any more. */
  lateCancels: number;
  /** Temporal and an agent that lives do not reach each other for a while. */
  unreachable: number;
  /** The control worker forgets a workflow, and replays it from its history. */
  evictions: number;
  /** An operator pauses an activity for a while: what runs of it is interrupted. */
  activityPauses: number;
  /** An operator resets an activity: what runs of it is interrupted, attempts are counted from 1 again. */
  activityResets: number;
  /** An operator ends a workflow without a clean-up. */
  terminations: number;
  /** An operator resets a workflow, open or closed, to any earlier result. */
  resets: number;
  /** An operator cancels: by the signal or by Temporal's own cancel. */
  cancels: number;
}

export type FaultKind = keyof FaultBudget;

export class FaultInjector {
  readonly budget: FaultBudget = {
    heartbeatsLost: 0,
    lostTasks: 0,
    lateResults: 0,
    lateCancels: 0,
    unreachable: 0,
    evictions: 0,
    activityPauses: 0,
    activityResets: 0,
    terminations: 0,
    resets: 0,
    cancels: 0,
  };
  /** Of one opportunity, the probability that a fault with budget left happens. */
  rate = 0.05;
  readonly #scheduler: Scheduler;

  constructor(scheduler: Scheduler) {
    this.#scheduler = scheduler;
  }

  /** Whether it happens here and now; takes from the budget where it does. */
  strikes(kind: FaultKind): boolean {
    if (this.budget[kind] <= 0 || this.#scheduler.random() >= this.rate) return false;
    this.budget[kind] -= 1;
    return true;
  }

  /** A length of time, short ones as likely as long ones. */
  spell(minMs: number, maxMs: number): number {
    return Math.round(minMs * (maxMs / minMs) ** this.#scheduler.random());
  }
}
