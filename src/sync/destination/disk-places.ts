/**
 * Where on this host the images of a VM come to lie, and that nothing else lies there: looked at before anything is promised. A peer
 * names no place; what an operator names has to be one that this host's own configuration lets be (imageRoots, diskPlaces). What a
 * look cannot tell, opening the place does (device-image.ts): it reads all of a device before anything is written.
 */
import { constants, type FileHandle } from 'node:fs/promises';
import { HASH_BYTES, writeBlockHash } from '../../encoder/hash';
import { OWN_FOLDER, parseDiskMap, placeByTemplate } from '../../model/disk-map';
import { DwcpError, errnoOf, messageOf } from '../../model/errors';
import { BLOCK_SIZE_BYTES, blockCount, blockLength, type ImageSpec, type VmImage } from '../../model/image';
import { type BaselineOwner, type BaselineStore, isOf } from '../../store/baselines';
import { exists } from '../../store/durable-file';
import type { Manifest } from '../../store/manifest';
import type { VmRecord, VmRegistry } from '../../store/vm-registry';
import { deviceBytes, deviceNumber, isDevicePath, openDevice } from '../../system/block-device';
import { holdsOther, inUse, placeRefused, tooSmall } from './device-refusals';

export interface PlacedImage extends VmImage, ImageSpec {
  readonly sizeBytes: number;
  /** How large the device is that it lies on. */
  readonly deviceBytes?: number;
}

export interface WantedPlaces {
  readonly vmId: string;
  readonly images: readonly ImageSpec[];
  readonly owner: BaselineOwner;
  /** As the operator has written it, for this migration. */
  readonly diskMap: string;
  readonly overwriteDisks: boolean;
}

export interface PlacesHere {
  readonly registry: VmRegistry;
  readonly store: BaselineStore;
  /** The option diskPlaces. */
  readonly template: string;
  /** Images of other migrations that are on their way to this host. */
  readonly arriving: readonly Pick<VmImage, 'path'>[];
  /** Which process has a file or device locked, as QEMU does; 0 where it is not told. */
  readonly lockHolder: (path: string) => Promise<number | undefined>;
}

/** Blocks at both ends of a device, where every file system, table and label shows. */
const END_BLOCKS = 16;
/** In between, spread over all of it. */
const SAMPLES = 64;

/** @throws PLACE_REFUSED, INVALID_INPUT: one line that says which disk, which place and the mend */
export async function placeImages(
  wanted: WantedPlaces,
  known: VmRecord | undefined,
  here: PlacesHere,
): Promise<readonly PlacedImage[]> {
  const map = readMap(wanted);
  const placed: PlacedImage[] = [];
  const devices = new Set<number>();
  for (const image of wanted.images) {
    const path = placeOf(image, map.get(image.imageId), wanted.vmId, known, here);
    const device = await deviceNumber(path);
    if (placed.some((other) => other.path === path) || (device !== undefined && devices.has(device)))
      throw placeRefused(`${image.imageId} and another disk of ${wanted.vmId} would both lie at ${path}`);
    if (device !== undefined) devices.add(device);
    if (isDevicePath(path)) placed.push({ ...image, path, deviceBytes: await lookAtDevice(path, image, wanted, here) });
    else {
      await assertFree(path, image, wanted.vmId, { known, registry: here.registry });
      placed.push({ ...image, path });
    }
  }
  return placed;
}

/** Nothing for what is no device. */
export async function sizeOfDevice(path: string): Promise<Pick<PlacedImage, 'deviceBytes'>> {
  if (!isDevicePath(path)) return {};
  const handle = await openDevice(path, constants.O_RDONLY);
  try {
    return { deviceBytes: await deviceBytes(handle) };
  } finally {
    await handle.close();
  }
}

function readMap({ diskMap, images, vmId }: WantedPlaces): ReadonlyMap<string, string> {
  let map: ReadonlyMap<string, string>;
  try {
    map = parseDiskMap(diskMap);
  } catch (error) {
    throw new DwcpError('INVALID_INPUT', messageOf(error));
  }
  const disks = images.flatMap(({ imageId, kind }) => (kind === 'disk' ? [imageId] : []));
  const unknown = [...map.keys()].find((imageId) => !disks.includes(imageId));
  if (unknown === undefined) return map;
  throw new DwcpError('INVALID_INPUT', `diskMap: ${vmId} has no disk ${unknown}; it has ${disks.join(', ') || 'none'}`);
}

function placeOf(
  { imageId, kind }: ImageSpec,
  mapped: string | undefined,
  vmId: string,
  known: VmRecord | undefined,
  { registry, template }: PlacesHere,
): string {
  const own = registry.ownPlace(vmId, imageId);
  if (mapped === OWN_FOLDER) return own;
  if (mapped !== undefined) {
    if (registry.isInRoots(mapped)) return mapped;
    throw placeRefused(
      `${mapped} lies below none of this host’s imageRoots`,
      'Name its folder there, or another place',
    );
  }
  const before = known?.images.find((image) => image.imageId === imageId)?.path;
  if (before !== undefined || kind !== 'disk' || template === '') return before ?? own;
  try {
    return placeByTemplate(template, vmId, imageId);
  } catch (error) {
    throw new DwcpError('CONFIG_INVALID', messageOf(error), { side: 'destination' });
  }
}

