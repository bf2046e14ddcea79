/**
 * Who owns a VM, as pure tables: for each side, what an event in a state leads to (the next state, whether a line is written
 * first, what is then done), what is allowed in a state, and what an agent does about it when it starts and when the workflow
 * is closed. Journals, activities, recovery and sweep only carry it out; docs/switchover.md is made from it, the checker
 * (test/model) searches it, the simulator (test/sim) runs the code that follows it.
 *
 *   source:       claimed ──> handed_over ──> releasing ──> released
 *                    │             │  (the destination has promised not to start, or an operator accepts two copies)
 *                    └─────────────┴──> rolling_back ──> rolled_back
 *
 *   destination:  promised ──> mine ──> installed
 *                    │          └──> given_back      (before the guest has run here: it cannot be started)
 *                    └──> abandoned
 */
import type { ErrorCode } from './error-codes';

export const SOURCE_STATES = [
  'none',
  'claimed',
  'handed_over',
  'releasing',
  'released',
  'rolling_back',
  'rolled_back',
] as const;
export type SourceState = (typeof SOURCE_STATES)[number];
export const DESTINATION_STATES = ['none', 'promised', 'mine', 'installed', 'abandoned', 'given_back'] as const;
export type DestinationState = (typeof DESTINATION_STATES)[number];

/** `hand_over`: everything is at the destination, the guest stands still. `taken_over`: the destination says that it has it.
 * `roll_back_promised`: the destination has promised not to start it, or an operator accepts that it may run twice. */
export const SOURCE_EVENTS = [
  'claim',
  'hand_over',
  'taken_over',
  'released',
  'roll_back',
  'roll_back_promised',
  'runs_again',
] as const;
export type SourceEvent = (typeof SOURCE_EVENTS)[number];
export const DESTINATION_EVENTS = ['prepare', 'take_over', 'installed', 'abandon', 'cannot_start'] as const;
export type DestinationEvent = (typeof DESTINATION_EVENTS)[number];

export type SourceEffect = 'let the guest run on' | 'end its QEMU' | 'its images become baselines' | 'the VM is away';
export type DestinationEffect =
  | 'start the guest'
  | 'put files in place'
  | 'the VM is here'
  | 'end its QEMU'
  | 'keep what has arrived as baseline'
  | 'forget the record';

/** What an event leads to. `to` is on disk before anything in `effects` is done; where the state stays, no line is written. */
export type Step<S, E> = { readonly to: S; readonly effects: readonly E[] } | { readonly refused: ErrorCode };

export interface Row<S, Event extends string, E> {
  readonly meaning: string;
  /** The migration still has the VM in its hands on this host: no other gets it. */
  readonly open: boolean;
  readonly on: Readonly<Record<Event, Step<S, E>>>;
  /** The event that an agent gives itself when it starts, before it has heard of Temporal. */
  readonly atStart: Event | 'let the guest run on' | 'nothing';
  /** What the sweep does where the migration's workflow is closed. */
  readonly whenClosed: Event | 'ask the destination' | 'nothing';
}

export interface SourceRow extends Row<SourceState, SourceEvent, SourceEffect> {
  /** `cont` may be said to the guest's QEMU here, as long as this is the VM's last line. */
  readonly mayRun: boolean;
}

export interface DestinationRow extends Row<DestinationState, DestinationEvent, DestinationEffect> {
  /** Data of this migration is taken in. */
  readonly takesData: boolean;
  /** `cont` may be said to the arrived guest. */
  readonly mayRun: boolean;
}

const no = (refused: ErrorCode): { readonly refused: ErrorCode } => ({ refused });
const stay = <S>(to: S): { readonly to: S; readonly effects: readonly [] } => ({ to, effects: [] });

const ROLL_BACK = { to: 'rolling_back', effects: ['let the guest run on'] } as const;
const RELEASE = {
  to: 'releasing',
  effects: ['end its QEMU', 'its images become baselines', 'the VM is away'],
} as const;

