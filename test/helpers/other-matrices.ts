/**
 * The crash matrix of what does not come as a running guest by DWCP: VMs that stand still, and both kinds by the standard
 * transfer. Fewer faults: what they share with the other is walked there. The words: crash-matrix.ts.
 */
import type { Cell, Fault, Row, VmFault, What } from './cells';
import type { StoppedState } from './stopped-vm';

const MOVED = ['moved'] as const;
const EITHER = ['moved', 'stayed'] as const;
const STAYED = ['stayed'] as const;

const STILL: Row<VmFault> = {
  'source agent': MOVED,
  'destination agent': MOVED,
  'control worker': MOVED,
  'Temporal server': MOVED,
  'link 1 s': MOVED,
  'link 30 s': MOVED,
  'link for good': STAYED,
  cancel: EITHER,
  'full disk': MOVED,
  'source disk full': EITHER,
  'workflow reset': MOVED,
  'workflow terminate': EITHER,
  'second migrate': MOVED,
  'cancel then migrate': MOVED,
  'source agent held': MOVED,
  'destination agent held': MOVED,
  'source agent held long': MOVED,
  'destination agent held long': MOVED,
  'source host crash': MOVED,
  'destination host crash': MOVED,
};
const STILL_TAKEN: Row<VmFault> = {
  ...STILL,
  'link for good': EITHER,
  'source disk full': MOVED,
  cancel: MOVED,
  'workflow terminate': MOVED,
};
const STILL_MINE: Row<VmFault> = { ...STILL_TAKEN, 'link for good': MOVED };

const STOPPED: Readonly<Record<StoppedState, Row<VmFault>>> = {
  claimed: STILL,
  transfer: STILL,
  handedOver: { ...STILL_TAKEN, 'workflow terminate': EITHER },
  mine: STILL_MINE,
  installed: STILL_MINE,
};

const STOPPED_STANDARD: readonly VmFault[] = [
  'source agent',
  'destination agent',
  'Temporal server',
  'link 1 s',
  'cancel',
  'workflow reset',
  'workflow terminate',
  'second migrate',
  'cancel then migrate',
  'source host crash',
  'destination host crash',
];

/** QEMU's own migration: an attempt that breaks begins anew, so that all may also end where it was. */
type WholeFault = Extract<
  Fault,
  | 'source agent'
  | 'destination agent'
  | 'source QEMU'
  | 'destination QEMU'
  | 'Temporal server'
  | 'link 1 s'
  | 'cancel'
  | 'workflow reset'
  | 'workflow terminate'
  | 'second migrate'
  | 'cancel then migrate'
  | 'operator stop'
  | 'agent back without Temporal'
  | 'destination QEMU held'
  | 'source host crash'
  | 'destination host crash'
>;
const WHOLE_BEFORE: Row<WholeFault> = {
  'source agent': MOVED,
  'destination agent': EITHER,
  'source QEMU': ['lost'],
  'destination QEMU': EITHER,
  'Temporal server': MOVED,
  'link 1 s': EITHER,
  cancel: EITHER,
  'workflow reset': MOVED,
  'workflow terminate': EITHER,
  'second migrate': MOVED,
  'cancel then migrate': MOVED,
  'operator stop': ['held', 'moved'],
  'agent back without Temporal': EITHER,
  'destination QEMU held': EITHER,
  'source host crash': ['lost'],
  'destination host crash': EITHER,
};
const WHOLE_PAUSED: Row<WholeFault> = {
  ...WHOLE_BEFORE,
  'source QEMU': ['lost', 'moved'],
  'operator stop': ['held', 'moved', 'stayed'],
  'source host crash': ['lost', 'moved'],
};
/** Until it has run at the destination the source still has it. */
const WHOLE_TAKEN: Row<WholeFault> = {
  ...WHOLE_PAUSED,
  'source QEMU': ['moved'],
  cancel: MOVED,
  'operator stop': MOVED,
  'source host crash': MOVED,
  'link 1 s': MOVED,
  'destination agent': MOVED,
  'destination QEMU held': MOVED,
  'destination QEMU': ['moved', 'stayed', 'lost'],
  'destination host crash': ['moved', 'stayed', 'lost'],
};
const WHOLE_RUNNING: Row<WholeFault> = {
  ...WHOLE_TAKEN,
  'agent back without Temporal': MOVED,
  'workflow terminate': MOVED,
  'destination QEMU': ['lost'],
  'destination host crash': ['lost'],
};

const WHOLE = {
  disks: WHOLE_BEFORE,
  memory: WHOLE_BEFORE,
  paused: WHOLE_PAUSED,
  completed: WHOLE_PAUSED,
  handedOver: WHOLE_TAKEN,
  mine: { ...WHOLE_TAKEN, 'workflow terminate': MOVED },
  started: WHOLE_RUNNING,
} as const satisfies Readonly<Record<string, Row<WholeFault>>>;

function cellsOf(
  what: What,
  states: Readonly<Record<string, Partial<Row>>>,
  faults: readonly Fault[] | undefined,
): Cell[] {
  return Object.entries(states).flatMap(([state, row]) =>
    (Object.keys(row) as Fault[])
      .filter((fault) => faults?.includes(fault) ?? true)
      .map((fault): Cell => ({ what, state, faults: [fault], allowed: row[fault] ?? [] })),
  );
}

export function otherCells(): Cell[] {
  const both: Cell[] = (['transfer', 'handedOver', 'mine'] as const).map((state) => ({
    what: 'stopped',
    state,
    faults: ['source host crash', 'destination host crash'],
    allowed: STOPPED[state]['source host crash'],
  }));
  return [
    ...cellsOf('stopped', STOPPED, undefined),
    ...both,
    ...cellsOf('stopped, standard transfer', STOPPED, STOPPED_STANDARD),
    ...cellsOf('guest, standard transfer', WHOLE, undefined),
  ];
}
