/**
 * The running machine against the one that its command makes: the first thing of the two that is not the same, in words for whoever has
 * plugged it in or out. The stream would fail on it behind everything else, or not at all, and the guest would lose it. Pure.
 */
import type { CpuidWord, GuestDevice, GuestHardware } from '../../model/guest-hardware';
import { flagsOf } from './cpu-flags';

const MAX_NAMED = 10;
const PLUGGED = 'was plugged in while the guest ran: unplug it, or start the guest anew with it in its command';
const UNPLUGGED =
  'was unplugged while the guest ran: plug it in again, or start the guest anew without it in its command';

/** @returns undefined where they are the same */
export function hardwareDifference(source: GuestHardware, here: GuestHardware): string | undefined {
  const sameQemu = source.qemuVersion === here.qemuVersion;
  return (
    (source.kvm === here.kvm ? undefined : kvmDifference(source.kvm)) ??
    processorDifference(source.processors, here.processors, sameQemu) ??
    namedDifference(source.devices, here.devices) ??
    setDifference(unnamedOf(source.devices), unnamedOf(here.devices)) ??
    (sameQemu ? setDifference(listed(source.parts), listed(here.parts)) : undefined) ??
    (sameQemu ? blockDifference(source.ramBlocks, here.ramBlocks) : undefined) ??
    featureDifference(source.features, here.features) ??
    addressDifference(source.addressBits, here.addressBits)
  );
}

function kvmDifference(hasIt: boolean): string {
  return hasIt
    ? 'it runs with KVM, and would without here: let its QEMU use /dev/kvm, or start the guest anew with -accel tcg'
    : 'it runs without KVM, and would with it here: give it -accel tcg, or start it anew where it has KVM';
}

function processorDifference(
  source: readonly string[],
  here: readonly string[],
  sameQemu: boolean,
): string | undefined {
  if (source.length !== here.length)
    return (
      `it has ${source.length} processors, and its command makes ${here.length}: ` +
      `${source.length > here.length ? 'unplug what was plugged in' : 'plug in what was unplugged'} while it ran, or start it anew with ` +
      `-smp ${source.length}`
    );
  const other = sameQemu ? source.find((place) => !here.includes(place)) : undefined;
  if (other === undefined) return undefined;
  return `its processor ${other} was plugged in while it ran, in the place of another: start it anew with those that it needs in -smp`;
}

function namedDifference(source: readonly GuestDevice[], here: readonly GuestDevice[]): string | undefined {
  const known = byId(here);
  for (const [id, device] of byId(source)) {
    const other = known.get(id);
    known.delete(id);
    if (other?.type !== device.type) return `its device ${id} (${device.type}) ${PLUGGED}`;
    if (other.at !== device.at)
      return (
        `its device ${id} (${device.type}) is at ${place(device)}, and its command puts it at ${place(other)}: plug it in there, or start ` +
        'the guest anew with it at its place'
      );
  }
  for (const [id, { type }] of known) return `its device ${id} (${type}) ${UNPLUGGED}`;
  return undefined;
}

function byId(devices: readonly GuestDevice[]): Map<string, GuestDevice> {
  return new Map(devices.flatMap((device) => (device.id === undefined ? [] : [[device.id, device]])));
}

/** What has no name is known by what it is, and where. */
function unnamedOf(devices: readonly GuestDevice[]): string[] {
  return devices.flatMap((device) => (device.id === undefined ? [`${device.type} at ${place(device)}`] : []));
}

/** On its bus's last name: the way there is the machine's. */
function place({ at }: GuestDevice): string {
  return at.slice(at.lastIndexOf('/') + 1) || 'no bus';
}

function listed(parts: Readonly<Record<string, number>>): string[] {
  return Object.entries(parts).flatMap(([type, count]) => Array.from({ length: count }, () => type));
}

function setDifference(source: readonly string[], here: readonly string[]): string | undefined {
  const [more] = without(source, here);
  if (more !== undefined) return `its device ${more} ${PLUGGED}`;
  const [less] = without(here, source);
  return less === undefined ? undefined : `its device ${less} ${UNPLUGGED}`;
}

function blockDifference(source: readonly string[], here: readonly string[]): string | undefined {
  const [more] = without(source, here);
  if (more !== undefined) return `its memory ${more} ${PLUGGED}`;
  const [less] = without(here, source);
  return less === undefined ? undefined : `its memory ${less} ${UNPLUGGED}`;
}

/** What the one has more of than the other, each as often as it does. */
function without(some: readonly string[], others: readonly string[]): string[] {
  const left = new Map<string, number>();
  for (const other of others) left.set(other, (left.get(other) ?? 0) + 1);
  return some.filter((one) => {
    const count = left.get(one) ?? 0;
    left.set(one, count - 1);
    return count <= 0;
  });
}

function featureDifference(source: readonly CpuidWord[], here: readonly CpuidWord[]): string | undefined {
  const missing = flagsOf(source, here);
  if (missing.length > 0)
    return `its processor has ${several(missing)}, and would not here: start it anew with a -cpu that both hosts have`;
  const further = flagsOf(here, source);
  if (further.length === 0) return undefined;
  return `its processor would have ${several(further)} here, and has not: start it anew with a -cpu that is the same on both hosts`;
}

function several(names: readonly string[]): string {
  const rest = names.length - MAX_NAMED;
  return names.slice(0, MAX_NAMED).join(', ') + (rest > 0 ? ` and ${rest} more` : '');
}

function addressDifference(source: number, here: number): string | undefined {
  if (source === here || source === 0 || here === 0) return undefined;
  return (
    `its processor’s addresses have ${source} bits, and would have ${here} here: start it anew with ` +
    `phys-bits=${Math.min(source, here)} in its -cpu`
  );
}
