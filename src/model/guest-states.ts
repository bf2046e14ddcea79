/**
 * The states of a guest that is moved while it runs, in order, and what a failure in each leads to: one table, from which
 * docs/switchover.md is made and which the crash matrix (test/helpers/crash-matrix.ts) has to name in full. `mine` is the
 * point of no return.
 */

export interface GuestStateSpec {
  readonly title: string;
  /** Where the guest runs. */
  readonly runsAt: 'source' | 'nowhere' | 'destination';
  /** What is on disk by then, and where. */
  readonly durable: string;
  readonly sourceAgent: string;
  readonly destinationAgent: string;
  readonly sourceQemu: string;
  readonly destinationQemu: string;
  readonly link: string;
}

const NEW_ROUNDS =
  'QEMU’s migration ends by itself, the guest runs on; rounds begin again and find most of it at the destination';
const RUNS_ON_AT_START =
  'when it is back it lets the guest run on, before it has heard of Temporal; rounds begin again and find most of it at the destination';
const REPLAYED = 'a fresh QEMU is started and given the RAM image; the source goes on';
const LOST_BEFORE =
  'the guest is lost as by a crash of its host; the migration fails with GUEST_LOST and starts nothing';
const WAITS = 'QEMU’s stream is held; the session is opened again and sends what is missing';
const ASKED_AGAIN = 'asks `take_over` again when it is back; the answer is the same';
const BY_CONTROL_PLANE = 'asked again, then by way of Temporal; the guest stands still until one of them answers';

export const GUEST_STATES = {
  disks: {
    title: 'disks on their way',
    runsAt: 'source',
    durable: 'source: claimed; destination: promised; blocks of disks as its journals say',
    sourceAgent: NEW_ROUNDS,
    destinationAgent: 'its next session goes on with its journals',
    sourceQemu: LOST_BEFORE,
    destinationQemu: 'there is none yet',
    link: WAITS,
  },
  memory: {
    title: 'memory in rounds',
    runsAt: 'source',
    durable: 'as before; the RAM image as far as it has come',
    sourceAgent: NEW_ROUNDS,
    destinationAgent: REPLAYED,
    sourceQemu: LOST_BEFORE,
    destinationQemu: REPLAYED,
    link: WAITS,
  },
  converged: {
    title: 'the pause would be short enough',
    runsAt: 'source',
    durable: 'as before',
    sourceAgent: NEW_ROUNDS,
    destinationAgent: REPLAYED,
    sourceQemu: LOST_BEFORE,
    destinationQemu: REPLAYED,
    link: WAITS,
  },
  paused: {
    title: 'the guest is stopped (pre-switchover)',
    runsAt: 'nowhere',
    durable: 'as before',
    sourceAgent: RUNS_ON_AT_START,
    destinationAgent: `within maxDowntimeMs ${REPLAYED}; else the guest runs on at the source and rounds begin again`,
    sourceQemu: LOST_BEFORE,
    destinationQemu: REPLAYED,
    link: 'within maxDowntimeMs it goes on; else the guest runs on at the source and rounds begin again',
  },
  completed: {
    title: 'QEMU has given its last page and the device state',
    runsAt: 'nowhere',
    durable: 'as before',
    sourceAgent: RUNS_ON_AT_START,
    destinationAgent: 'as paused',
    sourceQemu: LOST_BEFORE,
    destinationQemu: REPLAYED,
    link: 'as paused',
  },
  loaded: {
    title: 'everything has arrived, the destination’s QEMU has loaded it',
    runsAt: 'nowhere',
    durable: 'destination: disks whole and verified, set-up and device state',
    sourceAgent: RUNS_ON_AT_START,
    destinationAgent: 'finds its loaded QEMU again, or loads a fresh one from the RAM image',
    sourceQemu: 'the hand-over goes on: nothing of the guest is needed there any more',
    destinationQemu: 'a fresh one is loaded from the RAM image before `mine`',
    link: 'as paused',
  },
  handedOver: {
    title: 'the source has handed over',
    runsAt: 'nowhere',
    durable: 'source: handed_over: it never lets the guest run again by itself',
    sourceAgent: ASKED_AGAIN,
    destinationAgent: BY_CONTROL_PLANE,
    sourceQemu: 'no effect',
    destinationQemu: 'a fresh one is loaded from the RAM image before `mine`',
    link: BY_CONTROL_PLANE,
  },
  mine: {
    title: 'the destination has taken over: the point of no return',
    runsAt: 'nowhere',
    durable: 'destination: mine',
    sourceAgent: ASKED_AGAIN,
    destinationAgent: 'lets the guest run when it is back, before it has heard of Temporal',
    sourceQemu: 'no effect',
    destinationQemu:
      'a fresh one is loaded from the RAM image, where that is what was verified; else the VM is given back and runs ' +
      'on at the source. Where the guest has run already it is lost as by a crash of its host',
    link: BY_CONTROL_PLANE,
  },
  started: {
    title: 'the guest runs on the destination',
    runsAt: 'destination',
    durable: 'destination: started',
    sourceAgent: ASKED_AGAIN,
    destinationAgent: 'finds it running and completes the installation',
    sourceQemu: 'no effect',
    destinationQemu: 'the guest is lost as by a crash of its host; nothing is started twice',
    link: BY_CONTROL_PLANE,
  },
  installed: {
    title: 'the destination has its files in place',
    runsAt: 'destination',
    durable: 'destination: installed',
    sourceAgent: 'releases when it is back',
    destinationAgent: 'no effect',
    sourceQemu: 'no effect',
    destinationQemu: 'the guest is lost as by a crash of its host; nothing is started twice',
    link: 'asked again; the answer is the same',
  },
} as const satisfies Record<string, GuestStateSpec>;

export type GuestState = keyof typeof GUEST_STATES;
export const GUEST_STATE_NAMES = Object.keys(GUEST_STATES) as readonly GuestState[];
