/**
 * What a session may ask of its migration, as the record says: a grant opens a session, and is no leave to do what another kind of
 * migration does, for another VM, or in another source's name. Asked before anything of the request takes memory or time.
 */
import { DwcpError } from '../../model/errors';
import { forgetOldest } from '../../model/forget-oldest';
import type { DestinationRecord, Mode } from './destination-record';

/** Requests that belong to one mode alone; all others that need a record go with each. */
const MODE_OF: ReadonlyMap<string, Mode> = new Map([
  ['keep', 'warm'],
  ['install_image', 'direct'],
]);
/** Requests about a guest that runs, of a session and of the standard transfer. */
const OF_A_GUEST: ReadonlySet<string> = new Set([
  'guest_ready',
  'guest_begin',
  'guest_left',
  'guest_load',
  'guest',
  'guest_loaded',
]);

const MOST_REMEMBERED = 4096;

/** Of what a peer has asked for. */
export function refusal(what: string): DwcpError {
  return new DwcpError('PROTOCOL_VIOLATION', what, { side: 'destination' });
}

/** @throws PROTOCOL_VIOLATION where migrations of its mode, or without a guest, have no such request */
export function assertPermitted(method: string, { migrationId, mode, guest }: DestinationRecord): void {
  if ((MODE_OF.get(method) ?? mode) !== mode)
    throw refusal(`Migration ${migrationId} is of mode ${mode}: no ${method}`);
  if (OF_A_GUEST.has(method) && (mode !== 'migrate' || !guest))
    throw refusal(`Migration ${migrationId} moves no running guest: no ${method}`);
}

/** @throws PROTOCOL_VIOLATION where the session is in another source's name than the migration's */
export function assertSource({ migrationId, sourceHost }: DestinationRecord, named: string): void {
  if (named !== sourceHost) throw refusal(`Migration ${migrationId} is not of source ${named.slice(0, 120)}`);
}

/**
 * What a session says of the hand-over is about its own VM.
 * @param fence left out where it is not said; a newer one is of a claim that has not asked for a promise yet, an older one of nobody
 * @throws PROTOCOL_VIOLATION
 */
export function assertOwnVm(record: DestinationRecord, vmId: string, fence = record.fence): void {
  if (vmId !== record.vmId || fence < record.fence)
    throw refusal(`Migration ${record.migrationId} is not of VM ${vmId} with fence ${fence}`);
}

/**
 * For migrations that a destination has no record of: which VM each has been asked about. A source whose destination has lost its
 * data may ask for a promise all the same, and gets it for one VM: what one grant can have written here stays one line.
 */
export class AskedWithoutRecord {
  readonly #vmOf = new Map<string, string>();

  /** @throws PROTOCOL_VIOLATION where the migration was about another VM before */
  assertOneVm(migrationId: string, vmId: string): void {
    const before = this.#vmOf.get(migrationId);
    if (before !== undefined && before !== vmId) throw refusal(`Migration ${migrationId} is of VM ${before}`);
    this.#vmOf.set(migrationId, vmId);
    forgetOldest(this.#vmOf, MOST_REMEMBERED);
  }
}
