/** The feed of an image that goes on changing: one version of a block on the way at a time, none forgotten. */
import { randomFillSync } from 'node:crypto';
import fc from 'fast-check';
import { quickHash } from '../../src/encoder/hash';
import { RamLayout } from '../../src/model/guest';
import { BLOCK_SIZE_BYTES, PAGE_SIZE_BYTES, PAGES_PER_BLOCK } from '../../src/model/image';
import { ReferenceIndex, shareReferences } from '../../src/sync/codec/reference-index';
import { LiveFeed, type Outlook } from '../../src/sync/feeds/live-feed';
import { BlockOutlook } from '../../src/sync/guest/block-outlook';
import { StreamBrake } from '../../src/sync/guest/stream-brake';

const BLOCKS = 32;
const feed = (fd = 0): LiveFeed => new LiveFeed({ file: { fd, sizeBytes: BLOCKS * BLOCK_SIZE_BYTES } });
const listOf = (selection: ReturnType<LiveFeed['next']>): number[] => {
  if (!selection) return [];
  return 'list' in selection
    ? [...selection.list]
    : Array.from({ length: selection.count }, (_, index) => selection.first + index);
};

test('names a block that has changed on the way only after it has been confirmed', () => {
  const live = feed();
  live.changed(3, 2);
  expect(listOf(live.next(8))).toEqual([3, 4]);
  live.changed(3, 1);
  expect(live.next(8)).toBeUndefined();
  live.confirmed([3, 4]);
  expect(listOf(live.next(8))).toEqual([3]);
});

test('gives nothing of a file that is not there yet, and says so when it is', () => {
  const live = feed(-1);
  let more = 0;
  live.onMore(() => (more += 1));
  live.changed(3, 2);
  expect([live.next(8), live.remaining]).toEqual([undefined, 0]);
  const before = more;
  live.setFile(7);
  expect(more).toBe(before + 1);
  expect(listOf(live.next(8))).toEqual([3, 4]);
});

test('leaves out the block that is being written', () => {
  const live = feed();
  live.changed(0, 3);
  live.setHot(2);
  expect(listOf(live.next(8))).toEqual([0, 1]);
  live.setHot(-1);
  expect(listOf(live.next(8))).toEqual([2]);
});

test('looks once at what never changed when it ends, and is open until then', () => {
  const live = feed();
  live.changed(0, BLOCKS - 1);
  listOf(live.next(64));
  expect(live.open).toBe(true);
  live.end();
  expect(live.open).toBe(false);
  expect(listOf(live.next(64))).toEqual([BLOCKS - 1]);
});

test('a new session names again what was on the way, and what the other side lacks', () => {
  const live = feed();
  live.changed(0, 4);
  expect(listOf(live.next(2))).toEqual([0, 1]);
  live.confirmed([0]);
  live.restart((block) => block === 0);
  expect(listOf(live.next(8))).toEqual([1, 2, 3]);
});

test('forgets no change and never has two versions of a block on the way', () => {
  fc.assert(
    fc.property(
      fc.array(
        fc.oneof(
          fc.record({ change: fc.integer({ min: 0, max: BLOCKS - 1 }) }),
          fc.record({ take: fc.integer({ min: 1, max: 5 }) }),
          fc.constant('confirm' as const),
        ),
        { maxLength: 200 },
      ),
      (steps) => {
        const live = feed();
        const [changed, onTheWay] = [new Set<number>(), new Set<number>()];
        const take = (blocks: number): void => {
          for (const block of listOf(live.next(blocks))) {
            expect(onTheWay.has(block)).toBe(false);
            onTheWay.add(block);
            changed.delete(block);
          }
        };
        for (const step of steps) {
          if (step === 'confirm') {
            live.confirmed([...onTheWay]);
            onTheWay.clear();
          } else if ('change' in step) {
            live.changed(step.change, 1);
            changed.add(step.change);
          } else take(step.take);
        }
        live.confirmed([...onTheWay]);
        onTheWay.clear();
        take(BLOCKS);
        expect(changed.size).toBe(0);
        live.confirmed([...onTheWay]);
        expect([live.remaining, live.backlogBytes]).toEqual([0, 0]);
      },
    ),
  );
});