export const SOURCE_TABLE: Readonly<Record<SourceState, SourceRow>> = {
  none: {
    meaning: 'the migration has not claimed the VM here',
    open: false,
    mayRun: false,
    atStart: 'nothing',
    whenClosed: 'nothing',
    on: {
      claim: stay('claimed'),
      hand_over: no('ABANDONED'),
      taken_over: no('ABANDONED'),
      released: no('ABANDONED'),
      roll_back: stay('none'),
      roll_back_promised: stay('none'),
      runs_again: stay('none'),
    },
  },
  claimed: {
    meaning: 'it is this migration’s; a guest runs here, or stands still for its last round',
    open: true,
    mayRun: true,
    atStart: 'let the guest run on',
    whenClosed: 'roll_back',
    on: {
      claim: stay('claimed'),
      hand_over: stay('handed_over'),
      taken_over: no('ABANDONED'),
      released: no('ABANDONED'),
      roll_back: ROLL_BACK,
      roll_back_promised: ROLL_BACK,
      runs_again: stay('claimed'),
    },
  },
  handed_over: {
    meaning: 'this host does not let it run again by itself',
    open: true,
    mayRun: false,
    atStart: 'nothing',
    whenClosed: 'ask the destination',
    on: {
      claim: stay('handed_over'),
      hand_over: stay('handed_over'),
      taken_over: RELEASE,
      released: no('HANDOVER_IN_DOUBT'),
      roll_back: no('HANDOVER_IN_DOUBT'),
      roll_back_promised: ROLL_BACK,
      runs_again: no('HANDOVER_IN_DOUBT'),
    },
  },
  releasing: {
    meaning: 'the destination has it; what is left here becomes baselines',
    open: true,
    mayRun: false,
    atStart: 'taken_over',
    whenClosed: 'taken_over',
    on: {
      claim: stay('releasing'),
      hand_over: stay('releasing'),
      taken_over: RELEASE,
      released: stay('released'),
      roll_back: no('ALREADY_PAST_RETURN'),
      roll_back_promised: no('ALREADY_PAST_RETURN'),
      runs_again: no('ALREADY_PAST_RETURN'),
    },
  },
  released: {
    meaning: 'it has moved away',
    open: false,
    mayRun: false,
    atStart: 'nothing',
    whenClosed: 'nothing',
    on: {
      claim: stay('released'),
      hand_over: stay('released'),
      taken_over: stay('released'),
      released: stay('released'),
      roll_back: no('ALREADY_PAST_RETURN'),
      roll_back_promised: no('ALREADY_PAST_RETURN'),
      runs_again: no('ALREADY_PAST_RETURN'),
    },
  },
  rolling_back: {
    meaning: 'it is this host’s again, and its guest is about to run on',
    open: true,
    mayRun: true,
    atStart: 'roll_back',
    whenClosed: 'roll_back',
    on: {
      claim: no('ABANDONED'),
      hand_over: no('ABANDONED'),
      taken_over: no('ABANDONED'),
      released: no('ABANDONED'),
      roll_back: ROLL_BACK,
      roll_back_promised: ROLL_BACK,
      runs_again: stay('rolled_back'),
    },
  },
  rolled_back: {
    meaning: 'it is as before the migration',
    open: false,
    mayRun: false,
    atStart: 'nothing',
    whenClosed: 'nothing',
    on: {
      claim: stay('claimed'),
      hand_over: no('ABANDONED'),
      taken_over: no('ABANDONED'),
      released: no('ABANDONED'),
      roll_back: stay('rolled_back'),
      roll_back_promised: stay('rolled_back'),
      runs_again: stay('rolled_back'),
    },
  },
};

const TAKE_OVER = { to: 'mine', effects: ['start the guest', 'put files in place', 'the VM is here'] } as const;
const GIVE_UP: readonly DestinationEffect[] = [
  'end its QEMU',
  'keep what has arrived as baseline',
  'forget the record',
];

