/**
 * What a sample of a guest looks at: where its memory lies by QEMU's own words, which blocks of an image, and what a part of an index
 * says of the whole.
 */
import { ramRangesOf, rangesWithin } from '../../src/hypervisor/qemu/memory-map';
import { dataBetween, sampleGroups } from '../../src/sync/source/sample-choice';
import { withWholeIndex } from '../../src/sync/source/sample-references';

/** Of QEMU 10.0.2, q35 with 4 GiB, shortened. */
const MTREE = `FlatView #0
 AS "I/O", root: io
 Root memory region: io
  0000000000000000-000000000000ffff (prio 0, ram): pc.ram

FlatView #1
 AS "memory", root: system
 AS "cpu-memory-0", root: system
 Root memory region: system
  0000000000000000-000000000009ffff (prio 0, ram): pc.ram
  00000000000a0000-00000000000bffff (prio 1, i/o): vga-lowmem
  00000000000c0000-00000000000c3fff (prio 0, rom): pc.ram @00000000000c0000
  0000000000100000-000000007fffffff (prio 0, ram): pc.ram @0000000000100000 KVM
  00000000fd000000-00000000fdffffff (prio 1, ram): vga.vram
  0000000100000000-000000017fffffff (prio 0, ram): pc.ram @0000000080000000
  0000000180000000-0000000187ffffff (prio 0, ram): dimm-1
`;
const BLOCKS = [
  { id: 'pc.ram', usedBytes: 2 ** 32 },
  { id: '/objects/dimm-1', usedBytes: 2 ** 27 },
];

describe('where memory lies', () => {
  const ranges = ramRangesOf(MTREE, BLOCKS);

  it('is what the processors see as RAM, of blocks that are known', () => {
    expect(ranges.map(({ address, blockId, offset }) => [address, blockId, offset])).toEqual([
      [0, 'pc.ram', 0],
      [0x10_0000, 'pc.ram', 0x10_0000],
      [2 ** 32, 'pc.ram', 2 ** 31],
      [2 ** 32 + 2 ** 31, '/objects/dimm-1', 0],
    ]);
    expect(ramRangesOf('nothing of the kind', BLOCKS)).toEqual([]);
  });

  it('takes a stretch apart where it lies in two places, and leaves out what lies in none', () => {
    expect(rangesWithin(ranges, { blockId: 'pc.ram', offset: 2 ** 31 - 4096, length: 8192 })).toEqual([
      { blockId: 'pc.ram', address: 2 ** 31 - 4096, offset: 2 ** 31 - 4096, length: 4096 },
      { blockId: 'pc.ram', address: 2 ** 32, offset: 2 ** 31, length: 4096 },
    ]);
    expect(rangesWithin(ranges, { blockId: 'pc.ram', offset: 0xb_0000, length: 0x1000 })).toEqual([]);
  });
});

describe('the blocks of a sample', () => {
  it('are all where there are few, and otherwise from all over, none twice', () => {
    expect(
      sampleGroups([{ first: 3, count: 4 }], 100)
        .flat()
        .sort((a, b) => a - b),
    ).toEqual([3, 4, 5, 6]);
    const groups = sampleGroups([{ first: 0, count: 100_000 }], 512);
    const all = groups.flat();
    expect([all.length, new Set(all).size]).toEqual([512, 512]);
    for (const group of groups) {
      expect(group).toEqual([...group].sort((a, b) => a - b));
      expect(group.at(-1)! - group[0]!).toBeGreaterThan(80_000);
    }
  });

  it('never lie in a hole', () => {
    const data = dataBetween(
      [
        { first: 0, count: 50 },
        { first: 60, count: 930 },
      ],
      1000 * 65_536,
    );
    expect(data).toEqual([
      { first: 50, count: 10 },
      { first: 990, count: 10 },
    ]);
    for (const block of sampleGroups(data, 8).flat()) expect((block >= 50 && block < 60) || block >= 990).toBe(true);
    expect(sampleGroups(dataBetween([{ first: 0, count: 10 }], 10 * 65_536), 8)).toEqual([]);
  });
});

it('a part of an index says what the whole would have found', () => {
  expect(withWholeIndex(100, 0.25, 1)).toBe(100);
  expect(withWholeIndex(75, 0.25, 0.5)).toBeCloseTo(50);
  expect(withWholeIndex(10, 0.9, 0.5)).toBeCloseTo(0);
  expect(withWholeIndex(10, 1, 0.5)).toBe(10);
});
