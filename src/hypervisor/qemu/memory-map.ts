/**
 * Where a guest's RAM lies in its physical addresses, by what QEMU says of its memory (`info mtree -f`): needed to look at pages of a
 * block by their place in it. What is read-only there, or no RAM, has none. Pure; the format is of QEMU 7.2 to 10.0 (system/memory.c).
 */
import type { RamBlock } from '../../model/guest';

export interface RamRange {
  readonly address: number;
  readonly length: number;
  /** Which RAM block, and where in it. */
  readonly blockId: string;
  readonly offset: number;
}

/** The processors' view; devices have their own, which may show other things. */
const MAIN_SPACE = /^\s*AS "memory",/m;
const RANGE =
  /^\s+(?<first>[0-9a-f]{1,16})-(?<last>[0-9a-f]{1,16}) \(prio -?\d+, ram\): (?<name>.*?)(?: @(?<offset>[0-9a-f]{1,16}))?(?: (?:KVM|NVMM|Xen|HVF|WHPX))?\s*$/;

export function ramRangesOf(text: string, blocks: readonly RamBlock[]): readonly RamRange[] {
  const view = text.split(/^FlatView #\d+/m).find((each) => MAIN_SPACE.test(each)) ?? '';
  return view.split('\n').flatMap((line) => {
    const { first, last, name, offset = '0' } = RANGE.exec(line)?.groups ?? {};
    if (first === undefined || last === undefined || name === undefined) return [];
    const block = blocks.find(({ id }) => id === name) ?? blocks.find(({ id }) => id.endsWith(`/${name}`));
    if (!block) return [];
    const address = parseInt(first, 16);
    const at = parseInt(offset, 16);
    const length = Math.min(parseInt(last, 16) - address + 1, block.usedBytes - at);
    return length > 0 ? [{ address, length, blockId: block.id, offset: at }] : [];
  });
}

/** The stretches that a part of a block lies in, one behind the other; what lies in none is left out. */
export function rangesWithin(
  ranges: readonly RamRange[],
  { blockId, offset, length }: { readonly blockId: string; readonly offset: number; readonly length: number },
): readonly RamRange[] {
  return ranges.flatMap((range) => {
    if (range.blockId !== blockId) return [];
    const from = Math.max(offset, range.offset);
    const to = Math.min(offset + length, range.offset + range.length);
    if (to <= from) return [];
    return [{ blockId, address: range.address + from - range.offset, offset: from, length: to - from }];
  });
}
