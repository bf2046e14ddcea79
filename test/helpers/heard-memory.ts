/**
 * What a running guest's memory says on its way, heard: in which order, of which pages, and an image of it made from that alone. What
 * it should have been is the contract's (test/contract/running-guest.suite.ts).
 */
import type { GuestMemoryEvents, GuestSetUp } from '../../src/hypervisor/contract';
import { BLOCK_SIZE_BYTES, PAGE_SIZE_BYTES } from '../../src/model/image';

export class Heard implements GuestMemoryEvents {
  readonly order: string[] = [];
  readonly image: Buffer;
  named = new Set<number>();
  set: GuestSetUp | undefined;

  constructor(sizeBytes: number) {
    this.image = Buffer.alloc(sizeBytes);
  }

  setUp(prefix: Buffer, sectionId: number): void {
    this.#say('setUp');
    this.set = { prefix: Buffer.from(prefix), sectionId };
  }

  changed(firstPage: number, count: number): void {
    this.#say('pages');
    for (let page = firstPage; page < firstPage + count; page += 1) this.named.add(page);
  }

  pagesWritten(firstPage: number, bytes: Buffer): void {
    this.#say('pages');
    bytes.copy(this.image, firstPage * PAGE_SIZE_BYTES);
  }

  beforeFirstChange(block: number, bytes: Buffer): void {
    this.#say('pages');
    expect(bytes.equals(this.image.subarray(block * BLOCK_SIZE_BYTES, (block + 1) * BLOCK_SIZE_BYTES))).toBe(true);
  }

  unchanged(): void {
    this.#say('pages');
  }

  sectionEnded(): void {
    this.#say('section');
  }

  pagesEnded(): void {
    this.#say('end');
  }

  #say(what: string): void {
    if (this.order.at(-1) !== what) this.order.push(what);
  }
}

const nothing = (): void => undefined;
export const HEARS_NOTHING: GuestMemoryEvents = {
  setUp: nothing,
  changed: nothing,
  pagesWritten: nothing,
  beforeFirstChange: nothing,
  unchanged: nothing,
  sectionEnded: nothing,
  pagesEnded: nothing,
};
