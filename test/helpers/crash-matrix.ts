/**
 * The crash matrix as data: every state of a guest's move, every fault, and what may come of it. A state that is added to
 * src/model/guest-states.ts and not named here does not compile; nor does a fault that nothing inflicts (faults.ts). That nothing is
 * allowed which the tables of the hand-over exclude is test/unit/crash-matrix.test.ts's to say.
 *
 *   moved   it is at the destination, where a guest runs      stayed   the same at the source
 *   held    the guest stands still where an operator has stopped it, and goes on from there      lost   its QEMU was what was killed
 */
import { GUEST_STATE_NAMES, type GuestState } from '../../src/model/guest-states';
import {
  type Cell,
  EITHER,
  type Fault,
  GUEST_FAULTS,
  LONG_GUEST_FAULTS,
  LONG_VM_FAULTS,
  LOST,
  MOVED,
  nameOf,
  type Row,
  STAYED,
  VM_FAULTS,
} from './cells';
import { otherCells } from './other-matrices';

/** While the guest runs at the source. */
const BEFORE: Row = {
  'source agent': MOVED,
  'destination agent': MOVED,
  'source QEMU': LOST,
  'destination QEMU': MOVED,
  'control worker': MOVED,
  'Temporal server': MOVED,
  'link 1 s': MOVED,
  'link 30 s': MOVED,
  'link for good': STAYED,
  cancel: EITHER,
  'full disk': MOVED,
  'source disk full': EITHER,
  // What a terminated workflow has left is swept when the agents have come to the end of their step by themselves.
  'workflow reset': MOVED,
  'workflow terminate': EITHER,
  'second migrate': MOVED,
  'cancel then migrate': MOVED,
  'operator stop': ['held', 'moved'],
  'agent back without Temporal': MOVED,
  'source QEMU held': MOVED,
  'destination QEMU held': MOVED,
  'source agent held': MOVED,
  'destination agent held': MOVED,
  'source QEMU held long': MOVED,
  'destination QEMU held long': MOVED,
  'source agent held long': MOVED,
  'destination agent held long': MOVED,
  'source host crash': LOST,
  'destination host crash': MOVED,
};
/** It stands still and has not been handed over; a kill comes a moment later than the state it waited for. */
const PAUSED: Row = {
  ...BEFORE,
  'source QEMU': ['lost', 'moved'],
  'link for good': EITHER,
  'operator stop': ['held', 'moved', 'stayed'],
  'source host crash': ['lost', 'moved'],
  'destination host crash': EITHER,
};
const TAKEN: Row = {
  ...BEFORE,
  'source QEMU': MOVED,
  'link for good': MOVED,
  cancel: MOVED,
  'operator stop': MOVED,
  'source disk full': MOVED,
  'source host crash': MOVED,
  'workflow terminate': MOVED,
  'destination QEMU': ['moved', 'lost'],
  'destination host crash': ['moved', 'stayed', 'lost'],
};
const RUNNING: Row = { ...TAKEN, 'destination QEMU': LOST, 'destination host crash': LOST };

export const CRASH_MATRIX: Readonly<Record<GuestState, Row>> = {
  disks: BEFORE,
  memory: BEFORE,
  converged: PAUSED,
  paused: PAUSED,
  completed: PAUSED,
  loaded: {
    ...PAUSED,
    'destination QEMU': ['moved', 'stayed', 'lost'],
    'destination host crash': ['moved', 'stayed', 'lost'],
  },
  // A terminated workflow's hand-over is settled by the destination's journal.
  handedOver: { ...TAKEN, 'workflow terminate': EITHER },
  mine: TAKEN,
  started: RUNNING,
  installed: RUNNING,
};

/** The states where most hangs on one step: two faults at once there, and long ones. */
export const DANGEROUS: readonly GuestState[] = ['paused', 'completed', 'handedOver', 'mine', 'started'];
export const PAIRS: readonly (readonly [Fault, Fault])[] = [
  ['source agent', 'destination agent'],
  ['destination agent', 'Temporal server'],
  ['source agent', 'link 1 s'],
  ['destination agent', 'destination QEMU'],
  ['source agent', 'control worker'],
  ['destination QEMU held', 'workflow reset'],
  ['destination QEMU held', 'second migrate'],
  ['source host crash', 'destination host crash'],
];

/**
 * A run of CI: what neither the stories of hand-over.test.ts nor the simulation show on real processes: hosts that
 * crash, disks that are full, pairs, and one of each kind of move.
 */
const IN_CI: ReadonlySet<string> = new Set([
  'guest: paused: destination QEMU',
  'guest: paused: link 1 s',
  'guest: memory: full disk',
  'guest: memory: source disk full',
  'guest: handedOver: destination agent',
  'guest: handedOver: source host crash',
  'guest: mine: destination host crash',
  'guest: mine: source agent + destination agent',
  'guest: started: Temporal server',
  'guest, standard transfer: paused: source agent',
  'stopped: mine: destination host crash',
  'stopped: mine: link for good',
  'stopped, standard transfer: transfer: second migrate',
]);

/** Every cell, or what a run of CI takes of them. */
export function cells(full: boolean): Cell[] {
  const one = (state: GuestState, fault: Fault): Cell => ({
    what: 'guest',
    state,
    faults: [fault],
    allowed: CRASH_MATRIX[state][fault],
  });
  const single = GUEST_STATE_NAMES.flatMap((state) =>
    [...VM_FAULTS, ...GUEST_FAULTS].map((fault) => one(state, fault)),
  );
  const long = DANGEROUS.flatMap((state) =>
    [...LONG_VM_FAULTS, ...LONG_GUEST_FAULTS].map((fault) => one(state, fault)),
  );
  const pairs = DANGEROUS.flatMap((state) =>
    PAIRS.map(
      (faults): Cell => ({
        what: 'guest',
        state,
        faults,
        allowed: [...new Set(faults.flatMap((fault) => CRASH_MATRIX[state][fault]))],
      }),
    ),
  );
  const all = [...single, ...long, ...pairs, ...otherCells()];
  return full ? all : all.filter((cell) => IN_CI.has(nameOf(cell)));
}
