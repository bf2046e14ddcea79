/**
 * A guest that comes from another host, as its agent describes it, made one that may run here. Nothing is started, written or looked
 * for before every word of its command has been found allowed: whoever speaks for the source would choose what this host runs.
 */
import { existsSync } from 'node:fs';
import { DwcpError, hasCode, messageOf } from '../../model/errors';
import {
  type GuestDefinition,
  type GuestSpec,
  guestSpecSchema,
  type MarkedFile,
  type SharedFile,
  type StoppedGuest,
  stoppedGuestSchema,
} from '../../model/guest';
import type { GuestConsole } from '../../model/guest-console';
import type { GuestHardware } from '../../model/guest-hardware';
import { cannotRunHere } from '../../model/guest-refusals';
import type { ImageSpec, VmImage } from '../../model/image';
import { isDevicePath } from '../../system/block-device';
import { realOf } from '../../system/open-beneath';
import type { Allowance } from './allowance';
import { assertAllowed } from './allowed-options';
import { arrivingAllowance } from './arriving-allowance';
import { assertForwardsFree, chooseConsolePorts } from './console-ports';
import { guestOwn } from './guest-command';
import { hasRoomForSize, namedFormat } from './guest-disks';
import type { GuestPolicy } from './guest-policy';
import { filesThatStay, withBases } from './named-files';
import { assertNetworks } from './network-checks';
import { parseNetworkMap } from './network-map';
import { optionWords } from './option-words';
import { assertCanRun, assertCanStart } from './preflight';
import { rehearse, scratchDisks } from './rehearse';
import { type RelocatedDisk, relocateTelling } from './relocate';
import type { PortSupply } from './relocate-consoles';
import { type NetworkPlaces, unmappedNetwork } from './relocate-networks';
import { runPlaces } from './run-places';

/** An image at its place here. */
export interface ImageHere extends VmImage {
  /** Where that is a device: how large that is. */
  readonly deviceBytes?: number | undefined;
}

export interface GuestPlace {
  readonly vmId: string;
  readonly images: readonly ImageHere[];
  readonly runFolder: string;
  readonly policy: GuestPolicy;
  /** Commands of this host's other VMs, whose ports are theirs also while they do not run. */
  readonly others?: () => Promise<readonly (readonly string[])[]>;
}

export interface StoppedPlace extends GuestPlace {
  readonly images: readonly (ImageHere & ImageSpec)[];
  /** Where the VM is tried out. */
  readonly tryFolder: string;
}

export interface PreparedGuest extends GuestDefinition, Pick<GuestSpec, 'ramBlocks' | 'setUp'> {
  /** What its QEMU here has to have; undefined where that is not asked. */
  readonly hardware?: GuestHardware;
  readonly sharedFiles: SharedFile[];
  readonly consoles: readonly GuestConsole[];
}

export interface PreparedStopped extends GuestDefinition {
  readonly consoles: readonly GuestConsole[];
}

/** Of what its command reads here, that which has to be as its source has it. */
interface ToCompare {
  readonly files: readonly MarkedFile[];
}

const SIDE = { side: 'destination' } as const;

/**
 * Whether a running guest can run here, and how its QEMU is started.
 * @param force lets QEMU itself say what is missing; what may not run is refused all the same
 * @throws GUEST_REFUSED with the reason
 */
export async function prepareGuest(
  given: GuestSpec,
  place: GuestPlace,
  force: boolean,
): Promise<ToCompare & { readonly guest: PreparedGuest }> {
  const guest = understood(guestSpecSchema.safeParse(given));
  const ports = await consolePorts(guest, place);
  const { command, allowance, consoles } = commandHere(guest, place, { isRaw: () => true, ports });
  if (!force) {
    await assertCanRun(place.vmId, command, guest, place.policy);
    await assertReachable(guest, place, 'running');
  }
  const prepared = {
    command,
    consoles,
    ramBlocks: guest.ramBlocks,
    // A reference to one that may not be read here is sent as content.
    sharedFiles: guest.sharedFiles.filter(({ path }) => allowance.file(path) === undefined),
    ...(!force && { hardware: guest.hardware }),
    ...(guest.setUp && { setUp: guest.setUp }),
    qmpPath: runPlaces(place.runFolder).qmpPath,
  };
  // A drive is read while its guest goes on: no word of an operator makes that right.
  const compared = await toCompare(guest, command, place.policy);
  const files = compared.filter(({ use }) => use === 'drive' || !force);
  return { guest: prepared, files };
}

/**
 * How a guest that does not run is started here, once it has been seen that it would be.
 * @param force leaves the trying out; what may not run is refused all the same
 * @throws GUEST_REFUSED with the reason; QEMU_UNREACHABLE where its QEMU was killed, or is not ready in time
 */
