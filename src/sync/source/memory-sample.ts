/**
 * A running guest's memory, looked at twice: some of its blocks as they are, for what they come to on the link; and the same again a
 * few seconds later, for what the guest changes. The hypervisor's own figure stands beside it. The guest's monitor is held for moments
 * only: a migration may want it.
 */
import type { LookAtMemory, MemoryLook } from '../../hypervisor/contract';
import type { DirtySeen } from '../../model/dirty-growth';
import type { RamBlock } from '../../model/guest';
import { BLOCK_SIZE_BYTES, blockCount, PAGE_SIZE_BYTES, PAGES_PER_BLOCK } from '../../model/image';
import { MIB } from '../../model/units';
import { runsOf } from '../codec/block-selection';
import { sampleGroups } from './sample-choice';
import type { SampledBlocks } from './sample-encoder';

/** A twentieth of a GiB and more of a small guest: the standard error of what it comes to is some 5 % then. */
const SAMPLE_BYTES = 64 * MIB;
/** A migration waits three seconds for the monitor. */
const LOOK_AT_MOST_MS = 1_500;

export interface MemorySample {
  readonly groups: readonly (SampledBlocks & { readonly input: SharedArrayBuffer })[];
  readonly atMs: number;
}

/** What has changed in a sample since it was taken. */
export interface ChangedSample {
  readonly seen: readonly DirtySeen[];
  /** Blocks that have changed: as they were, and as they are. */
  readonly changed: readonly { readonly block: number; readonly before: Buffer; readonly now: Buffer }[];
  readonly changedPages: number;
}

export async function takeSample(
  look: LookAtMemory,
  ramBlocks: readonly RamBlock[],
  sizeBytes: number,
): Promise<MemorySample> {
  const all = [{ first: 0, count: blockCount(sizeBytes) }];
  const wanted = sampleGroups(all, SAMPLE_BYTES / BLOCK_SIZE_BYTES);
  return look(ramBlocks, async (memory) => {
    const beganAt = performance.now();
    await memory.beginDirtyRate();
    const groups: (SampledBlocks & { readonly input: SharedArrayBuffer })[] = [];
    for (const list of wanted) {
      if (groups.length > 0 && performance.now() > beganAt + LOOK_AT_MOST_MS) break;
      const input = new SharedArrayBuffer(list.length * BLOCK_SIZE_BYTES);
      await readGroup(memory, list, Buffer.from(input));
      groups.push({ list, input });
    }
    return { groups, atMs: (beganAt + performance.now()) / 2 };
  });
}

export async function lookAgain(
  look: LookAtMemory,
  ramBlocks: readonly RamBlock[],
  sizeBytes: number,
  sample: MemorySample,
): Promise<ChangedSample> {
  const now = Buffer.alloc(Math.max(...sample.groups.map(({ input }) => input.byteLength)));
  return look(ramBlocks, async (memory) => {
    const beganAt = performance.now();
    const own = await memory.dirtyBytes().catch(() => undefined);
    const changed: { block: number; before: Buffer; now: Buffer }[] = [];
    let [pages, changedPages] = [0, 0];
    for (const { list, input } of sample.groups) {
      if (pages > 0 && performance.now() > beganAt + LOOK_AT_MOST_MS) break;
      await readGroup(memory, list, now.subarray(0, input.byteLength));
      const before = Buffer.from(input);
      for (const [at, block] of list.entries()) {
        const [start, end] = [at * BLOCK_SIZE_BYTES, (at + 1) * BLOCK_SIZE_BYTES];
        pages += PAGES_PER_BLOCK;
        if (now.compare(before, start, end, start, end) === 0) continue;
        changedPages += differingPages(before.subarray(start, end), now.subarray(start, end));
        changed.push({ block, before: before.subarray(start, end), now: Buffer.from(now.subarray(start, end)) });
      }
    }
    const seconds = (performance.now() + beganAt) / 2000 - sample.atMs / 1000;
    const seen = { seconds, bytes: (changedPages / Math.max(1, pages)) * sizeBytes };
    return { seen: own ? [own, seen] : [seen], changed, changedPages };
  });
}

async function readGroup(look: MemoryLook, list: readonly number[], into: Buffer): Promise<void> {
  for (const { first, count, at } of runsOf({ list }))
    await look.read(first, into.subarray(at * BLOCK_SIZE_BYTES, (at + count) * BLOCK_SIZE_BYTES));
}

function differingPages(before: Buffer, now: Buffer): number {
  let pages = 0;
  for (let start = 0; start < now.length; start += PAGE_SIZE_BYTES)
    if (now.compare(before, start, start + PAGE_SIZE_BYTES, start, start + PAGE_SIZE_BYTES) !== 0) pages += 1;
  return pages;
}
