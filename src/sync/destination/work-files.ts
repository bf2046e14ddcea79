/**
 * The files of a working image: where it is received, what its journal and its verified root are called, how both begin anew.
 */
import { constants, type FileHandle } from 'node:fs/promises';
import { dirname } from 'node:path';
import { toDwcpError } from '../../model/errors';
import { blockCount, type ImageSpec } from '../../model/image';
import { type BaselineOwner, type BaselineStore, baselinePathOf, workPathOf } from '../../store/baselines';
import { BlockJournal } from '../../store/block-journal';
import { exists, renameDurably } from '../../store/durable-file';
import { makeFolderDurably, removeDurably, syncFolder } from '../../store/durable-folder';
import { fillInSlices } from '../../store/in-slices';
import { Manifest } from '../../store/manifest';
import { setSparseSize } from '../../store/system-calls';
import { isDevicePath } from '../../system/block-device';
import { openImage } from '../../system/image-roots';
import type { CodecPool } from '../codec/codec-pool';
import { measure } from '../codec/measure-file';

/** What the image is received onto, where nothing of it has come yet. */
export type StartFrom = 'baseline' | 'empty';

export interface WorkingImageParameters {
  readonly migrationId: string;
  readonly vmId: string;
  readonly image: ImageSpec;
  /** Whose it is: a baseline of another's is none. */
  readonly owner: BaselineOwner;
  /** The image's own place on this host. */
  readonly imagePath: string;
  readonly journalPath: string;
  readonly startFrom: StartFrom;
  /** Blocks come again and again while the guest runs: of two versions the later batch wins, in whatever order they come. */
  readonly live?: boolean;
  /** What lies on a device already, and is no earlier copy of this VM, may go: an operator has said so. */
  readonly mayOverwrite?: boolean;
  /** Gives back what was taken for it. */
  readonly onClosed?: () => void;
}

/** Where the root of an image that finish() has agreed to is kept. */
export function verifiedPath(journalPath: string): string {
  return `${journalPath}.verified`;
}

/** Noted here: the source has proven that it knows the baseline which the image began from. */
export function provenPath(journalPath: string): string {
  return `${journalPath}.proven`;
}

export async function removeJournal(journalPath: string): Promise<void> {
  await removeDurably(verifiedPath(journalPath), provenPath(journalPath), journalPath);
}

/** What a working image consists of, open, and what it held then. */
export interface WorkFiles {
  readonly handle: FileHandle;
  readonly journal: BlockJournal;
  readonly held: Manifest;
  /** One byte a block: 1 where the journal promises it. */
  readonly promised: Uint8Array;
  /** The journal and its file were there. */
  readonly resumed: boolean;
  /** It began empty, or its source has proven to know what it began from. */
  readonly proven: boolean;
  /** A device holds something else where nothing of the image has come yet. */
  readonly covers?: boolean;
}

/**
 * Opens or creates them, and measures what no journal promises.
 * @throws DISK_FULL, IMAGE_UNWRITABLE, JOURNAL_CORRUPT; then none stays open
 */
export async function openWorkFiles(
  parameters: WorkingImageParameters,
  store: BaselineStore,
  pool: CodecPool,
): Promise<WorkFiles> {
  const { image, imagePath, journalPath } = parameters;
  let journal: BlockJournal | undefined;
  let handle: FileHandle | undefined;
  try {
    const held = new Manifest(image.sizeBytes);
    const durable = new SharedArrayBuffer(blockCount(image.sizeBytes));
    const promised = new Uint8Array(durable);
    journal = await BlockJournal.open(journalPath, ({ block, hash }) => {
      held.set(block, hash);
      promised[block] = 1;
    });
    // Without its file a journal promises nothing: a crash has left it behind, or come before the baseline was renamed.
    const resumed = journal?.head.image.sizeBytes === image.sizeBytes && (await exists(workPathOf(imagePath)));
    if (!journal || !resumed) {
      if (journal) {
        // What it promised has been noted already.
        await journal.close();
        await fillInSlices(held.hashes, 0);
        await fillInSlices(promised, 0);
      }
      journal = undefined;
      journal = await beginAnew(parameters, store);
    }
    handle = await openImage(workPathOf(imagePath), constants.O_RDWR | constants.O_CREAT);
    setSparseSize(handle.fd, image.sizeBytes);
    await syncFolder(dirname(imagePath));
    await measure(handle.fd, held, pool, durable);
    const proven = journal.head.base === 'empty' || (await exists(provenPath(journalPath)));
    return { handle, journal, held, promised, resumed, proven };
  } catch (error) {
    await journal?.close().catch(() => undefined);
    await handle?.close().catch(() => undefined);
    throw toDwcpError(error, 'IMAGE_UNWRITABLE', { side: 'destination' });
  }
}

/**
 * Starts a journal, then gives it a working file: the baseline's content where there is one and it is wanted. Once it
 * is open its name is synced.
 */
async function beginAnew(
  { migrationId, vmId, image, owner, imagePath, journalPath, startFrom }: WorkingImageParameters,
  store: BaselineStore,
): Promise<BlockJournal> {
  await makeFolderDurably(dirname(imagePath));
  await removeJournal(journalPath);
  // Before the journal: a crash in between must not leave another's file to it.
  await removeDurably(workPathOf(imagePath));
  const fromBaseline =
    startFrom === 'baseline' &&
    (await store.isOf(vmId, image.imageId, owner)) &&
    (await store.openContent(vmId, image.imageId)) &&
    (await exists(baselinePathOf(imagePath)));
  const journal = await BlockJournal.create(journalPath, {
    migrationId,
    image,
    base: fromBaseline ? 'baseline' : 'empty',
  });
  if (fromBaseline) await renameDurably(baselinePathOf(imagePath), workPathOf(imagePath));
  return journal;
}

/** What began from a baseline that its source has not proven to know is that baseline again; all else stays. Nothing has it open. */
export async function giveBackUnproven(
  { vmId, image, imagePath, journalPath }: WorkingImageParameters,
  store: BaselineStore,
): Promise<void> {
  const journal = await BlockJournal.open(journalPath, () => undefined);
  await journal?.close();
  if (journal?.head.base !== 'baseline' || (await exists(provenPath(journalPath)))) return;
  // A device has it still: nothing was written before.
  if (!isDevicePath(imagePath) && (await exists(workPathOf(imagePath))))
    await renameDurably(workPathOf(imagePath), baselinePathOf(imagePath));
  await removeJournal(journalPath);
  store.givenBack(vmId, image.imageId);
}
