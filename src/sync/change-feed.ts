/**
 * Where a sync learns what to look at. A feed names candidate blocks and gives the file to read them from; whether a
 * candidate differs from what the destination holds is found out by its hash. `scan` (a stopped image, every block a
 * candidate) is the first; `bitmap` (a running guest's disk) and `stream` (its memory) take the same place.
 */
import { fstatSync } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { DwcpError, toDwcpError } from '../model/errors';
import { BLOCK_SIZE_BYTES, blockCount } from '../model/image';
import { nextData, nextHole } from '../store/system-calls';
import type { BlockSelection } from './block-selection';
import type { ImageFile } from './codec-jobs';

export interface BlockFeed {
  readonly file: ImageFile;
  /** The next candidates, at most `blocks` of them, in rising order; undefined when all have been named. */
  next(blocks: number): BlockSelection | undefined;
  /** Blocks that next() has not named yet. */
  readonly remaining: number;
  /** True while more may come, though nothing remains now. */
  readonly open?: boolean;
  /** True where nobody may be kept waiting: questions that save bytes are left out. */
  readonly hurried?: boolean;
  /** Reads blocks whose bytes do not lie in the file, one behind the other. @throws IMAGE_UNREADABLE */
  load?(blocks: BlockSelection, into: Buffer): Promise<void>;
  /** Calls back whenever there is more than there was. */
  onMore?(handler: () => void): void;
  /** For images that go on changing: these blocks are held by the destination as they were last read. */
  confirmed?(blocks: readonly number[]): void;
  /** Begins anew, leaving out the blocks for which `settled` holds. */
  restart(settled: (block: number) => boolean): void;
}

/** An image that nothing writes: its holes are known ahead, and that it is one state can be told at the end. */
export interface StillFeed extends BlockFeed {
  /** Stretches of whole blocks that are zeros without having to be read. */
  holes(): Iterable<{ readonly first: number; readonly count: number }>;
  /** @throws IMAGE_CHANGED where what was read may not be one state of the image */
  assertUnchanged(): void;
  close(): Promise<void>;
}

interface Fingerprint {
  readonly size: bigint;
  readonly mtimeNs: bigint;
  readonly ino: bigint;
}

function fingerprint(fd: number): Fingerprint {
  const { size, mtimeNs, ino } = fstatSync(fd, { bigint: true });
  return { size, mtimeNs, ino };
}

/** Every block of a file that nothing writes. */
export class ScanFeed implements StillFeed {
  readonly file: ImageFile;
  readonly #path: string;
  readonly #handle: FileHandle;
  readonly #before: Fingerprint;
  #settled: (block: number) => boolean = () => false;
  #next = 0;

  /** @throws IMAGE_UNREADABLE; IMAGE_CHANGED where the file no longer has `sizeBytes` */
  static async open(path: string, sizeBytes: number): Promise<ScanFeed> {
    try {
      const handle = await open(path, 'r');
      const { size } = await handle.stat();
      if (size === sizeBytes) return new ScanFeed(path, handle, sizeBytes);
      await handle.close();
      throw new DwcpError('IMAGE_CHANGED', `${path} is ${size} bytes long now and was ${sizeBytes}`, { side: 'source' });
    } catch (error) {
      throw toDwcpError(error, 'IMAGE_UNREADABLE', { side: 'source' });
    }
  }

  private constructor(path: string, handle: FileHandle, sizeBytes: number) {
    this.#path = path;
    this.#handle = handle;
    this.file = { fd: handle.fd, sizeBytes };
    this.#before = fingerprint(handle.fd);
  }

  get remaining(): number {
    return blockCount(this.file.sizeBytes) - this.#next;
  }

  next(blocks: number): BlockSelection | undefined {
    const end = blockCount(this.file.sizeBytes);
    while (this.#next < end && this.#settled(this.#next)) this.#next += 1;
    if (this.#next >= end) return undefined;
    const first = this.#next;
    let count = 0;
    while (count < blocks && this.#next < end && !this.#settled(this.#next)) {
      this.#next += 1;
      count += 1;
    }
    return { first, count };
  }

  *holes(): Generator<{ first: number; count: number }> {
    const { fd, sizeBytes } = this.file;
    for (let at = 0; at < sizeBytes; ) {
      const data = Math.min(nextData(fd, at), sizeBytes);
      const first = Math.ceil(at / BLOCK_SIZE_BYTES);
      const end = data === sizeBytes ? blockCount(sizeBytes) : Math.floor(data / BLOCK_SIZE_BYTES);
      if (end > first) yield { first, count: end - first };
      if (data === sizeBytes) return;
      at = Math.min(nextHole(fd, data), sizeBytes);
    }
  }

  restart(settled: (block: number) => boolean): void {
    this.#settled = settled;
    this.#next = 0;
  }

  assertUnchanged(): void {
    const now = fingerprint(this.file.fd);
    if (now.size !== this.#before.size || now.mtimeNs !== this.#before.mtimeNs) {
      throw new DwcpError('IMAGE_CHANGED', `${this.#path} was written to while it was being read`, { side: 'source' });
    }
  }

  async close(): Promise<void> {
    await this.#handle.close();
  }
}
