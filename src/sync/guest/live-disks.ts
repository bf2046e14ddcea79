/**
 * The disks of a running guest together: their rounds, and what of them is on its way. One disk is live-disk.ts's.
 */
import type { DiskPort } from '../../hypervisor/contract';
import type { ImageSpec, VmImage } from '../../model/image';
import type { LiveFeed } from '../feeds/live-feed';
import { LiveDisk } from './live-disk';

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

  /** All have been looked through, and nothing of them is on its way. */
  get areThere(): boolean {
    return this.#disks.every(({ begun }) => begun) && this.backlogBytes === 0;
  }

  /** Names every block of one of them but those that are holes here and zeros there; nothing where the image is no disk. */
  async beginScan(imageId: string, isZeroThere: (block: number) => boolean): Promise<void> {
    await this.#disks.find(({ image }) => image.imageId === imageId)?.beginScan(isZeroThere);
  }

  /** Names what the guest has written since the round before. @returns its bytes */
  async nextRound(): Promise<number> {
    const rounds = await Promise.all(this.#disks.map((disk) => disk.nextRound()));
    return rounds.reduce((sum, bytes) => sum + bytes, 0);
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
}
