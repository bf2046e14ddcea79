/**
 * The crash matrix as data: every state of a guest's move, every fault, and what may come of it. A state that is added to
 * src/model/guest-states.ts and not named here does not compile.
 *
 *   moved   the guest runs on the destination      stayed   it runs on the source      lost   its QEMU was what was killed
 */
import { type GuestState, GUEST_STATE_NAMES } from '../../src/model/guest-states';

export const FAULTS = [
  'source agent', 'destination agent', 'source QEMU', 'destination QEMU', 'control worker', 'Temporal server', 'link 1 s', 'link 30 s', 'link for good', 'cancel', 'full disk',
] as const;
export type Fault = (typeof FAULTS)[number];
export type Outcome = 'moved' | 'stayed' | 'lost';

type Row = Readonly<Record<Fault, readonly Outcome[]>>;

const MOVED: readonly Outcome[] = ['moved'];
const EITHER: readonly Outcome[] = ['moved', 'stayed'];
const STAYED: readonly Outcome[] = ['stayed'];
const LOST: readonly Outcome[] = ['lost'];

/** While the guest runs at the source. */
const BEFORE: Row = {
  'source agent': MOVED, 'destination agent': MOVED, 'source QEMU': LOST, 'destination QEMU': MOVED, 'control worker': MOVED, 'Temporal server': MOVED,
  'link 1 s': MOVED, 'link 30 s': MOVED, 'link for good': STAYED, cancel: EITHER, 'full disk': MOVED,
};
/** It stands still and has not been handed over; a kill comes a moment later than the state it waited for. */
const PAUSED: Row = { ...BEFORE, 'source QEMU': ['lost', 'moved'], 'link for good': EITHER };
const HANDED: Row = { ...BEFORE, 'source QEMU': MOVED, 'link for good': MOVED, cancel: MOVED };
const TAKEN: Row = { ...HANDED, 'destination QEMU': ['moved', 'lost'] };
const RUNNING: Row = { ...HANDED, 'destination QEMU': LOST };

export const CRASH_MATRIX: Readonly<Record<GuestState, Row>> = {
  disks: BEFORE,
  memory: BEFORE,
  converged: { ...BEFORE, 'link for good': EITHER, 'source QEMU': ['lost', 'moved'] },
  paused: PAUSED,
  completed: PAUSED,
  loaded: { ...PAUSED, 'destination QEMU': ['moved', 'lost'] },
  handedOver: { ...TAKEN },
  mine: TAKEN,
  started: RUNNING,
  installed: RUNNING,
};

/** Two faults at once, in the states where most hangs on one step. */
export const DANGEROUS: readonly GuestState[] = ['paused', 'completed', 'handedOver', 'mine', 'started'];
export const PAIRS: readonly (readonly [Fault, Fault])[] = [
  ['source agent', 'destination agent'], ['destination agent', 'Temporal server'], ['source agent', 'link 1 s'], ['destination agent', 'destination QEMU'], ['source agent', 'control worker'],
];

export interface Cell {
  readonly state: GuestState;
  readonly faults: readonly Fault[];
  readonly allowed: readonly Outcome[];
}

/** Every cell; what a run of CI takes of them are the states in which the guest runs, stands still, and is between two owners. */
export function cells(full: boolean): Cell[] {
  const single = GUEST_STATE_NAMES.flatMap((state) => FAULTS.map((fault) => ({ state, faults: [fault], allowed: CRASH_MATRIX[state][fault] })));
  const pairs = DANGEROUS.flatMap((state) => PAIRS.map((faults) => ({ state, faults, allowed: [...new Set(faults.flatMap((fault) => CRASH_MATRIX[state][fault]))] })));
  if (full) return [...single, ...pairs];
  const states: readonly GuestState[] = ['memory', 'paused', 'handedOver'];
  const slow: readonly Fault[] = ['link 30 s', 'link for good'];
  return [...single.filter(({ state, faults }) => states.includes(state) && !faults.some((fault) => slow.includes(fault))), ...pairs.filter(({ state, faults }) => state === 'mine' && faults[0] !== faults[1]).slice(0, 2)];
}
