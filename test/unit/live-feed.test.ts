/** The feed of an image that goes on changing: one version of a block on the way at a time, none forgotten. */
import fc from 'fast-check';
import { RamLayout } from '../../src/model/guest';
import { BLOCK_SIZE_BYTES } from '../../src/model/image';
import { LiveFeed } from '../../src/sync/live-feed';
import { StreamBrake } from '../../src/sync/stream-brake';

const BLOCKS = 32;
const feed = (): LiveFeed => new LiveFeed({ file: { fd: -1, sizeBytes: BLOCKS * BLOCK_SIZE_BYTES } });
const listOf = (selection: ReturnType<LiveFeed['next']>): number[] => {
  if (!selection) return [];
  return 'list' in selection ? [...selection.list] : Array.from({ length: selection.count }, (_, index) => selection.first + index);
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
    fc.property(fc.array(fc.oneof(fc.record({ change: fc.integer({ min: 0, max: BLOCKS - 1 }) }), fc.record({ take: fc.integer({ min: 1, max: 5 }) }), fc.constant('confirm' as const)), { maxLength: 200 }), (steps) => {
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
    }),
  );
});

test('a layout finds every page of every RAM block again', () => {
  const layout = new RamLayout([{ id: 'pc.ram', usedBytes: 10 * BLOCK_SIZE_BYTES }, { id: 'rom', usedBytes: 4096 }, { id: 'vga', usedBytes: 3 * BLOCK_SIZE_BYTES }]);
  expect(layout.sizeBytes).toBe(14 * BLOCK_SIZE_BYTES);
  for (const [id, offset] of [['pc.ram', 0], ['pc.ram', 10 * BLOCK_SIZE_BYTES - 4096], ['rom', 0], ['vga', BLOCK_SIZE_BYTES]] as const) {
    const found = layout.at(layout.startOf(id) + offset);
    expect([found.block.id, found.offset]).toEqual([id, offset]);
  }
});

describe('a long backlog of which a half is known to the destination', () => {
  const LONG = 4096;
  const isKnown = (block: number): boolean => block < LONG / 2;
  /** Takes batches until all is looked at. @returns whether each was asked for by waiting streams, and what had to be sent of it */
  const goThrough = (streamsWait: (sent: readonly number[]) => boolean): { readonly sent: readonly number[]; readonly seen: ReadonlySet<number> } => {
    const live = new LiveFeed({ file: { fd: -1, sizeBytes: LONG * BLOCK_SIZE_BYTES } });
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
  const live = new LiveFeed({ file: { fd: -1, sizeBytes: 128 * BLOCK_SIZE_BYTES } });
  const brake = new StreamBrake(live, { hold: () => undefined, release: () => undefined });
  live.changed(0, 128);
  expect(brake.isThrough).toBe(false);
  const taken = listOf(live.next(128));
  expect(brake.isThrough).toBe(false);
  live.confirmed(taken.slice(0, 100));
  expect(brake.isThrough).toBe(true);
});
