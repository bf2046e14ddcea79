/**
 * Which lines of a VM's journal hooks are told of, and that a guest runs here: the moments that nobody may say no to. What is asked is
 * asked where it is decided, in activities/.
 */
import type { HookCall, Hooks, TellingEvent } from '../model/hooks';
import type { OwnershipState } from '../model/ownership-machine';
import type { OwnershipEntry } from '../store/ownership-journal';
import type { DestinationRecord } from '../sync/destination/destination-record';

interface Moment {
  readonly event: TellingEvent;
  readonly side: 'source' | 'destination';
  readonly happened: string;
}

const MOMENTS: Partial<Readonly<Record<OwnershipState, Moment>>> = {
  released: { event: 'released', side: 'source', happened: 'the VM lives on another host now' },
  rolled_back: {
    event: 'rolled-back',
    side: 'source',
    happened: 'the VM is this host’s again, as before the migration',
  },
  abandoned: { event: 'rolled-back', side: 'destination', happened: 'the VM does not come to this host' },
  given_back: { event: 'rolled-back', side: 'destination', happened: 'the VM could not be started on this host' },
};

export function tellOfLine(hooks: Hooks, hostId: string, vmId: string, entry: OwnershipEntry): void {
  const moment = MOMENTS[entry.state];
  if (!moment) return;
  const { migrationId, fence, note, movedTo } = entry;
  const { event, side, happened } = moment;
  hooks.tell(event, {
    ...{ vmId, migrationId, side, fence, happened },
    ...(side === 'source' ? { sourceHost: hostId } : { destinationHost: hostId }),
    ...(movedTo !== undefined && { destinationHost: movedTo }),
    ...(note !== undefined && { details: { note } }),
  });
}

export function tellOfStart(
  hooks: Hooks,
  hostId: string,
  { vmId, migrationId, fence, sourceHost }: DestinationRecord,
  resumedAtMs: number | undefined,
): void {
  const call: HookCall = {
    ...{ vmId, migrationId, side: 'destination', sourceHost, destinationHost: hostId, fence, running: true },
    happened: 'the guest runs on this host',
    ...(resumedAtMs !== undefined && { details: { resumedAtMs } }),
  };
  hooks.tell('after-start', call);
}
