/**
 * What is to happen in a world, drawn from its seed: the VM, the faults, each with its moment. Moments are counted in steps, or
 * from what a QEMU does or a journal says, since that is where hand-overs break.
 */
import type { FaultBudget } from './temporal/sim-temporal';
import type { HostName, VmLook } from './world';

export const FAULT_KINDS = [
  'agent',
  'host',
  'qemu',
  'freeze',
  'cut',
  'full',
  'stop',
  'control',
  'terminate',
  'reset',
  'cancel',
  'apart',
  'stall',
  'clock',
] as const;
export type FaultKind = (typeof FAULT_KINDS)[number];

export interface Plan {
  readonly vm: VmLook;
  readonly second: 'back' | 'again' | undefined;
  readonly faults: readonly PlannedFault[];
  readonly temporal: Partial<FaultBudget>;
}

/** A number of steps, of changes of a QEMU, of lines of journals; or the first line of a journal, or change of a QEMU, of that name. */
type Moment =
  | { readonly of: 'step' | 'qemu' | 'journal'; readonly number: number }
  | { readonly of: 'state'; readonly state: string };

export interface PlannedFault {
  readonly kind: FaultKind;
  readonly host: HostName;
  readonly at: Moment;
  /** Steps behind that. */
  readonly behind: number;
  readonly lastsMs: number;
}

export const TEMPORAL_FAULTS: readonly (keyof FaultBudget)[] = [
  'heartbeatsLost',
  'lateResults',
  'lateCancels',
  'unreachable',
  'evictions',
  'terminations',
  'resets',
  'cancels',
];

const HAND_OVER_STATES = [
  'claimed',
  'promised',
  'handed_over',
  'handed_over',
  'mine',
  'mine',
  'installed',
  'releasing',
  'rolling_back',
  'rolled_back',
  'abandoned',
  'given_back',
  'stands still for its migration',
  'has loaded its guest',
  'has loaded its guest',
  'is let run',
  'is let run',
];
/** What tears a hand-over apart most thoroughly. */
const HEAVY_KINDS: readonly FaultKind[] = ['agent', 'host', 'host', 'terminate', 'terminate', 'reset', 'cut'];

function momentOf(of: 'step' | 'qemu' | 'journal', random: () => number): Moment {
  return {
    of,
    number: of === 'step' ? Math.floor(4_000 * random() ** 2) : 1 + Math.floor(random() * (of === 'qemu' ? 8 : 9)),
  };
}

/** Draws a plan. @param random of the seed @param only kinds of faults that may happen; all where nothing is said */
export function planOf(random: () => number, only?: readonly string[]): Plan {
  const pick = <T>(items: readonly T[]): T => items[Math.floor(random() * items.length)] as T;
  const allowed = <T extends string>(kinds: readonly T[]): readonly T[] =>
    only ? kinds.filter((kind) => only.includes(kind)) : kinds;
  const running = random() < 0.8;
  const vm = { running, diskBlocks: running ? pick([0, 0, 2, 3]) : pick([2, 3]) };
  const kinds = allowed(FAULT_KINDS);
  const heavy = allowed(HEAVY_KINDS);
  // Half of all seeds look at the hand-over itself.
  const close = random() < 0.5;
  const count = kinds.length === 0 ? 0 : close ? pick([1, 2, 2, 3]) : pick([0, 1, 1, 2, 2, 3]);
  // Of those half again have all their faults about one moment.
  const meeting = close && random() < 0.5 ? pick(HAND_OVER_STATES) : undefined;
  const faults = Array.from(
    { length: count },
    (): PlannedFault => ({
      kind: pick(close && heavy.length > 0 && random() < 0.5 ? heavy : kinds),
      host: pick(['a', 'b'] as const),
      at:
        close && random() < 0.7
          ? { of: 'state', state: meeting ?? pick(HAND_OVER_STATES) }
          : momentOf(pick(['step', 'qemu', 'journal'] as const), random),
      behind: close && random() < 0.4 ? Math.floor(5 * random()) : Math.floor(60 * random() ** 3),
      lastsMs: 50 * 2_000 ** random(),
    }),
  );
  const temporal: Partial<FaultBudget> = {};
  const temporalKinds = allowed(TEMPORAL_FAULTS);
  if (temporalKinds.length > 0)
    for (let times = pick([0, 0, 1, 1, 2]); times > 0; times -= 1) {
      const kind = pick(temporalKinds);
      temporal[kind] = (temporal[kind] ?? 0) + 1;
    }
  return { vm, second: pick([undefined, 'back', 'again']), faults, temporal };
}
