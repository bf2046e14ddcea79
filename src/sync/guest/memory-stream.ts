/**
 * A running guest's memory as QEMU's stream brings it: the feed of its blocks, what of them the destination is believed to
 * have, the order in which they are better looked at, and how far QEMU is read ahead. What is sent, and when rounds end,
 * is live-migration.ts's.
 *
 *   QEMU -> (brake) -> pages -> outlook: a guess -> feed -> sender
 *                        +----> settled: old bytes ---^ confirmed: the brake lets more come
 */
import type { GuestMemoryEvents } from '../../hypervisor/contract';
import { MEMORY_IMAGE_ID } from '../../model/guest';
import { blockCount, PAGES_PER_BLOCK } from '../../model/image';
import { LiveFeed } from '../feeds/live-feed';
import { BlockOutlook } from './block-outlook';
import type { GuestHeadStart } from './guest-head-start';
import { SettledMemory } from './settled-memory';
import { type Reader, StreamBrake } from './stream-brake';

export class MemoryStream {
  readonly feed: LiveFeed;
  readonly settled: SettledMemory;
  readonly brake: StreamBrake;
  readonly #outlook: BlockOutlook;
  readonly #headStart: GuestHeadStart;

  constructor(sizeBytes: number, headStart: GuestHeadStart, reader: Reader) {
    this.feed = new LiveFeed({ file: { fd: -1, sizeBytes } });
    this.settled = new SettledMemory(this.feed);
    this.brake = new StreamBrake(this.feed, reader);
    this.#outlook = new BlockOutlook(
      blockCount(sizeBytes),
      () => headStart.references.of(MEMORY_IMAGE_ID)?.shared,
      (block, outlook) => this.feed.expect(block, outlook),
    );
    this.#headStart = headStart;
    this.feed.onDrained(() => this.brake.apply());
  }

  /** As it was before anything; what the kept RAM image says of the destination is believed until the destination is asked. */
  async prepare(): Promise<void> {
    const { looked, kept } = this.#headStart;
    // Neither is waited for: without them blocks come in a worse order, and that is all.
    this.brake.beginSlowly(looked).catch(() => undefined);
    looked.then(() => this.#outlook.begin()).catch(() => undefined);
    this.settled.believe(await kept);
  }

  /** What becomes of what the stream brings. @param setUp hears of the set-up, which comes before any page */
  events(setUp: GuestMemoryEvents['setUp']): GuestMemoryEvents {
    return {
      setUp,
      changed: (first, count) => {
        this.feed.setHot(Math.floor((first + count - 1) / PAGES_PER_BLOCK));
        this.feed.changedPages(first, count);
        this.brake.received(count);
        this.brake.apply();
      },
      pagesWritten: (first, bytes) => this.#outlook.note(first, bytes),
      beforeFirstChange: (block, bytes) => this.settled.recall(block, bytes),
      unchanged: (count) => this.brake.received(count),
      sectionEnded: () => {
        this.feed.setHot(-1);
        this.brake.sectionEnded();
      },
      pagesEnded: () => this.feed.end(),
    };
  }
}
