/**
 * An image that arrives on a block device: written where it will lie, so nothing is renamed, and what is in place is told by the journal.
 * A device had a content before. What of it is no earlier copy of this VM is overwritten only where the operator has said so, and its
 * hashes are nobody's to learn: such a block is held as one of no content until something of the image is there.
 *
 *   taken: everything on it is zeros, or this VM's, or may be overwritten; noted beside the journal, so that what this migration has
 *   left itself is not asked about again
 */
import { randomFillSync } from 'node:crypto';
import { constants, type FileHandle } from 'node:fs/promises';
import { PAGE_DIGESTS_BYTES } from '../../encoder/keyed-hash';
import { errnoOf, toDwcpError } from '../../model/errors';
import { blockCount } from '../../model/image';
import { type BaselineRecord, type BaselineStore, isOf, workPathOf } from '../../store/baselines';
import { BlockJournal } from '../../store/block-journal';
import { exists, readIfThere, writeDurably } from '../../store/durable-file';
import { removeDurably } from '../../store/durable-folder';
import { inSlices } from '../../store/in-slices';
import { Manifest, OF_NO_CONTENT } from '../../store/manifest';
import { deviceBytes, isDevicePath, openDevice } from '../../system/block-device';
import { clearBlock } from '../codec/block-io';
import type { CodecPool } from '../codec/codec-pool';
import { measure, measureFile } from '../codec/measure-file';
import { holdsOther, inUse, tooSmall } from './device-refusals';
import { openWorkFiles, provenPath, removeJournal, type WorkFiles, type WorkingImageParameters } from './work-files';

const LOOKED_AT_ONCE = 65_536;
/** Between two looks at everything else. */
const CLEARED_AT_ONCE = 256;

type KeptRecord = Omit<BaselineRecord, 'lastUsedAtMs' | 'root' | 'contentPath' | 'inPlace' | 'seal'>;

/** What lay on a device that was taken: nothing but zeros and this VM's, or something else. */
type LayThere = 'own' | 'other';

/** Noted here: the device is this migration's to write. It stays until the migration is over here. */
function takenPath(journalPath: string): string {
  return `${journalPath}.taken`;
}

/** As openWorkFiles(), wherever the image comes to lie. */
export function openAtPlace(
  parameters: WorkingImageParameters,
  store: BaselineStore,
  pool: CodecPool,
): Promise<WorkFiles> {
  return (isDevicePath(parameters.imagePath) ? openOnDevice : openWorkFiles)(parameters, store, pool);
}

/** Nothing has arrived: a device stays as it is. */
export async function forgetAtPlace({ imagePath }: Pick<WorkingImageParameters, 'imagePath'>): Promise<void> {
  if (!isDevicePath(imagePath)) await removeDurably(workPathOf(imagePath));
}

/** What has arrived becomes the baseline, wherever it lies. */
export async function keepAtPlace(
  parameters: WorkingImageParameters,
  record: KeptRecord,
  held: Manifest,
  store: BaselineStore,
): Promise<void> {
  const { imagePath } = parameters;
  if (isDevicePath(imagePath)) await keepOnDevice(parameters, record, held, store);
  else await store.adopt(workPathOf(imagePath), imagePath, record, held);
}

/**
 * Opens it, and learns what is on it from itself alone: a device may have been written by others while this agent was gone.
 * @throws PLACE_REFUSED where it is in use, too small, or holds what may not be overwritten; then nothing stays open
 */
