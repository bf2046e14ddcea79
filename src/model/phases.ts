/**
 * The phases of a migration: one list for workflow, logs, metrics, status and documents. The order is the order of
 * the flow; `standard_transfer` and `roll_back` are the side branches. KEEP IN SYNC: the picture in docs/migration-protocol.md
 * is drawn from PHASES by `npm run docs`.
 */

export interface PhaseSpec {
  readonly title: string;
  /** Cancelling here rolls back; where false the migration completes forward. */
  readonly mayRollBack: boolean;
}

export const PHASES = {
  start: { title: 'Start', mayRollBack: true },
  initialise_amst: { title: 'Initialise AMST', mayRollBack: true },
  establish_streams: { title: 'Establish streams', mayRollBack: true },
  detect_tier: { title: 'Detect the tier', mayRollBack: true },
  select_level: { title: 'Select level and streams', mayRollBack: true },
  check_baseline: { title: 'Check baseline', mayRollBack: true },
  compute_plan: { title: 'Compute delta or full plan', mayRollBack: true },
  transfer: { title: 'HDE encode and AMST transfer', mayRollBack: true },
  standard_transfer: { title: 'Standard transfer', mayRollBack: true },
  switchover: { title: 'Switchover', mayRollBack: false },
  complete: { title: 'Complete', mayRollBack: false },
  roll_back: { title: 'Roll back', mayRollBack: false },
  closed: { title: 'Closed', mayRollBack: false },
} as const satisfies Record<string, PhaseSpec>;

export type Phase = keyof typeof PHASES;

export const PHASE_NAMES = Object.keys(PHASES) as readonly Phase[];
