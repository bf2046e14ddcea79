/**
 * A look at a running guest's memory without moving it: blocks as they are now (`pmemsave`, a stretch at a time: QEMU copies it within
 * its own lock, in microseconds), and how much of it the guest changes (`calc-dirty-rate` by page sampling: a thread of QEMU's hashes
 * some pages twice; the dirty log, which would slow the guest down, stays off). Nothing of the guest changes. What is made of it is the
 * plan's business.
 */
import { closeSync, constants, openSync, readSync, rmSync } from 'node:fs';
import { DwcpError } from '../../model/errors';
import type { RamLayout } from '../../model/guest';
import { BLOCK_SIZE_BYTES } from '../../model/image';
import { clamp, GIB, MIB } from '../../model/units';
import type { MemoryLook } from '../contract';
import { giveSocket } from './guest-places';
import type { GuestIds } from './guest-user';
import { type RamRange, ramRangesOf, rangesWithin } from './memory-map';
import type { QmpClient } from './qmp-client';

const LOOK_TIMEOUT_MS = 5_000;
/** Of which QEMU takes 128 to 4,096 for each GiB (qapi/migration.json): so many in all are a hundredth of a second of a thread. */
const SAMPLED_PAGES = 16_384;
const DIRTY_RATE_SECONDS = 1;
/** QEMU leaves smaller RAM blocks out (dirtyrate.h, MIN_RAMBLOCK_SIZE). */
const SMALLEST_MEASURED_BYTES = 128 * MIB;

export interface LookPlace {
  /** A file that QEMU writes and this process reads, in a folder where nobody else can put anything. */
  readonly path: string;
  /** As whom QEMU runs, where that is another than this process. */
  readonly peer: GuestIds | undefined;
}

export class QemuMemoryLook implements MemoryLook {
  readonly #qmp: QmpClient;
  readonly #place: LookPlace;
  readonly #layout: RamLayout;
  readonly #ranges: readonly RamRange[];

  /** @throws QEMU_REFUSED where it says nothing of where its memory lies */
  static async open(qmp: QmpClient, place: LookPlace, layout: RamLayout): Promise<QemuMemoryLook> {
    const text = await qmp.execute('human-monitor-command', { 'command-line': 'info mtree -f' }, LOOK_TIMEOUT_MS);
    const ranges = ramRangesOf(text, layout.blocks);
    if (ranges.length === 0)
      throw new DwcpError('QEMU_REFUSED', 'QEMU does not say where the guest’s memory lies', { side: 'source' });
    return new QemuMemoryLook(qmp, place, layout, ranges);
  }

  private constructor(qmp: QmpClient, place: LookPlace, layout: RamLayout, ranges: readonly RamRange[]) {
    this.#qmp = qmp;
    this.#place = place;
    this.#layout = layout;
    this.#ranges = ranges;
  }

  async read(firstBlock: number, into: Buffer): Promise<void> {
    into.fill(0);
    const start = firstBlock * BLOCK_SIZE_BYTES;
    // RAM blocks begin at whole blocks of the image; one stretch may reach over the end of one.
    for (let at = 0; at < into.length; ) {
      const { block, offset } = this.#layout.at(start + at);
      const next = this.#layout.startOf(block.id) + Math.ceil(block.usedBytes / BLOCK_SIZE_BYTES) * BLOCK_SIZE_BYTES;
      const length = Math.min(into.length - at, next - (start + at));
      for (const range of rangesWithin(this.#ranges, { blockId: block.id, offset, length }))
        await this.#copy(range, into.subarray(at + range.offset - offset, at + range.offset - offset + range.length));
      at += length;
    }
  }

  async beginDirtyRate(): Promise<boolean> {
    if (!this.#layout.blocks.some(({ usedBytes }) => usedBytes >= SMALLEST_MEASURED_BYTES)) return false;
    const pages = clamp(Math.floor(SAMPLED_PAGES / (this.#layout.sizeBytes / GIB)), 128, 4096);
    const asked = { 'calc-time': DIRTY_RATE_SECONDS, 'sample-pages': pages, mode: 'page-sampling' };
    return this.#qmp.execute('calc-dirty-rate', asked, LOOK_TIMEOUT_MS).then(
      () => true,
      () => false,
    );
  }

  async dirtyBytes(): Promise<{ readonly seconds: number; readonly bytes: number } | undefined> {
    const said = await this.#qmp.execute('query-dirty-rate', {}, LOOK_TIMEOUT_MS);
    const rate = said['dirty-rate'];
    const seconds = said['calc-time'];
    if (said.status !== 'measured' || rate === undefined || rate < 0 || seconds !== DIRTY_RATE_SECONDS)
      return undefined;
    return { seconds, bytes: rate * MIB * seconds };
  }

  async #copy({ address, length }: RamRange, into: Buffer): Promise<void> {
    const { path, peer } = this.#place;
    rmSync(path, { force: true });
    try {
      if (peer) {
        closeSync(openSync(path, constants.O_CREAT | constants.O_EXCL | constants.O_WRONLY, 0o600));
        giveSocket(path, peer);
      }
      await this.#qmp.execute('pmemsave', { val: address, size: length, filename: path }, LOOK_TIMEOUT_MS);
      readWhole(path, into);
    } finally {
      rmSync(path, { force: true });
    }
  }
}

function readWhole(path: string, into: Buffer): void {
  const fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW);
  try {
    for (let at = 0; at < into.length; ) {
      const got = readSync(fd, into, at, into.length - at, at);
      if (got === 0) throw new DwcpError('QEMU_PROTOCOL', 'QEMU has written less of its memory than it was asked for');
      at += got;
    }
  } finally {
    closeSync(fd);
  }
}
