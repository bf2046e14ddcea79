/**
 * A guest that comes from another host, as its agent describes it, made one that may run here. Nothing is started, written or looked
 * for before every word of its command has been found allowed: whoever speaks for the source would choose what this host runs.
 */
import {
  type GuestDefinition,
  type GuestSpec,
  guestSpecSchema,
  type SharedFile,
  type StoppedGuest,
  stoppedGuestSchema,
} from '../../model/guest';
import type { GuestHardware } from '../../model/guest-hardware';
import { cannotRunHere } from '../../model/guest-refusals';
import type { ImageSpec, VmImage } from '../../model/image';
import { isDevicePath } from '../../system/block-device';
import type { Allowance } from './allowance';
import { assertAllowed } from './allowed-options';
import { arrivingAllowance } from './arriving-allowance';
import { hasRoomForSize, namedFormat } from './guest-disks';
import type { GuestPolicy } from './guest-policy';
import { assertCanRun, assertCanStart } from './preflight';
import { rehearse, scratchDisks } from './rehearse';
import { type RelocatedDisk, relocate } from './relocate';
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
}

const SIDE = { side: 'destination' } as const;

/**
 * Whether a running guest can run here, and how its QEMU is started.
 * @param force lets QEMU itself say what is missing; what may not run is refused all the same
 * @throws GUEST_REFUSED with the reason
 */
export async function prepareGuest(given: GuestSpec, place: GuestPlace, force: boolean): Promise<PreparedGuest> {
  const guest = understood(guestSpecSchema.safeParse(given));
  const { command, allowance } = commandHere(guest, place, () => true);
  if (!force) await assertCanRun(place.vmId, command, guest, place.policy);
  return {
    command,
    ramBlocks: guest.ramBlocks,
    // A reference to one that may not be read here is sent as content.
    sharedFiles: guest.sharedFiles.filter(({ path }) => allowance.file(path) === undefined),
    ...(!force && { hardware: guest.hardware }),
    ...(guest.setUp && { setUp: guest.setUp }),
    qmpPath: runPlaces(place.runFolder).qmpPath,
  };
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
): Promise<GuestDefinition> {
  const guest = understood(stoppedGuestSchema.safeParse(given));
  const isRaw = (imageId: string): boolean => guest.rawDisks.includes(imageId);
  const { command } = commandHere(guest, place, isRaw);
  if (!force) {
    await assertCanStart(place.vmId, command, place.policy);
    const disks = scratchDisks(place.images, place.tryFolder, isRaw);
    const tried = commandHere(guest, { ...place, images: disks, runFolder: place.tryFolder }, isRaw);
    await rehearse(tried.command, disks, place.tryFolder, { allowance: tried.allowance, policy: place.policy });
  }
  return { command, qmpPath: runPlaces(place.runFolder).qmpPath };
}

function commandHere(
  { command, diskPaths }: Pick<GuestSpec, 'command' | 'diskPaths'>,
  { images, runFolder, policy }: GuestPlace,
  isRaw: (imageId: string) => boolean,
): { readonly command: string[]; readonly allowance: Allowance } {
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
  const moved = relocate(command, places, runFolder);
  assertAllowed(moved, allowance, SIDE);
  return { command: moved, allowance };
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
