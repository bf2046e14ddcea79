/**
 * Packs a sample of an image as a move would, by the encoder itself and against what the destination holds, and keeps only how much it
 * came to and how long it took: with all threads at once, so that what else goes on here counts. Nothing is sent.
 */
import { encodedBound } from '../../encoder/batch-encoder';
import { BLOCK_SIZE_BYTES } from '../../model/image';
import { Manifest } from '../../store/manifest';
import type { ContentCipher } from '../../store/sealing-key';
import { HEADER_BYTES } from '../../transport/frame';
import type { EncodeJob, EncodeResult, ImageFile } from '../codec/codec-jobs';
import type { CodecPool } from '../codec/codec-pool';
import { inLanes } from '../codec/pieces';
import type { SharedReferences } from '../codec/reference-index';
import type { SharedVersions } from '../codec/version-cache';

/** Some blocks of an image, in rising order, and their bytes where those do not lie in its file. */
export interface SampledBlocks {
  readonly list: readonly number[];
  readonly input?: SharedArrayBuffer | undefined;
}

export interface SampledFrom {
  readonly file: ImageFile;
  readonly held: Manifest;
  /** An older version of it here, where the hashes say what the destination holds. */
  readonly shadow?: { readonly fd: number; readonly cipher?: ContentCipher | undefined } | undefined;
  readonly versions?: SharedVersions | undefined;
  readonly references?: SharedReferences | undefined;
  /** Page hashes of what the destination holds, asked of it. */
  readonly askPageHashes?: ((blocks: readonly number[]) => Promise<EncodeJob['pages']>) | undefined;
}

export type SampleSettings = Omit<EncodeJob['settings'], 'level' | 'dictionary'>;

export interface PackedSample {
  readonly blocks: number;
  readonly zeroBlocks: number;
  readonly unchangedBlocks: number;
  /** Blocks of which pages lie elsewhere at the destination, of all that differ. */
  readonly referredShare: number;
  readonly linkBytes: number;
  /** From the first job to the last, all threads at work. */
  readonly seconds: number;
  /** One standard error of `linkBytes`, as a share of it. */
  readonly uncertain: number;
}

export async function packSample(
  pool: CodecPool,
  from: SampledFrom,
  groups: readonly SampledBlocks[],
  settings: SampleSettings & { readonly level: number },
): Promise<PackedSample> {
  const source = new Manifest(from.file.sizeBytes).memory;
  const results: { readonly linkBytes: number; readonly blocks: number }[] = [];
  const sum = { blocks: 0, zeroBlocks: 0, unchangedBlocks: 0, changed: 0, referred: 0 };
  const startedAt = performance.now();
  await inLanes(2 * pool.threads, groups, async (group) => {
    const out = new SharedArrayBuffer(HEADER_BYTES + encodedBound(group.list.length));
    const pack = (blocks: SampledBlocks, pages: EncodeJob['pages']): Promise<EncodeResult> =>
      pool.run({
        kind: 'encode',
        file: from.file,
        blocks: { list: blocks.list },
        plain: false,
        source,
        held: from.held.memory,
        shadow: from.shadow && { ...from.shadow, hashes: from.held.memory },
        pages,
        versions: from.versions,
        references: from.references && { shared: from.references },
        input: blocks.input && { memory: blocks.input, offset: 0 },
        settings,
        imageNumber: 0,
        sequence: 0,
        out: { memory: out, offset: 0, length: out.byteLength },
      });
    const first = await pack(group, from.askPageHashes ? 'ask' : 'send');
    const asked = first.needPages.length === 0 || !from.askPageHashes ? undefined : first.needPages;
    const second = asked && (await pack(some(group, asked), (await from.askPageHashes?.(asked)) ?? 'send'));
    const all = second ? [first, second] : [first];
    const linkBytes = all.reduce((bytes, { frameBytes }) => bytes + frameBytes, 0);
    results.push({ linkBytes, blocks: group.list.length });
    sum.blocks += group.list.length;
    sum.zeroBlocks += first.zeroBlocks;
    sum.unchangedBlocks += first.unchangedBlocks;
    for (const { account, sent } of all) {
      sum.referred += account.blocks.references;
      sum.changed += sent.length;
    }
  });
  const linkBytes = results.reduce((bytes, each) => bytes + each.linkBytes, 0);
  return {
    blocks: sum.blocks,
    zeroBlocks: sum.zeroBlocks,
    unchangedBlocks: sum.unchangedBlocks,
    referredShare: sum.changed === 0 ? 0 : sum.referred / sum.changed,
    linkBytes,
    seconds: (performance.now() - startedAt) / 1000,
    uncertain: standardError(results.map((each) => each.linkBytes / Math.max(1, each.blocks))),
  };
}

/** Of a group, the blocks named. */
function some({ list, input }: SampledBlocks, wanted: readonly number[]): SampledBlocks {
  if (!input) return { list: wanted };
  const taken = new SharedArrayBuffer(wanted.length * BLOCK_SIZE_BYTES);
  const [from, to] = [Buffer.from(input), Buffer.from(taken)];
  for (const [at, block] of wanted.entries()) {
    const start = list.indexOf(block) * BLOCK_SIZE_BYTES;
    from.copy(to, at * BLOCK_SIZE_BYTES, start, start + BLOCK_SIZE_BYTES);
  }
  return { list: wanted, input: taken };
}

/** Of the mean, as a share of it. */
function standardError(values: readonly number[]): number {
  const mean = values.reduce((sum, value) => sum + value, 0) / Math.max(1, values.length);
  if (values.length < 2 || mean === 0) return 0;
  const variance = values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (values.length - 1);
  return Math.sqrt(variance / values.length) / mean;
}