async function openOnDevice(
  parameters: WorkingImageParameters,
  store: BaselineStore,
  pool: CodecPool,
): Promise<WorkFiles> {
  const { migrationId, image, imagePath, journalPath, startFrom } = parameters;
  const handle = await openForWriting(imagePath, image.sizeBytes);
  let journal: BlockJournal | undefined;
  try {
    const said = new Manifest(image.sizeBytes);
    const promised = new Uint8Array(blockCount(image.sizeBytes));
    journal = await BlockJournal.open(journalPath, ({ block, hash }) => {
      said.set(block, hash);
      promised[block] = 1;
    });
    const resumed = journal?.head.image.sizeBytes === image.sizeBytes;
    if (journal && !resumed) {
      await journal.close();
      journal = undefined;
      promised.fill(0);
    }
    const held = new Manifest(image.sizeBytes);
    await measure(handle.fd, held, pool);
    const earlier = await earlierCopy(parameters, store);
    const base = journal?.head.base ?? (startFrom === 'baseline' && earlier ? 'baseline' : 'empty');
    const found = await hideOthers(held, { said, promised, earlier, tells: base === 'baseline' });
    if (!journal) {
      await take(parameters, found.other);
      await removeJournal(journalPath);
      journal = await BlockJournal.create(journalPath, { migrationId, image, base });
    }
    const proven = base === 'empty' || (await exists(provenPath(journalPath)));
    return { handle, journal, held, promised, resumed, proven, covers: found.hidden > 0 };
  } catch (error) {
    await journal?.close().catch(() => undefined);
    await handle.close();
    throw toDwcpError(error, 'IMAGE_UNWRITABLE', { side: 'destination' });
  }
}

/** For what writes it by itself, from the beginning on. @throws as openOnDevice() */
export async function takeDevice(
  parameters: WorkingImageParameters,
  store: BaselineStore,
  pool: CodecPool,
): Promise<FileHandle> {
  const { image, imagePath, journalPath } = parameters;
  const handle = await openForWriting(imagePath, image.sizeBytes);
  try {
    if (await exists(takenPath(journalPath))) return handle;
    const held = new Manifest(image.sizeBytes);
    await measure(handle.fd, held, pool);
    const earlier = await earlierCopy(parameters, store);
    const { other } = await hideOthers(held, {
      said: held,
      promised: new Uint8Array(held.blocks),
      earlier,
      tells: false,
    });
    await take(parameters, other);
    return handle;
  } catch (error) {
    await handle.close();
    throw toDwcpError(error, 'IMAGE_UNWRITABLE', { side: 'destination' });
  }
}

/** What has arrived is a baseline from now on; what else lay there and may be overwritten goes, once anything of the image is there. */
async function keepOnDevice(
  { image, imagePath }: Pick<WorkingImageParameters, 'image' | 'imagePath'>,
  record: KeptRecord,
  held: Manifest,
  store: BaselineStore,
): Promise<void> {
  const others: number[] = [];
  let own = 0;
  await inSlices(held.blocks, LOOKED_AT_ONCE, (first, end) => {
    for (let block = first; block < end; block += 1)
      if (isHidden(held, block)) others.push(block);
      else if (!held.isZero(block)) own += 1;
  });
  // Nothing has come: it is as it was before.
  if (own === 0 && others.length > 0) return;
  if (others.length > 0) {
    const handle = await openForWriting(imagePath, image.sizeBytes);
    try {
      await inSlices(others.length, CLEARED_AT_ONCE, (first, end) => {
        for (const block of others.slice(first, end)) {
          clearBlock({ fd: handle.fd, sizeBytes: image.sizeBytes }, block);
          held.hashOf(block).fill(0);
        }
      });
      await handle.datasync();
    } finally {
      await handle.close();
    }
  }
  await store.keepInPlace(imagePath, record, held);
}

/** The same for what has come without a journal, where nothing else can lie there. */
export async function keepUnjournaledOnDevice(
  parameters: WorkingImageParameters,
  generation: number,
  store: BaselineStore,
  pool: CodecPool,
): Promise<void> {
  const { vmId, image, owner, imagePath, journalPath } = parameters;
  const layThere = (await readIfThere(takenPath(journalPath)))?.toString('utf8');
  if (layThere !== ('own' satisfies LayThere)) return;
  const { imageId, kind, sizeBytes } = image;
  const held = await measureFile(imagePath, sizeBytes, pool);
  const known = await earlierCopy(parameters, store);
  if (known?.root() === held.root()) return;
  await store.keepInPlace(imagePath, { vmId, imageId, kind, sizeBytes, ...owner, generation, complete: false }, held);
}

