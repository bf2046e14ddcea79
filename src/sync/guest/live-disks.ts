/**
 * The disks of a running guest together: their rounds, and what of them is on its way. One disk is live-disk.ts's; when a round is
 * begun, and what follows from it, disk-rounds.ts's.
 */
import type { DiskPort } from '../../hypervisor/contract';
import type { ImageSpec, VmImage } from '../../model/image';
import type { LiveFeed } from '../feeds/live-feed';
import { LiveDisk } from './live-disk';

/** Bytes of a disk. */
export interface DiskBytes {
  readonly imageId: string;
  readonly bytes: number;
}

/** What a limit leaves to a disk that the guest hardly writes to. */
const LEAST_SHARE = 0.1;

export class LiveDisks {
  readonly #disks: LiveDisk[] = [];

  add(image: ImageSpec & VmImage, port: DiskPort): void {
    this.#disks.push(new LiveDisk(image, port));
  }

  get all(): readonly { readonly image: ImageSpec & VmImage; readonly feed: LiveFeed }[] {
    return this.#disks;
  }

  /** Bytes that have changed and are not confirmed. */
  get backlogBytes(): number {
    return this.#disks.reduce((sum, { feed }) => sum + feed.backlogBytes, 0);
  }

  /** The same, disk by disk. */
  get backlog(): readonly DiskBytes[] {
    return this.#disks.map(({ image: { imageId }, feed }) => ({ imageId, bytes: feed.backlogBytes }));
  }

  /** All have been looked through, and nothing of them is on its way. */
  get areThere(): boolean {
    return this.#disks.every(({ begun }) => begun) && this.backlogBytes === 0;
  }

  /** Names every block of one of them but those that are holes here and zeros there; nothing where the image is no disk. */
  async beginScan(imageId: string, isZeroThere: (block: number) => boolean): Promise<void> {
    await this.#disks.find(({ image }) => image.imageId === imageId)?.beginScan(isZeroThere);
  }

  /** Names what the guest has written since the round before. @returns its bytes */
  nextRound(): Promise<readonly DiskBytes[]> {
    return this.#each((disk) => disk.nextRound());
  }

  /** What the guest has written since the last round, and no round has named. */
  dirty(): Promise<readonly DiskBytes[]> {
    return this.#each((disk) => disk.dirtyBytes());
  }

  /**
   * The guest writes no faster than this to all of them: shared out as it wrote of late.
   * @returns false where one that it writes to cannot be limited
   */
  async limitWrites(bytesPerSecond: number, written: readonly DiskBytes[]): Promise<boolean> {
    const total = written.reduce((sum, { bytes }) => sum + bytes, 0);
    const limited = await Promise.all(
      this.#disks.map(async (disk) => {
        const own = written.find(({ imageId }) => imageId === disk.image.imageId)?.bytes ?? 0;
        const share = total === 0 ? 1 : Math.max(LEAST_SHARE, own / total);
        return (await disk.limitWrites(bytesPerSecond * share)) || share === LEAST_SHARE;
      }),
    );
    return limited.every((isLimited) => isLimited);
  }

  /**
   * The guest is stopped: names and reads what is left.
   * @param ended tells when nothing is sent any more
   * @throws the reason of that; what a disk cannot be read for
   */
  async lastRound(ended?: AbortSignal): Promise<void> {
    await Promise.all(this.#disks.map((disk) => disk.lastRound(ended)));
  }

  nameFew(): void {
    for (const { feed } of this.#disks) feed.nameFew();
  }

  hurry(): void {
    for (const { feed } of this.#disks) feed.hurry();
  }

  #each(bytesOf: (disk: LiveDisk) => Promise<number>): Promise<readonly DiskBytes[]> {
    return Promise.all(this.#disks.map(async (disk) => ({ imageId: disk.image.imageId, bytes: await bytesOf(disk) })));
  }
}