test('a layout finds every page of every RAM block again', () => {
  const layout = new RamLayout([
    { id: 'pc.ram', usedBytes: 10 * BLOCK_SIZE_BYTES },
    { id: 'rom', usedBytes: 4096 },
    { id: 'vga', usedBytes: 3 * BLOCK_SIZE_BYTES },
  ]);
  expect(layout.sizeBytes).toBe(14 * BLOCK_SIZE_BYTES);
  for (const [id, offset] of [
    ['pc.ram', 0],
    ['pc.ram', 10 * BLOCK_SIZE_BYTES - 4096],
    ['rom', 0],
    ['vga', BLOCK_SIZE_BYTES],
  ] as const) {
    const found = layout.at(layout.startOf(id) + offset);
    expect([found.block.id, found.offset]).toEqual([id, offset]);
  }
});

describe('a long backlog of which a half is known to the destination', () => {
  const LONG = 4096;
  const isKnown = (block: number): boolean => block < LONG / 2;
  /** Takes batches until all is looked at. @returns whether each was asked for by waiting streams, and what had to be sent of it */
  const goThrough = (
    streamsWait: (sent: readonly number[]) => boolean,
  ): { readonly sent: readonly number[]; readonly seen: ReadonlySet<number> } => {
    const live = new LiveFeed({ file: { fd: 0, sizeBytes: LONG * BLOCK_SIZE_BYTES } });
    live.changed(0, LONG);
    const [sent, seen] = [[] as number[], new Set<number>()];
    for (;;) {
      const selection = live.next(16, !streamsWait(sent));
      if (!selection) return { sent, seen };
      const unknown = listOf(selection).filter((block) => !isKnown(block)).length;
      for (const block of listOf(selection)) {
        expect(seen.has(block)).toBe(false);
        seen.add(block);
      }
      live.packed(selection, unknown * BLOCK_SIZE_BYTES);
      sent.push(unknown);
    }
  };

  test('is searched for what has to be sent while streams wait', () => {
    const { sent, seen } = goThrough(() => true);
    expect(seen.size).toBe(LONG);
    const firstToSend = sent.findIndex((blocks) => blocks > 0);
    expect(firstToSend).toBeLessThan(LONG / 2 / 16 / 4);
    expect(sent.slice(firstToSend, firstToSend + 64).filter((blocks) => blocks > 0).length).toBeGreaterThan(60);
  });

  test('is gone through where little crosses while the streams have enough', () => {
    let enough = false;
    const { sent, seen } = goThrough((all) => {
      enough = (all.at(-1) ?? 0) > 0 || (enough && all.slice(-32).some((blocks) => blocks > 0));
      return !enough;
    });
    expect(seen.size).toBe(LONG);
    // One batch to send for each stretch of what is known, for as long as there is some of that.
    const firstToSend = sent.findIndex((blocks) => blocks > 0);
    expect(sent.slice(firstToSend + 1, firstToSend + 33).filter((blocks) => blocks === 0).length).toBeGreaterThan(24);
  });
});

test('a round is not at its end while much of what QEMU has given is on the way', () => {
  const live = new LiveFeed({ file: { fd: 0, sizeBytes: 128 * BLOCK_SIZE_BYTES } });
  const brake = new StreamBrake(live, { hold: () => undefined, release: () => undefined });
  live.changed(0, 128);
  expect(brake.isThrough).toBe(false);
  const taken = listOf(live.next(128));
  expect(brake.isThrough).toBe(false);
  live.confirmed(taken.slice(0, 100));
  expect(brake.isThrough).toBe(true);
});

