/**
 * Looks at a sample of an image before anything is sent: how much is zero, how much the destination holds, how well the
 * rest compresses. The numbers go to the plan rule of src/model; nothing is promised of blocks that were not looked at.
 */
import { MAX_BATCH_BLOCKS } from '../../encoder/batch-format';
import { BLOCK_SIZE_BYTES, blockCount, type ImageSpec } from '../../model/image';
import type { ImageSample } from '../../model/plan';
import { slicesOf } from '../codec/pieces';
import type { StillFeed } from '../feeds/block-feed';
import { assumeHeld, learnHeld } from './held-manifest';
import type { SourceMigration } from './source-migration';

/** Stretches of four neighbours, spread evenly: 16 MiB of reading, whatever the size of the image. */
const SAMPLE_STRETCHES = 64;
const STRETCH_BLOCKS = 4;

function sampleBlocks(blocks: number): number[] {
  if (blocks <= SAMPLE_STRETCHES * STRETCH_BLOCKS) return Array.from({ length: blocks }, (_, block) => block);
  const step = blocks / SAMPLE_STRETCHES;
  return Array.from({ length: SAMPLE_STRETCHES }, (_, index) => Math.floor(index * step)).flatMap((first) => [
    first,
    first + 1,
    first + 2,
    first + 3,
  ]);
}

interface SampledImage {
  readonly vmId: string;
  readonly image: ImageSpec;
  /** Whether the destination may start from what it holds. */
  readonly useBaseline: boolean;
}

/** What of a running guest's memory has to travel, and how well it packs: of Linux guests with a warm page cache (bench live). */
const MEMORY_CHANGED_SHARE = { empty: 1, resumed: 0.5, baseline: 0.2 } as const;
const MEMORY_PACKED_SHARE = 0.45;

/** For an image that cannot be looked at before it is on its way: a running guest's memory, a disk in another form than raw. */
export async function assumeImage(
  migration: SourceMigration,
  { vmId, image, useBaseline }: SampledImage,
): Promise<ImageSample> {
  const session = await migration.session();
  const baseline = await migration.context.store.open(vmId, image.imageId);
  const state = await assumeHeld(session, image, { useBaseline, baseline });
  const changed = MEMORY_CHANGED_SHARE[state];
  return {
    imageId: image.imageId,
    sizeBytes: image.sizeBytes,
    began: state,
    sampledBlocks: 1,
    zeroBlocks: 0,
    unchangedBlocks: 1 - changed,
    changedBlocks: changed,
    changedBytes: changed * image.sizeBytes,
    packedBytes: changed * image.sizeBytes * MEMORY_PACKED_SHARE,
  };
}

export async function sampleImage(
  migration: SourceMigration,
  { vmId, image, useBaseline }: SampledImage,
  feed: StillFeed,
  { level, compress }: { readonly level: number; readonly compress: boolean },
): Promise<ImageSample> {
  const { store, pool } = migration.context;
  const session = await migration.session();
  const baseline = await store.open(vmId, image.imageId);
  const held = await learnHeld(migration, session, image, { useBaseline, baseline, feed });
  const list = sampleBlocks(blockCount(image.sizeBytes));
  const input = feed.load && new SharedArrayBuffer(MAX_BATCH_BLOCKS * BLOCK_SIZE_BYTES);
  const sum = { zeroBlocks: 0, unchangedBlocks: 0, changedBlocks: 0, changedBytes: 0, packedBytes: 0 };
  for (const some of slicesOf(list)) {
    if (input) await feed.load?.({ list: some }, Buffer.from(input));
    const part = await pool.run({
      kind: 'sample',
      file: feed.file,
      list: some,
      input,
      held: held.manifest.memory,
      level,
      compress,
    });
    for (const key of Object.keys(sum) as (keyof typeof sum)[]) sum[key] += part[key];
  }
  return { imageId: image.imageId, sizeBytes: image.sizeBytes, began: held.state, sampledBlocks: list.length, ...sum };
}
