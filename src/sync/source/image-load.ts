/**
 * From a sample of an image to what all of it comes to: for the forecast (ImageLoad), and for the plan's table (ImageSample). Arithmetic
 * alone; what is measured is guest-plan.ts's.
 */
import type { ImageLoad, PackedAt } from '../../model/guest-forecast';
import { blockCount, type ImageSpec } from '../../model/image';
import type { ImageSample } from '../../model/plan';
import type { PackedSample } from './sample-encoder';

export interface SampledLoad {
  readonly load: ImageLoad;
  readonly sample: ImageSample;
}

/** A sample, packed at one level. */
export interface PackedTry extends PackedSample {
  readonly level: number;
}

/** Where memory cannot be looked at: how far off what is assumed may be. */
const ASSUMED_UNCERTAIN = 0.5;

/** @param blocks of the image that the sample stands for */
export function loadOf(
  image: ImageSpec,
  began: ImageSample['began'],
  tries: readonly PackedTry[],
  blocks: number,
): SampledLoad {
  const ways: PackedAt[] = tries.map(({ level, linkBytes, seconds, blocks: looked }) => {
    const times = looked === 0 ? 0 : blocks / looked;
    return { level, linkBytes: linkBytes * times, encodeSeconds: seconds * times };
  });
  const [first] = tries;
  const looked = Math.max(1, first?.blocks ?? 0);
  const all = blockCount(image.sizeBytes);
  // Of the whole image: what lies in holes was not looked at, and is zeros.
  const ofAll = (count: number): number => (count / looked) * Math.min(1, blocks / all);
  const [unchanged, zero] = [ofAll(first?.unchangedBlocks ?? 0), 1 - ofAll(looked - (first?.zeroBlocks ?? 0))];
  const changed = Math.max(0, 1 - zero - unchanged);
  return {
    load: {
      imageId: image.imageId,
      kind: image.kind === 'memory' ? 'memory' : 'disk',
      sizeBytes: image.sizeBytes,
      ways: ways.length > 0 ? ways : [{ level: 0, linkBytes: 0, encodeSeconds: 0 }],
      uncertain: first?.uncertain ?? 0,
    },
    sample: {
      imageId: image.imageId,
      sizeBytes: image.sizeBytes,
      began,
      sampledBlocks: 1,
      zeroBlocks: zero,
      unchangedBlocks: unchanged,
      changedBlocks: changed,
      changedBytes: changed * image.sizeBytes,
      packedBytes: ways.at(-1)?.linkBytes ?? 0,
    },
  };
}

/** @param share of the image that crosses the link */
export function assumedLoad(image: ImageSpec, began: ImageSample['began'], share: number): SampledLoad {
  const linkBytes = share * image.sizeBytes;
  return {
    load: {
      imageId: image.imageId,
      kind: 'memory',
      sizeBytes: image.sizeBytes,
      ways: [{ level: 3, linkBytes, encodeSeconds: 0 }],
      uncertain: ASSUMED_UNCERTAIN,
    },
    sample: {
      imageId: image.imageId,
      sizeBytes: image.sizeBytes,
      began,
      sampledBlocks: 1,
      zeroBlocks: 0,
      unchangedBlocks: 0,
      changedBlocks: 1,
      changedBytes: image.sizeBytes,
      packedBytes: linkBytes,
    },
  };
}
