/**
 * What becomes of an image's files where they are not being received: put at the image's own place, kept as baseline, given
 * both names while a guest's QEMU has it open, taken away. Receiving is working-image.ts's.
 */
import { constants, link, rm, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { DwcpError } from '../../model/errors';
import { type BaselineStore, baselinePathOf, workPathOf } from '../../store/baselines';
import { BlockJournal } from '../../store/block-journal';
import { exists, renameDurably, writeDurably } from '../../store/durable-file';
import { makeFolderDurably, removeDurably, syncFolder } from '../../store/durable-folder';
import type { Manifest } from '../../store/manifest';
import { setSparseSize } from '../../store/system-calls';
import { isDevicePath } from '../../system/block-device';
import { openImage } from '../../system/image-roots';
import type { CodecPool } from '../codec/codec-pool';
import { measureFile } from '../codec/measure-file';
import { keepUnjournaledOnDevice } from './device-image';
import { removeJournal, verifiedPath, type WorkingImageParameters } from './work-files';
import { COMMIT_AFTER_BLOCKS } from './working-image';

/**
 * Moves a verified image to its own place and records its hashes as the generation both sides hold. Idempotent, also
 * over a crash in the middle: what is not known any more is measured.
 */
export async function installImage(
  { vmId, image, owner, imagePath, journalPath }: WorkingImageParameters,
  generation: number,
  store: BaselineStore,
  pool: CodecPool,
  known?: Manifest,
): Promise<void> {
  const { imageId, kind, sizeBytes } = image;
  if (!isDevicePath(imagePath)) {
    if (await exists(workPathOf(imagePath))) await renameDurably(workPathOf(imagePath), imagePath);
    // A guest's disk is at its place already, under both names: then the rename has done nothing.
    await removeDurably(workPathOf(imagePath));
  }
  const held = known ?? (await measureFile(imagePath, sizeBytes, pool));
  await store.forget(vmId, imageId);
  if (!isDevicePath(imagePath)) await removeDurably(baselinePathOf(imagePath));
  await store.put({ vmId, imageId, kind, sizeBytes, ...owner, generation, complete: true }, held);
  await removeJournal(journalPath);
}

/**
 * Makes a file that came by another path (the standard transfer) a finished working image: measures it, compares roots,
 * journals every block.
 * @throws INTEGRITY_MISMATCH
 */
export async function sealWorkFile(
  { migrationId, image, imagePath, journalPath }: WorkingImageParameters,
  root: string,
  pool: CodecPool,
): Promise<void> {
  const workPath = isDevicePath(imagePath) ? imagePath : workPathOf(imagePath);
  const held = await measureFile(workPath, image.sizeBytes, pool);
  if (held.root() !== root)
    throw new DwcpError(
      'INTEGRITY_MISMATCH',
      `Image ${image.imageId} differs from the source after the standard transfer`,
      { side: 'destination' },
    );
  const journal = await BlockJournal.create(journalPath, { migrationId, image, base: 'empty' });
  try {
    for (let block = 0; block < held.blocks; block += COMMIT_AFTER_BLOCKS) {
      const part = Array.from(
        { length: Math.min(COMMIT_AFTER_BLOCKS, held.blocks - block) },
        (_, index) => block + index,
      );
      await journal.append(part.map((each) => ({ block: each, hash: held.hashOf(each) })));
    }
  } finally {
    await journal.close();
  }
  await writeDurably(verifiedPath(journalPath), root);
}

/** What a standard transfer has brought and not finished: becomes the baseline where there is none, else goes. */
export async function keepUnjournaled(
  parameters: WorkingImageParameters,
  generation: number,
  store: BaselineStore,
  pool: CodecPool,
): Promise<void> {
  const { vmId, image, owner, imagePath } = parameters;
  if (isDevicePath(imagePath)) return keepUnjournaledOnDevice(parameters, generation, store, pool);
  const workPath = workPathOf(imagePath);
  if (!(await exists(workPath))) return;
  if (await exists(baselinePathOf(imagePath))) return removeDurably(workPath);
  const { imageId, kind, sizeBytes } = image;
  await store.adopt(
    workPath,
    imagePath,
    { vmId, imageId, kind, sizeBytes, ...owner, generation, complete: false },
    await measureFile(workPath, sizeBytes, pool),
  );
}

/** An empty working file of an image, for somebody else to fill; it is there after a crash, and nothing in it. */
export async function makeWorkFile(imagePath: string, sizeBytes: number): Promise<void> {
  await makeFolderDurably(dirname(imagePath));
  await rm(workPathOf(imagePath), { force: true });
  const handle = await openImage(workPathOf(imagePath), constants.O_RDWR | constants.O_CREAT);
  try {
    setSparseSize(handle.fd, sizeBytes);
    await handle.sync();
  } finally {
    await handle.close();
  }
  await syncFolder(dirname(imagePath));
}

/** An image that is at its place already and nobody has hashed: the working name goes, and the baseline it replaces. */
export async function installLinked(
  { vmId, image, imagePath }: WorkingImageParameters,
  store: BaselineStore,
): Promise<void> {
  if (!isDevicePath(imagePath)) await removeDurably(workPathOf(imagePath));
  await store.forget(vmId, image.imageId);
}

/** Gives a working file its image's own name too: a guest's QEMU opens its disks under the names that they keep. A device has its own. */
export async function linkInPlace(imagePath: string): Promise<void> {
  if (isDevicePath(imagePath)) return;
  const [work, place] = await Promise.all([stat(workPathOf(imagePath)), stat(imagePath).catch(() => undefined)]);
  if (place?.ino !== work.ino) {
    await rm(imagePath, { force: true });
    await link(workPathOf(imagePath), imagePath);
  }
  // Past the point of no return the guest's disk has no other name to be found under.
  await syncFolder(dirname(imagePath));
}

/** Takes the second name away again. */
export async function unlinkFromPlace(imagePath: string): Promise<void> {
  if (isDevicePath(imagePath)) return;
  const [work, place] = await Promise.all([
    stat(workPathOf(imagePath)).catch(() => undefined),
    stat(imagePath).catch(() => undefined),
  ]);
  if (work && place?.ino === work.ino) await removeDurably(imagePath);
}
