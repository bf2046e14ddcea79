/**
 * What a search of the hand-over is told: how often each mishap may happen, which migrations there are, which tables they follow
 * and which rules are left out. What these mean in the model is said where they are used.
 */
import {
  DESTINATION_TABLE,
  type DestinationRow,
  type DestinationState,
  SOURCE_TABLE,
  type SourceRow,
  type SourceState,
} from '../../src/model/ownership-machine';

/** How often each may happen. */
export interface Budget {
  readonly agentCrash?: number;
  readonly hostCrash?: number;
  readonly qemuDeath?: number;
  /** Temporal gives an attempt up, which goes on. */
  readonly zombie?: number;
  readonly terminate?: number;
  readonly reset?: number;
  readonly cancel?: number;
  readonly abort?: number;
  readonly acceptTwoCopies?: number;
  readonly diskFull?: number;
  readonly cannotStart?: number;
}
export const BUDGETS = [
  'agentCrash',
  'hostCrash',
  'qemuDeath',
  'zombie',
  'terminate',
  'reset',
  'cancel',
  'abort',
  'acceptTwoCopies',
  'diskFull',
  'cannotStart',
] as const;
export type BudgetName = (typeof BUDGETS)[number];

export interface Tables {
  readonly source: Readonly<Record<SourceState, SourceRow>>;
  readonly destination: Readonly<Record<DestinationState, DestinationRow>>;
}
export const TABLES: Tables = { source: SOURCE_TABLE, destination: DESTINATION_TABLE };

export interface Configuration {
  readonly budget: Budget;
  /** A second migration of the VM, once the first one's workflow is closed: back, or again the same way. */
  readonly second?: 'back' | 'again';
  /** Rules that are left out, for the test that the search finds what they are for. */
  readonly without?: ReadonlySet<Rule>;
  /** Other tables than the code's, for the test that the search finds what a wrong line in them does. */
  readonly tables?: Tables;
}

/** What holds the hand-over together beside the tables. */
export const RULES = [
  'one step at a time',
  'only the last line lets run on',
  'only what stands still',
  'closed to data',
  'memory compared',
  'record first',
  'roll back again',
] as const;
export type Rule = (typeof RULES)[number];