/** Page hashes of blocks whose content is another's: of none, so that no page is taken for one that is there. */
export function withoutOthers(digests: Uint8Array, list: readonly number[], held: Manifest): Uint8Array {
  for (const [index, block] of list.entries())
    if (isHidden(held, block)) randomFillSync(digests, index * PAGE_DIGESTS_BYTES, PAGE_DIGESTS_BYTES);
  return digests;
}

function isHidden(held: Manifest, block: number): boolean {
  return held.hashOf(block).equals(OF_NO_CONTENT);
}

async function openForWriting(path: string, sizeBytes: number): Promise<FileHandle> {
  let handle: FileHandle;
  try {
    handle = await openDevice(path, constants.O_RDWR | constants.O_EXCL);
  } catch (error) {
    if (errnoOf(error) !== 'EBUSY') throw toDwcpError(error, 'IMAGE_UNWRITABLE', { side: 'destination' });
    throw inUse(path);
  }
  try {
    const size = await deviceBytes(handle);
    if (size < sizeBytes) throw tooSmall(path, size, sizeBytes);
    return handle;
  } catch (error) {
    await handle.close();
    throw toDwcpError(error, 'IMAGE_UNWRITABLE', { side: 'destination' });
  }
}

/** What this host knows the device to hold of this VM. */
async function earlierCopy(
  { vmId, image, owner, imagePath }: Pick<WorkingImageParameters, 'vmId' | 'image' | 'owner' | 'imagePath'>,
  store: BaselineStore,
): Promise<Manifest | undefined> {
  const known = await store.open(vmId, image.imageId);
  if (known?.record.inPlace !== imagePath || known.record.sizeBytes !== image.sizeBytes) return undefined;
  return isOf(known.record, owner) ? known.manifest : undefined;
}

interface Known {
  /** By the journal of this migration. */
  readonly said: Manifest;
  /** One byte a block; what is not there any more is not promised any more. */
  readonly promised: Uint8Array;
  readonly earlier: Manifest | undefined;
  /** Whether the earlier copy is what the image begins from: its hashes are told, once the source has proven to know them. */
  readonly tells: boolean;
}

/** Holds what is no part of the image as of no content. @returns how many blocks that is, and how many of them are not even this VM's */
async function hideOthers(
  held: Manifest,
  { said, promised, earlier, tells }: Known,
): Promise<{ readonly hidden: number; readonly other: number }> {
  let [hidden, other] = [0, 0];
  await inSlices(held.blocks, LOOKED_AT_ONCE, (first, end) => {
    for (let block = first; block < end; block += 1) {
      const now = held.hashOf(block);
      if (promised[block] === 1 && now.equals(said.hashOf(block))) continue;
      promised[block] = 0;
      if (held.isZero(block)) continue;
      const isEarlier = earlier !== undefined && now.equals(earlier.hashOf(block));
      if (isEarlier && tells) continue;
      hidden += 1;
      if (!isEarlier) other += 1;
      now.set(OF_NO_CONTENT);
    }
  });
  return { hidden, other };
}

/** @throws PLACE_REFUSED where something lies there that nobody has given up */
async function take(
  { vmId, image, imagePath, journalPath, mayOverwrite = false }: WorkingImageParameters,
  otherBlocks: number,
): Promise<void> {
  if (await exists(takenPath(journalPath))) return;
  if (otherBlocks > 0 && !mayOverwrite) throw holdsOther(imagePath, vmId, image.imageId, otherBlocks);
  await writeDurably(takenPath(journalPath), (otherBlocks > 0 ? 'other' : 'own') satisfies LayThere);
}
