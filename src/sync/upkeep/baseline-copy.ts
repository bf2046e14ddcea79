/**
 * Keeps what has arrived beside a VM that lives here, as old bytes for deltas on the way back: by clone where the file
 * system shares extents, else by copy where space and the store's limit allow. Each copied block is checked; what the
 * VM has written meanwhile is left out.
 */
import { type FileHandle, open, rm, stat, statfs } from 'node:fs/promises';
import { dirname } from 'node:path';
import { BLOCK_SIZE_BYTES } from '../../model/image';
import { type Baseline, type BaselineStore, baselinePathOf, ownerOf } from '../../store/baselines';
import { renameDurably } from '../../store/durable-file';
import { makeFolderDurably } from '../../store/durable-folder';
import { cloneFile, setSparseSize } from '../../store/system-calls';
import { isDevicePath } from '../../system/block-device';
import { openImage } from '../../system/image-roots';
import type { CodecPool } from '../codec/codec-pool';
import { piecesOf } from '../codec/pieces';

export interface KeptCopy {
  readonly kept: 'clone' | 'copy' | 'no';
  readonly reason: string;
}

/** The copy while it is being made. */
export function copyPathOf(imagePath: string): string {
  return `${baselinePathOf(imagePath)}.part`;
}

/** A copy leaves at least this share of the disk free. */
const FREE_SHARE_AFTER = 0.2;

interface LivingImage {
  readonly vmId: string;
  readonly imageId: string;
  readonly imagePath: string;
  /** Where the copy is kept; undefined: beside the image. */
  readonly besidePath?: string;
}

/** @param mode the option keepBaselineCopy */
export async function keepBaselineCopy(
  { vmId, imageId, imagePath, besidePath = imagePath }: LivingImage,
  mode: string,
  store: BaselineStore,
  pool: CodecPool,
  signal: AbortSignal,
): Promise<KeptCopy> {
  if (mode === 'never') return { kept: 'no', reason: 'keepBaselineCopy is never' };
  const baseline = await store.open(vmId, imageId);
  if (!baseline) return { kept: 'no', reason: 'no baseline is recorded' };
  const temporary = copyPathOf(besidePath);
  const isDevice = isDevicePath(imagePath);
  try {
    if (isDevice) await makeFolderDurably(dirname(besidePath));
    if (!isDevice && !store.sealsContents && cloneFile(imagePath, temporary))
      return await record(baseline, besidePath, temporary, store, {
        kept: 'clone',
        reason: 'shares the image’s extents',
      });
    if (mode === 'clone')
      return {
        kept: 'no',
        reason: store.sealsContents ? 'what is encrypted shares no extents' : 'the file system cannot clone',
      };
    const bytes = isDevice ? dataBytes(baseline) : (await stat(imagePath)).blocks * 512;
    const refusal = await noRoom(vmId, bytes, dirname(besidePath), store);
    if (refusal) return { kept: 'no', reason: refusal };
    await copy(baseline, imagePath, temporary, pool, signal);
    return await record(baseline, besidePath, temporary, store, { kept: 'copy', reason: 'copied, each block checked' });
  } finally {
    await rm(temporary, { force: true });
  }
}

async function copy(
  { manifest }: Baseline,
  imagePath: string,
  temporary: string,
  pool: CodecPool,
  signal: AbortSignal,
): Promise<void> {
  const { sizeBytes, memory: hashes, blocks } = manifest;
  const from = await openImage(imagePath);
  let target: FileHandle | undefined;
  try {
    target = await open(temporary, 'w', 0o600);
    setSparseSize(target.fd, sizeBytes);
    for (const piece of piecesOf(blocks)) {
      signal.throwIfAborted();
      await pool.run({ kind: 'copy', file: { fd: from.fd, sizeBytes }, toFd: target.fd, ...piece, hashes });
    }
  } finally {
    await Promise.all([from.close(), target?.close()]);
  }
}

async function record(
  { record: known, manifest }: Baseline,
  besidePath: string,
  temporary: string,
  store: BaselineStore,
  kept: KeptCopy,
): Promise<KeptCopy> {
  const contentPath = baselinePathOf(besidePath);
  const handle = await open(temporary, 'r+');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
  await renameDurably(temporary, contentPath);
  const { vmId, imageId, kind, sizeBytes, generation, complete } = known;
  await store.put({ vmId, imageId, kind, sizeBytes, ...ownerOf(known), generation, complete, contentPath }, manifest);
  return kept;
}

/** What a device holds besides zeros, as its baseline says: it does not say itself. */
function dataBytes({ manifest }: Baseline): number {
  let blocks = 0;
  for (let block = 0; block < manifest.blocks; block += 1) if (!manifest.isZero(block)) blocks += 1;
  return blocks * BLOCK_SIZE_BYTES;
}

async function noRoom(vmId: string, bytes: number, folder: string, store: BaselineStore): Promise<string | undefined> {
  const disk = await statfs(folder);
  if (disk.bavail * disk.bsize - bytes < FREE_SHARE_AFTER * disk.blocks * disk.bsize)
    return 'the disk would be left with less than a fifth free';
  return (await store.hasRoomFor(bytes, vmId)) ? undefined : 'the store’s limit leaves no room';
}
