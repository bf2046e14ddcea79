/**
 * How many migrations arrive: a world in which all of them fail violates nothing, and looks at nothing. What share is enough comes of
 * what the product brings today, less what chance takes.
 */

export type VmKind = 'running' | 'stopped';

export interface Arrivals {
  /** Worlds with a VM of that kind. */
  readonly seeds: number;
  /** Those in which a migration of it has completed. */
  readonly arrived: number;
}

export type ArrivalsOf = Readonly<Record<VmKind, Arrivals>>;

export const NO_ARRIVALS: ArrivalsOf = { running: { seeds: 0, arrived: 0 }, stopped: { seeds: 0, arrived: 0 } };

export function addArrivals(reports: readonly ArrivalsOf[]): ArrivalsOf {
  const sum = (kind: VmKind): Arrivals => ({
    seeds: reports.reduce((total, of) => total + of[kind].seeds, 0),
    arrived: reports.reduce((total, of) => total + of[kind].arrived, 0),
  });
  return { running: sum('running'), stopped: sum('stopped') };
}

/** Of 600 seeds 84 and 98 % arrived; each least share is five deviations below that, at as many seeds as are enough. */
const LEAST: Readonly<Record<VmKind, { readonly share: number; readonly enoughSeeds: number }>> = {
  running: { share: 0.65, enoughSeeds: 100 },
  stopped: { share: 0.8, enoughSeeds: 30 },
};

const KINDS = ['running', 'stopped'] as const;

/** @returns a line for each kind of VM that arrives too rarely */
export function tooFewArrivals(of: ArrivalsOf): string[] {
  return KINDS.filter((kind) => of[kind].seeds >= LEAST[kind].enoughSeeds && shareOf(of[kind]) < LEAST[kind].share).map(
    (kind) =>
      `Too few VMs that are ${kind} arrive: ${percent(shareOf(of[kind]))} where ${percent(LEAST[kind].share)} are the ` +
      'least. What the simulation does not reach it cannot look at.',
  );
}

export function arrivedOf(of: ArrivalsOf): string {
  return `Arrived: ${KINDS.map((kind) => `${of[kind].arrived} of ${of[kind].seeds} VMs that are ${kind}`).join(', ')}.`;
}

function shareOf({ seeds, arrived }: Arrivals): number {
  return arrived / Math.max(1, seeds);
}

function percent(share: number): string {
  return `${(100 * share).toFixed(0)} %`;
}
