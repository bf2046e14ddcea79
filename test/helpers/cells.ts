/**
 * The words of the crash matrix: its faults, what may come of them, and what a cell is. The cells: crash-matrix.ts, other-matrices.ts.
 *
 *   moved   it is at the destination, where a guest runs      stayed   the same at the source
 *   held    the guest stands still where an operator has stopped it, and goes on from there      lost   its QEMU was what was killed
 */

/** Of any VM. */
export const VM_FAULTS = [
  'source agent',
  'destination agent',
  'control worker',
  'Temporal server',
  'link 1 s',
  'link 30 s',
  'link for good',
  'cancel',
  'full disk',
  'source disk full',
  'workflow reset',
  'workflow terminate',
  'second migrate',
  'cancel then migrate',
  'source agent held',
  'destination agent held',
  'source host crash',
  'destination host crash',
] as const;

/** Longer than maxDowntimeMs and than a heartbeat's silence. */
export const LONG_VM_FAULTS = ['source agent held long', 'destination agent held long'] as const;

/** Of one that runs. */
export const GUEST_FAULTS = [
  'source QEMU',
  'destination QEMU',
  'source QEMU held',
  'destination QEMU held',
  'operator stop',
  'agent back without Temporal',
] as const;

export const LONG_GUEST_FAULTS = ['source QEMU held long', 'destination QEMU held long'] as const;

export type VmFault = (typeof VM_FAULTS)[number] | (typeof LONG_VM_FAULTS)[number];

export type GuestFault = (typeof GUEST_FAULTS)[number] | (typeof LONG_GUEST_FAULTS)[number];

export type Fault = VmFault | GuestFault;

export type Outcome = 'moved' | 'stayed' | 'lost' | 'held';

export type Row<F extends Fault = Fault> = Readonly<Record<F, readonly Outcome[]>>;

export const MOVED: readonly Outcome[] = ['moved'];
export const EITHER: readonly Outcome[] = ['moved', 'stayed'];
export const STAYED: readonly Outcome[] = ['stayed'];
export const LOST: readonly Outcome[] = ['lost'];

/** What moves, and which way. */
export type What = 'guest' | 'guest, standard transfer' | 'stopped' | 'stopped, standard transfer';

export interface Cell {
  readonly what: What;
  readonly state: string;
  readonly faults: readonly Fault[];
  readonly allowed: readonly Outcome[];
}

export function nameOf({ what, state, faults }: Cell): string {
  return `${what}: ${state}: ${faults.join(' + ')}`;
}