describe('blocks of which something is expected', () => {
  const expecting = (outlooks: readonly Outlook[]): LiveFeed => {
    const live = feed();
    for (const [block, outlook] of outlooks.entries()) live.expect(block, outlook);
    live.changed(0, outlooks.length);
    return live;
  };
  const order = (live: LiveFeed, enough: boolean): number[] => {
    const blocks: number[] = [];
    for (let next = listOf(live.next(1, enough)); next.length > 0; next = listOf(live.next(1, enough)))
      blocks.push(...next);
    return blocks;
  };
  const MIXED: readonly Outlook[] = ['little', 'much', 'raw', 'unknown'];

  test('come by what fills the link for the least work while streams wait, and the other way round while they have enough', () => {
    expect(order(expecting(MIXED), false)).toEqual([2, 1, 3, 0]);
    expect(order(expecting(MIXED), true)).toEqual([0, 1, 3, 2]);
  });

  test('wait where little is to be sent of them and more is coming, and are not forgotten', () => {
    const live = expecting(MIXED);
    live.setComing(true);
    expect(order(live, false)).toEqual([2, 1, 3]);
    expect([live.remaining, live.hasWorkAhead, live.waitsForMore]).toEqual([1, false, true]);
    live.setComing(false);
    expect(live.hasWorkAhead).toBe(true);
    expect(order(live, false)).toEqual([0]);
  });

  test('are named whatever is thought of them, and in whatever order that changes', () => {
    const outlook = fc.constantFrom<Outlook>('unknown', 'raw', 'much', 'little');
    fc.assert(
      fc.property(
        fc.array(
          fc.oneof(
            fc.record({ change: fc.nat(BLOCKS - 1) }),
            fc.record({ expect: fc.nat(BLOCKS - 1), outlook }),
            fc.record({ take: fc.integer({ min: 1, max: 5 }), enough: fc.boolean() }),
            fc.constant('confirm' as const),
          ),
          { maxLength: 200 },
        ),
        (steps) => {
          const live = feed();
          const [changed, onTheWay] = [new Set<number>(), new Set<number>()];
          const take = (blocks: number, enough: boolean): number => {
            const list = listOf(live.next(blocks, enough));
            for (const block of list) {
              expect(onTheWay.has(block)).toBe(false);
              onTheWay.add(block);
              changed.delete(block);
            }
            return list.length;
          };
          const confirm = (): void => {
            live.confirmed([...onTheWay]);
            onTheWay.clear();
          };
          for (const step of steps) {
            if (step === 'confirm') confirm();
            else if ('change' in step) {
              live.changed(step.change, 1);
              changed.add(step.change);
            } else if ('expect' in step) live.expect(step.expect, step.outlook);
            else take(step.take, step.enough);
          }
          confirm();
          while (take(BLOCKS, false) > 0) continue;
          expect(changed.size).toBe(0);
        },
      ),
    );
  });
});

test('two pages of a block tell whether it has to be sent, and whether it compresses', () => {
  const content = (fill: string): Buffer =>
    fill === 'random' ? randomFillSync(Buffer.alloc(PAGE_SIZE_BYTES)) : Buffer.alloc(PAGE_SIZE_BYTES, fill);
  const shared = shareReferences(64);
  new ReferenceIndex(shared).add(7, quickHash(content('known')), 0);
  const told = new Map<number, Outlook>();
  const outlook = new BlockOutlook(
    6,
    () => shared,
    (block, what) => told.set(block, what),
  );
  /** Each half of a block has a sample, wherever in it that is. */
  const note = (block: number, ...halves: readonly string[]): void =>
    halves.forEach((fill, half) =>
      outlook.note(
        block * PAGES_PER_BLOCK + (half * PAGES_PER_BLOCK) / 2,
        Buffer.concat(Array.from({ length: PAGES_PER_BLOCK / 2 }, () => content(fill))),
      ),
    );
  note(0, 'known', 'known');
  note(1, 'known', 'some text or other');
  note(2, 'random', 'random');
  note(3, 'random', 'some text or other');
  note(4, 'random', 'known');
  expect(told.size).toBe(0);
  outlook.begin();
  expect([...told.values()]).toEqual(['little', 'much', 'raw', 'much', 'much', 'unknown']);
  note(0, 'random', 'random');
  expect(told.get(0)).toBe('raw');
});

describe('a QEMU that goes through small rounds one after the other', () => {
  const reading = (): { readonly brake: StreamBrake; readonly calls: string[] } => {
    const calls: string[] = [];
    return {
      calls,
      brake: new StreamBrake(feed(), { hold: () => calls.push('hold'), release: () => calls.push('release') }),
    };
  };
  const rounds = (brake: StreamBrake, count: number, pages: number): void => {
    for (let round = 0; round < count; round += 1) {
      brake.received(pages);
      brake.sectionEnded();
    }
  };

  test('is left alone for a moment, and read again', async () => {
    const { brake, calls } = reading();
    rounds(brake, 40, 1);
    expect(calls).toEqual(['hold']);
    await new Promise((resolve) => setTimeout(resolve, 60));
    expect(calls).toEqual(['hold', 'release']);
  });

  test('is read on where its rounds bring much, and where the guest waits', () => {
    const { brake, calls } = reading();
    rounds(brake, 40, 100);
    expect(calls).toEqual([]);
    brake.letGo();
    rounds(brake, 40, 1);
    expect(calls).toEqual(['release']);
  });
});
