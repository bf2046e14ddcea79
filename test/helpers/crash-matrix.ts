/**
 * The crash matrix as data: every state of a guest's move, every fault, and what may come of it. A state that is added to
 * src/model/guest-states.ts and not named here does not compile; nor does a fault that nothing inflicts (faults.ts).
 *
 *   moved   the guest runs on the destination      stayed   it runs on the source      lost   its QEMU was what was killed
 *   held    it stands still where an operator has stopped it, and goes on from there
 */
import { type GuestState, GUEST_STATE_NAMES } from '../../src/model/guest-states';

export const FAULTS = [
  'source agent', 'destination agent', 'source QEMU', 'destination QEMU', 'control worker', 'Temporal server', 'link 1 s', 'link 30 s', 'link for good', 'cancel', 'full disk',
  'source disk full', 'workflow reset', 'workflow terminate', 'second migrate', 'cancel then migrate', 'operator stop', 'agent back without Temporal',
  'source QEMU held', 'destination QEMU held', 'source agent held', 'destination agent held', 'source host crash', 'destination host crash',
] as const;
/** Longer than maxDowntimeMs and than a heartbeat's silence: where the guest stands still, or may. */
export const LONG_FAULTS = ['source QEMU held long', 'destination QEMU held long', 'source agent held long', 'destination agent held long'] as const;
export type Fault = (typeof FAULTS)[number] | (typeof LONG_FAULTS)[number];
export type Outcome = 'moved' | 'stayed' | 'lost' | 'held';

type Row = Readonly<Record<Fault, readonly Outcome[]>>;

const MOVED: readonly Outcome[] = ['moved'];
const EITHER: readonly Outcome[] = ['moved', 'stayed'];
const STAYED: readonly Outcome[] = ['stayed'];
const LOST: readonly Outcome[] = ['lost'];

/** While the guest runs at the source. */
const BEFORE: Row = {
  'source agent': MOVED, 'destination agent': MOVED, 'source QEMU': LOST, 'destination QEMU': MOVED, 'control worker': MOVED, 'Temporal server': MOVED,
  'link 1 s': MOVED, 'link 30 s': MOVED, 'link for good': STAYED, cancel: EITHER, 'full disk': MOVED, 'source disk full': EITHER,
  // A terminated workflow may be swept only after the agents have come to the end by themselves.
  'workflow reset': MOVED, 'workflow terminate': EITHER, 'second migrate': MOVED, 'cancel then migrate': MOVED, 'operator stop': ['held', 'moved'], 'agent back without Temporal': MOVED,
  'source QEMU held': MOVED, 'destination QEMU held': MOVED, 'source agent held': MOVED, 'destination agent held': MOVED,
  'source QEMU held long': MOVED, 'destination QEMU held long': MOVED, 'source agent held long': MOVED, 'destination agent held long': MOVED,
  'source host crash': LOST, 'destination host crash': MOVED,
};
/** It stands still and has not been handed over; a kill comes a moment later than the state it waited for. */
const PAUSED: Row = { ...BEFORE, 'source QEMU': ['lost', 'moved'], 'link for good': EITHER, 'operator stop': ['held', 'moved', 'stayed'], 'source host crash': ['lost', 'moved'] };
/** A terminated workflow's hand-over is settled by the destination's journal. */
const HANDED: Row = { ...BEFORE, 'source QEMU': MOVED, 'link for good': MOVED, cancel: MOVED, 'source disk full': EITHER, 'operator stop': MOVED, 'source host crash': MOVED };
const TAKEN: Row = { ...HANDED, 'destination QEMU': ['moved', 'lost'], 'workflow terminate': MOVED, 'source disk full': MOVED, 'destination host crash': ['moved', 'stayed', 'lost'] };
const RUNNING: Row = { ...TAKEN, 'destination QEMU': LOST, 'destination host crash': LOST };

export const CRASH_MATRIX: Readonly<Record<GuestState, Row>> = {
  disks: BEFORE,
  memory: BEFORE,
  converged: { ...PAUSED },
  paused: PAUSED,
  completed: PAUSED,
  loaded: { ...PAUSED, 'destination QEMU': ['moved', 'lost'], 'destination host crash': ['moved', 'stayed', 'lost'] },
  handedOver: { ...TAKEN, 'workflow terminate': EITHER },
  mine: TAKEN,
  started: RUNNING,
  installed: RUNNING,
};

/** The states where most hangs on one step: two faults at once there, and long ones. */
export const DANGEROUS: readonly GuestState[] = ['paused', 'completed', 'handedOver', 'mine', 'started'];
export const PAIRS: readonly (readonly [Fault, Fault])[] = [
  ['source agent', 'destination agent'], ['destination agent', 'Temporal server'], ['source agent', 'link 1 s'], ['destination agent', 'destination QEMU'], ['source agent', 'control worker'],
  ['destination QEMU held', 'workflow reset'], ['destination QEMU held', 'second migrate'], ['source host crash', 'destination host crash'],
];

export interface Cell {
  readonly state: GuestState;
  readonly faults: readonly Fault[];
  readonly allowed: readonly Outcome[];
}

export function nameOf({ state, faults }: Pick<Cell, 'state' | 'faults'>): string {
  return `${state}: ${faults.join(' + ')}`;
}

/** A run of CI: one cell for each fault, where it hurts most, and what was broken once. */
const IN_CI: ReadonlySet<string> = new Set([
  'memory: source agent', 'memory: destination agent', 'paused: source agent', 'paused: destination QEMU', 'paused: control worker', 'paused: link 1 s', 'paused: workflow reset', 'paused: agent back without Temporal',
  'memory: operator stop', 'memory: cancel then migrate', 'completed: source agent held', 'completed: destination QEMU held', 'loaded: second migrate', 'handedOver: destination agent', 'handedOver: Temporal server',
  'handedOver: workflow terminate', 'memory: source disk full', 'memory: full disk', 'handedOver: source host crash', 'mine: destination host crash', 'mine: source agent + destination agent', 'started: source agent',
]);

/** Every cell, or what a run of CI takes of them. */
export function cells(full: boolean): Cell[] {
  const one = (state: GuestState, fault: Fault): Cell => ({ state, faults: [fault], allowed: CRASH_MATRIX[state][fault] });
  const single = GUEST_STATE_NAMES.flatMap((state) => FAULTS.map((fault) => one(state, fault)));
  const long = DANGEROUS.flatMap((state) => LONG_FAULTS.map((fault) => one(state, fault)));
  const pairs = DANGEROUS.flatMap((state) => PAIRS.map((faults) => ({ state, faults, allowed: [...new Set(faults.flatMap((fault) => CRASH_MATRIX[state][fault]))] })));
  const all = [...single, ...long, ...pairs];
  return full ? all : all.filter((cell) => IN_CI.has(nameOf(cell)));
}