export const DESTINATION_TABLE: Readonly<Record<DestinationState, DestinationRow>> = {
  none: {
    meaning: 'the migration has not been here',
    open: false,
    takesData: false,
    mayRun: false,
    atStart: 'nothing',
    whenClosed: 'abandon',
    on: {
      prepare: stay('promised'),
      take_over: no('MIGRATION_UNKNOWN'),
      installed: no('MIGRATION_UNKNOWN'),
      abandon: { to: 'abandoned', effects: GIVE_UP },
      cannot_start: no('MIGRATION_UNKNOWN'),
    },
  },
  promised: {
    meaning: 'it holds room and takes images',
    open: true,
    takesData: true,
    mayRun: false,
    atStart: 'nothing',
    whenClosed: 'abandon',
    on: {
      prepare: stay('promised'),
      take_over: TAKE_OVER,
      installed: no('INTERNAL'),
      abandon: { to: 'abandoned', effects: GIVE_UP },
      cannot_start: no('INTERNAL'),
    },
  },
  mine: {
    meaning: 'the point of no return is behind it: the VM is this host’s',
    open: true,
    takesData: false,
    mayRun: true,
    atStart: 'take_over',
    whenClosed: 'take_over',
    on: {
      prepare: stay('mine'),
      take_over: TAKE_OVER,
      installed: { to: 'installed', effects: ['forget the record'] },
      abandon: no('ALREADY_PAST_RETURN'),
      cannot_start: { to: 'given_back', effects: GIVE_UP },
    },
  },
  installed: {
    meaning: 'it lives here',
    open: false,
    takesData: false,
    mayRun: false,
    atStart: 'installed',
    whenClosed: 'installed',
    on: {
      prepare: stay('installed'),
      take_over: stay('installed'),
      installed: { to: 'installed', effects: ['forget the record'] },
      abandon: no('ALREADY_PAST_RETURN'),
      cannot_start: no('ALREADY_PAST_RETURN'),
    },
  },
  abandoned: {
    meaning: 'it has promised never to start the VM for this migration',
    open: false,
    takesData: false,
    mayRun: false,
    atStart: 'abandon',
    whenClosed: 'abandon',
    on: {
      prepare: no('ABANDONED'),
      take_over: no('ABANDONED'),
      installed: no('ABANDONED'),
      abandon: { to: 'abandoned', effects: GIVE_UP },
      cannot_start: no('ABANDONED'),
    },
  },
  given_back: {
    meaning: 'it had taken the VM over, could not start it, and never will for this migration',
    open: false,
    takesData: false,
    mayRun: false,
    atStart: 'abandon',
    whenClosed: 'abandon',
    on: {
      prepare: no('ABANDONED'),
      take_over: no('ABANDONED'),
      installed: no('ABANDONED'),
      abandon: { to: 'given_back', effects: GIVE_UP },
      cannot_start: { to: 'given_back', effects: GIVE_UP },
    },
  },
};

export type OwnershipState = Exclude<SourceState | DestinationState, 'none'>;
export const OWNERSHIP_STATES = [...SOURCE_STATES, ...DESTINATION_STATES].filter(
  (state): state is OwnershipState => state !== 'none',
);

/** Whether a migration in this state still has the VM in its hands on this host. */
export function isOpenState(state: OwnershipState): boolean {
  return state in SOURCE_TABLE
    ? SOURCE_TABLE[state as SourceState].open
    : DESTINATION_TABLE[state as DestinationState].open;
}

/** The state of a migration as its source's side sees it. A host that was its destination is none. */
export function sourceState(state: OwnershipState | undefined): SourceState {
  return state !== undefined && state in SOURCE_TABLE ? (state as SourceState) : 'none';
}

export function destinationState(state: OwnershipState | undefined): DestinationState {
  return state !== undefined && state in DESTINATION_TABLE ? (state as DestinationState) : 'none';
}

export function isRefused<S, E>(step: Step<S, E>): step is { readonly refused: ErrorCode } {
  return 'refused' in step;
}