/** A file that an operator has named; what lies in the host's own folder for this VM is this VM's. */
async function assertFree(
  path: string,
  { imageId }: ImageSpec,
  vmId: string,
  { known, registry }: { readonly known: VmRecord | undefined; readonly registry: VmRegistry },
): Promise<void> {
  const isOwn = known?.images.some((image) => image.imageId === imageId && image.path === path) ?? false;
  if (isOwn || path === registry.ownPlace(vmId, imageId)) return;
  const others = (await registry.list()).filter((other) => other.vmId !== vmId);
  const other = others.find(({ images }) => images.some((image) => image.path === path));
  if (other) throw placeRefused(`${path} is a disk of VM ${other.vmId} on this host`);
  if (await exists(path))
    throw placeRefused(`${path} is there already, and is not overwritten`, 'Remove it, or name another place');
}

/** @returns how large it is */
async function lookAtDevice(path: string, image: ImageSpec, wanted: WantedPlaces, here: PlacesHere): Promise<number> {
  const device = await deviceNumber(path);
  if (device === undefined) {
    const hint = `Make one of ${image.sizeBytes} bytes or more (lvcreate -L ${image.sizeBytes}b), or --disk-map ${image.imageId}=${OWN_FOLDER}`;
    throw placeRefused(`there is no block device ${path} for disk ${image.imageId} of ${wanted.vmId}`, hint);
  }
  await assertNobodyElses(path, device, wanted.vmId, here);
  let handle: FileHandle;
  try {
    handle = await openDevice(path, constants.O_RDONLY | constants.O_EXCL);
  } catch (error) {
    throw errnoOf(error) === 'EBUSY' ? inUse(path) : placeRefused(`${path} cannot be opened: ${messageOf(error)}`);
  }
  try {
    const size = await deviceBytes(handle);
    if (size < image.sizeBytes) throw tooSmall(path, size, image.sizeBytes);
    if (!wanted.overwriteDisks) await assertOwnContent(handle, path, image, wanted, here.store);
    return size;
  } finally {
    await handle.close();
  }
}

async function assertNobodyElses(
  path: string,
  device: number,
  vmId: string,
  { registry, arriving, lockHolder }: PlacesHere,
): Promise<void> {
  const isSame = async (image: Pick<VmImage, 'path'>): Promise<boolean> =>
    isDevicePath(image.path) && (await deviceNumber(image.path)) === device;
  for (const other of await registry.list()) {
    if (other.vmId === vmId || other.presence !== 'here') continue;
    for (const image of other.images)
      if (await isSame(image))
        throw placeRefused(`${path} is disk ${image.imageId} of VM ${other.vmId}, which lives here`);
  }
  for (const image of arriving) if (await isSame(image)) throw placeRefused(`another VM is on its way to ${path}`);
  const holder = await lockHolder(path);
  if (holder !== undefined)
    throw placeRefused(
      `${path} is locked by ${holder > 0 ? `process ${holder}` : 'a process'}: a guest seems to run on it`,
    );
}

/** What shows at once: zeros, or what this VM has left here. */
async function assertOwnContent(
  handle: FileHandle,
  path: string,
  image: ImageSpec,
  { vmId, owner }: WantedPlaces,
  store: BaselineStore,
): Promise<void> {
  const known = await store.open(vmId, image.imageId);
  const isEarlier =
    known?.record.inPlace === path && known.record.sizeBytes === image.sizeBytes && isOf(known.record, owner);
  const earlier: Manifest | undefined = isEarlier ? known.manifest : undefined;
  const bytes = Buffer.alloc(BLOCK_SIZE_BYTES);
  const hash = Buffer.alloc(HASH_BYTES);
  let others = 0;
  for (const block of sampled(blockCount(image.sizeBytes))) {
    const part = bytes.subarray(0, blockLength(image.sizeBytes, block));
    await handle.read(part, 0, part.length, block * BLOCK_SIZE_BYTES);
    if (part.every((byte) => byte === 0)) continue;
    writeBlockHash(part, hash, 0);
    if (!earlier?.hashOf(block).equals(hash)) others += 1;
  }
  if (others > 0) throw holdsOther(path, vmId, image.imageId, others);
}

function sampled(blocks: number): ReadonlySet<number> {
  const chosen = new Set<number>();
  for (let block = 0; block < Math.min(END_BLOCKS, blocks); block += 1) chosen.add(block).add(blocks - 1 - block);
  for (let sample = 0; sample < SAMPLES; sample += 1) chosen.add(Math.floor((sample * (blocks - 1)) / SAMPLES));
  return chosen;
}
