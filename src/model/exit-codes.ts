/**
 * How the `dwcp` command ends: the numbers that scripts see, and what they mean. Which error ends with which is error-codes.ts's.
 */
/** Exit codes of the `dwcp` command; 0 is success, 130 an interrupt. */
export const EXIT = {
  ok: 0,
  internal: 1,
  usage: 2,
  notFound: 3,
  refused: 4,
  failed: 5,
  parked: 6,
  cancelled: 7,
  controlPlane: 8,
  unreachable: 9,
  diskFull: 10,
  integrity: 11,
  doctor: 12,
  interrupted: 130,
} as const;

export const EXIT_MEANINGS: Readonly<Record<keyof typeof EXIT, string>> = {
  ok: 'Done',
  internal: 'A fault of DWCP itself',
  usage: 'The command or its input is wrong; nothing was started',
  notFound: 'No such VM, migration or baseline',
  refused: 'Refused: the present state does not allow it',
  failed: 'The migration failed and was rolled back; the VM is where it was',
  parked: 'The migration waits for an operator',
  cancelled: 'The migration was cancelled and rolled back',
  controlPlane: 'The Temporal server cannot be reached',
  unreachable: 'An agent or the path to it cannot be reached',
  diskFull: 'A disk or the store is full',
  integrity: 'Contents differ from what was promised',
  doctor: 'The doctor found something to mend',
  interrupted: 'Interrupted by the operator (Ctrl-C)',
};