export async function prepareStoppedGuest(
  given: StoppedGuest,
  place: StoppedPlace,
  force: boolean,
): Promise<ToCompare & { readonly definition: PreparedStopped }> {
  const guest = understood(stoppedGuestSchema.safeParse(given));
  const isRaw = (imageId: string): boolean => guest.rawDisks.includes(imageId);
  const ports = await consolePorts(guest, place);
  const { command, consoles } = commandHere(guest, place, { isRaw, ports });
  if (!force) {
    await assertCanStart(place.vmId, command, place.policy);
    await assertReachable(guest, place, 'stopped');
    const disks = scratchDisks(place.images, place.tryFolder, isRaw);
    const there = { ...place, images: disks, runFolder: place.tryFolder };
    const tried = commandHere(guest, there, { isRaw, ports });
    await rehearse(tried.command, disks, place.tryFolder, { allowance: tried.allowance, policy: place.policy });
  }
  const files = force ? [] : await toCompare(guest, command, place.policy);
  return { definition: { command, consoles, qmpPath: runPlaces(place.runFolder).qmpPath }, files };
}

/** Of no file is anything said that its command does not read here. */
async function toCompare(
  { needsFiles }: Pick<GuestSpec, 'needsFiles'>,
  command: readonly string[],
  { folders }: GuestPolicy,
): Promise<MarkedFile[]> {
  const named = filesThatStay(command).filter(({ path }) => existsSync(path));
  const all = await withBases(named, command, folders).catch((error: unknown) => {
    throw hasCode(error, 'GUEST_REFUSED') ? error : cannotRunHere(messageOf(error), { cause: error });
  });
  const read = new Set(all.map(({ path }) => path));
  // The files that a QCOW2 file builds on are known by where they really are.
  return needsFiles.filter(({ path }) => read.has(path) || read.has(realOf(path)));
}

type Described = Pick<GuestSpec, 'command' | 'diskPaths' | 'bridges'>;

function networksHere({ bridges = {} }: Described, { policy }: GuestPlace): NetworkPlaces {
  return { map: parseNetworkMap(policy.networks), bridges };
}

function consolePorts({ command }: Described, { vmId, policy, others }: GuestPlace): Promise<PortSupply> {
  return chooseConsolePorts({
    vmId,
    command: guestOwn(command),
    ranges: policy.consolePorts ?? [],
    others: others ?? (() => Promise.resolve([])),
  });
}

/** Who reaches the guest by its networks and ports reaches it here. @throws GUEST_REFUSED with what is missing */
async function assertReachable(guest: Described, place: GuestPlace, state: 'running' | 'stopped'): Promise<void> {
  const options = optionWords(guestOwn(guest.command).slice(1));
  const { qemuFolder } = place.policy;
  assertNetworks(options, networksHere(guest, place), { runs: state === 'running', qemuFolder });
  await assertForwardsFree(guest.command);
}

function commandHere(
  guest: Described,
  place: GuestPlace,
  { isRaw, ports }: { readonly isRaw: (imageId: string) => boolean; readonly ports: PortSupply },
): { readonly command: string[]; readonly consoles: readonly GuestConsole[]; readonly allowance: Allowance } {
  const { command, diskPaths } = guest;
  const { images, runFolder, policy } = place;
  const networks = networksHere(guest, place);
  const disks = images.filter(({ kind }) => kind === 'disk');
  const places = disks.flatMap((disk): RelocatedDisk[] => {
    const from = Object.hasOwn(diskPaths, disk.imageId) ? diskPaths[disk.imageId] : undefined;
    return from === undefined ? [] : [relocated(disk, from, isRaw(disk.imageId), command)];
  });
  const allowance = arrivingAllowance(
    policy,
    disks.map(({ path }) => path),
    runFolder,
  );
  const moved = relocateTelling(command, places, runFolder, { networks, ports });
  assertAllowed(moved.command, allowance, SIDE);
  // One that has the name of what a network is here, and is none that may be had, is nobody's.
  const unmapped = unmappedNetwork(optionWords(guestOwn(command).slice(1)), networks);
  if (unmapped !== undefined) throw new DwcpError('GUEST_REFUSED', `The guest’s command is refused: ${unmapped}`, SIDE);
  return { ...moved, allowance };
}

/** @throws GUEST_REFUSED where its command has no word for what the place takes */
function relocated(
  { imageId, path: to, sizeBytes = 0, deviceBytes = 0 }: ImageHere,
  from: string,
  raw: boolean,
  command: readonly string[],
): RelocatedDisk {
  if (!raw && isDevicePath(to) && namedFormat(command, from) === 'qcow2')
    throw cannotRunHere(
      `its disk ${imageId} comes as the QCOW2 file that it is (encrypted, or with internal snapshots), which is put into a ` +
        `file only: --disk-map ${imageId}=file`,
    );
  if (deviceBytes <= sizeBytes) return { from, to, raw, sizeBytes };
  if (hasRoomForSize(command, from)) return { from, to, raw, sizeBytes, shownBytes: sizeBytes };
  throw cannotRunHere(
    `its disk ${imageId} has ${sizeBytes} bytes, and ${to} has ${deviceBytes}: its command names a -blockdev driver=file without a ` +
      'raw node above it, so it would see the difference; take a device of the same size, or a file',
  );
}

function understood<T>(
  parsed: { readonly success: true; readonly data: T } | { readonly success: false; readonly error: Error },
): T {
  if (parsed.success) return parsed.data;
  throw cannotRunHere('its description is not one that this release understands', { cause: parsed.error });
}
