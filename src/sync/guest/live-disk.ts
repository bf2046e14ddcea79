/**
 * A running guest's disk as an image that changes: a scan of all of it, then round after round what the guest has written.
 * In the last round, with the guest stopped, what is left is read at once, so that the hypervisor may let go of the disk
 * while it is still being sent. Nothing here waits for what will not come: not for a sender that has ended (its signal says so),
 * nor behind a read that has failed.
 */
import type { DiskPort } from '../../hypervisor/contract';
import { unlessAborted } from '../../model/abort';
import { type DwcpError, toDwcpError } from '../../model/errors';
import { BLOCK_SIZE_BYTES, blockCount, blockLength, type ImageSpec, type VmImage } from '../../model/image';
import { MIB } from '../../model/units';
import { until } from '../../system/wait';
import type { BlockSelection } from '../codec/block-selection';
import { loadBlocks } from '../feeds/block-feed';
import { LiveFeed } from '../feeds/live-feed';

/** Read ahead in the last round; what is more than that is waited for. */
const MAX_LAST_BYTES = 32 * MIB;

export class LiveDisk {
  readonly image: ImageSpec & VmImage;
  readonly feed: LiveFeed;
  begun = false;
  readonly #port: DiskPort;
  readonly #last = new Map<number, Buffer>();
  #loading = 0;
  #failed: DwcpError | undefined;

  constructor(image: ImageSpec & VmImage, port: DiskPort) {
    this.image = image;
    this.#port = port;
    this.feed = new LiveFeed({
      file: { fd: -1, sizeBytes: image.sizeBytes },
      load: (blocks, into) => this.#load(blocks, into),
    });
  }

  /** Names every block but those that are holes here and zeros there. */
  async beginScan(isZeroThere: (block: number) => boolean): Promise<void> {
    const blocks = blockCount(this.image.sizeBytes);
    const left = new Uint8Array(blocks).fill(1);
    for (const { offset, length } of await this.#port.holes()) {
      const end = offset + length >= this.image.sizeBytes ? blocks : Math.floor((offset + length) / BLOCK_SIZE_BYTES);
      for (let block = Math.ceil(offset / BLOCK_SIZE_BYTES); block < end; block += 1)
        if (isZeroThere(block)) left[block] = 0;
    }
    this.feed.scan(left);
    this.begun = true;
  }

  async dirtyBytes(): Promise<number> {
    return this.begun ? this.#port.dirtyBytes() : 0;
  }

  limitWrites(bytesPerSecond: number): Promise<boolean> {
    return this.#port.limitWrites(bytesPerSecond);
  }

  /** Names what the guest has written since the round before. @returns its bytes */
  async nextRound(): Promise<number> {
    if (!this.begun) return 0;
    const extents = await this.#port.nextRound();
    for (const { offset, length } of extents) {
      const first = Math.floor(offset / BLOCK_SIZE_BYTES);
      this.feed.changed(first, Math.ceil((offset + length) / BLOCK_SIZE_BYTES) - first);
    }
    return extents.reduce((sum, { length }) => sum + length, 0);
  }

  /**
   * The guest is stopped: names and reads what is left. After this the hypervisor may close the disk.
   * @param ended tells when nothing is sent any more: what has not been taken by then never will be
   * @throws the reason of that, or what a read of the disk has failed with
   */
  async lastRound(ended?: AbortSignal): Promise<void> {
    await (ended ? unlessAborted(this.nextRound(), ended) : this.nextRound());
    const looking = { signal: ended, orThrow: () => this.#throwIfFailed() };
    await until(() => this.feed.remaining * BLOCK_SIZE_BYTES <= MAX_LAST_BYTES, { everyMs: 5, ...looking });
    const left = Promise.all(
      this.feed.dirtyBlocks().map(async (block) => {
        const bytes = Buffer.allocUnsafe(blockLength(this.image.sizeBytes, block));
        await this.#port.read(block * BLOCK_SIZE_BYTES, bytes);
        this.#last.set(block, bytes);
      }),
    );
    await (ended ? unlessAborted(left, ended) : left);
    await until(() => this.#loading === 0, { everyMs: 1, ...looking });
    this.feed.end();
  }

  #throwIfFailed(): void {
    if (this.#failed) throw this.#failed;
  }

  async #load(selection: BlockSelection, into: Buffer): Promise<void> {
    this.#loading += 1;
    try {
      await loadBlocks(selection, into, this.image.sizeBytes, (offset, part) => this.#read(offset, part));
    } catch (error) {
      // Whoever reads hears of it too, and ends the transfer: nothing takes from this feed any more.
      this.#failed ??= toDwcpError(error, 'IMAGE_UNREADABLE', { side: 'source' });
      throw error;
    } finally {
      this.#loading -= 1;
    }
  }

  async #read(offset: number, into: Buffer): Promise<void> {
    const first = offset / BLOCK_SIZE_BYTES;
    const kept = Array.from({ length: blockCount(into.length) }, (_, index) => this.#last.get(first + index));
    if (!kept.every((bytes) => bytes !== undefined)) return this.#port.read(offset, into);
    for (const [index, bytes] of kept.entries()) bytes.copy(into, index * BLOCK_SIZE_BYTES);
  }
}
