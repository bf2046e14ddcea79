/**
 * Where a sync learns what to look at. A feed names candidate blocks and gives the file to read them from; whether a
 * candidate differs from what the destination holds is found out by its hash. `scan` (a stopped image, every block a
 * candidate) is the first; `bitmap` (a running guest's disk) and `stream` (its memory) take the same place.
 */
import { fstatSync } from 'node:fs';
import type { FileHandle } from 'node:fs/promises';
import type { StillDisk } from '../../hypervisor/contract';
import { DwcpError, toDwcpError } from '../../model/errors';
import { BLOCK_SIZE_BYTES, blockCount, wholeSectors } from '../../model/image';
import { holeRuns } from '../../store/data-runs';
import { deviceBytes, isDevicePath, sysFolder, writesOf } from '../../system/block-device';
import { openImage } from '../../system/image-roots';
import { type BlockSelection, runsOf } from '../codec/block-selection';
import type { ImageFile } from '../codec/codec-jobs';

export interface BlockFeed {
  readonly file: ImageFile;
  /**
   * The next candidates, at most `blocks` of them, in rising order; undefined when all have been named.
   * @param enoughToSend better such as take little on the link
   */
  next(blocks: number, enoughToSend?: boolean): BlockSelection | undefined;
  /** What these candidates, as next() gave them, took on the link. */
  packed?(blocks: BlockSelection, sentBytes: number): void;
  /** There are candidates that are worth being looked at before the streams ask for more: more work than bytes. */
  readonly hasWorkAhead?: boolean;
  /** What it has is better left until more has come. */
  readonly waitsForMore?: boolean;
  /** Blocks that next() has not named yet. */
  readonly remaining: number;
  /** True while more may come, though nothing remains now. */
  readonly open?: boolean;
  /** True towards the end: what is left is little, and each of it should arrive at once. */
  readonly fewAtATime?: boolean;
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
  holes(): readonly { readonly first: number; readonly count: number }[];
  /** @throws IMAGE_CHANGED where what was read may not be one state of the image */
  assertUnchanged(): void;
  close(): Promise<void>;
}

/** Reads blocks one behind the other into `into`, neighbours at once. */
export async function loadBlocks(
  blocks: BlockSelection,
  into: Buffer,
  sizeBytes: number,
  read: (offset: number, into: Buffer) => Promise<void>,
): Promise<void> {
  await Promise.all(
    runsOf(blocks).map(({ first, count, at }) => {
      const [start, end] = [first * BLOCK_SIZE_BYTES, Math.min(sizeBytes, (first + count) * BLOCK_SIZE_BYTES)];
      return read(start, into.subarray(at * BLOCK_SIZE_BYTES, at * BLOCK_SIZE_BYTES + end - start));
    }),
  );
}

/** Changes with each write. @param device where the kernel tells of it; a file says it itself */
function fingerprint(fd: number, device: string | undefined): string {
  const { size, mtimeNs } = fstatSync(fd, { bigint: true });
  return device === undefined ? `${size} ${mtimeNs}` : writesOf(device);
}

/**
 * Whether a file or a device has the image. A raw file's last sector may be cut off, which reads as zeros; a device may be larger.
 * @throws IMAGE_CHANGED
 */
async function assertHolds(handle: FileHandle, path: string, sizeBytes: number): Promise<void> {
  const isDevice = isDevicePath(path);
  const size = isDevice ? await deviceBytes(handle) : (await handle.stat()).size;
  if (size === sizeBytes || (isDevice ? size > sizeBytes : wholeSectors(size) === sizeBytes)) return;
  throw changedSize(path, size, sizeBytes);
}

function changedSize(path: string, size: number, sizeBytes: number): DwcpError {
  return new DwcpError('IMAGE_CHANGED', `${path} is ${size} bytes long now and was ${sizeBytes}`, { side: 'source' });
}

interface BlockStretch {
  readonly first: number;
  readonly count: number;
}

/** Every block of an image that nothing writes: of a file, or of what a file holds in another form. */
export class ScanFeed implements StillFeed {
  readonly file: ImageFile;
  readonly load?: (blocks: BlockSelection, into: Buffer) => Promise<void>;
  readonly #path: string;
  readonly #handle: FileHandle;
  readonly #disk: StillDisk | undefined;
  readonly #holes: readonly BlockStretch[];
  readonly #device: string | undefined;
  readonly #before: string;
  #settled: (block: number) => boolean = () => false;
  #next = 0;

  /**
   * @param disk reads the content where the file at `path` holds it in another form; closed with the feed
   * @throws IMAGE_UNREADABLE; IMAGE_CHANGED where the image no longer has `sizeBytes`
   */
  static async open(path: string, sizeBytes: number, disk?: StillDisk): Promise<ScanFeed> {
    let handle: FileHandle | undefined;
    try {
      handle = await openImage(path);
      if (!disk) await assertHolds(handle, path, sizeBytes);
      else if (disk.sizeBytes !== sizeBytes) throw changedSize(path, disk.sizeBytes, sizeBytes);
      const device = isDevicePath(path) ? await sysFolder(handle) : undefined;
      // What was written before, and waits, would pass for a write from now on.
      if (device !== undefined) await handle.datasync();
      const holes = disk
        ? wholeBlocks(await disk.holes(), sizeBytes)
        : holeRuns(handle.fd, sizeBytes, BLOCK_SIZE_BYTES);
      return new ScanFeed({ path, handle, device }, sizeBytes, disk, [...holes]);
    } catch (error) {
      await handle?.close();
      disk?.close();
      throw toDwcpError(error, 'IMAGE_UNREADABLE', { side: 'source' });
    }
  }

  private constructor(
    {
      path,
      handle,
      device,
    }: { readonly path: string; readonly handle: FileHandle; readonly device: string | undefined },
    sizeBytes: number,
    disk: StillDisk | undefined,
    holes: readonly BlockStretch[],
  ) {
    this.#path = path;
    this.#handle = handle;
    this.#disk = disk;
    this.#holes = holes;
    this.file = { fd: disk ? -1 : handle.fd, sizeBytes };
    if (disk)
      this.load = (blocks, into) => loadBlocks(blocks, into, sizeBytes, (offset, part) => disk.read(offset, part));
    this.#device = device;
    this.#before = fingerprint(handle.fd, device);
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

  holes(): readonly BlockStretch[] {
    return this.#holes;
  }

  restart(settled: (block: number) => boolean): void {
    this.#settled = settled;
    this.#next = 0;
  }

  assertUnchanged(): void {
    if (fingerprint(this.#handle.fd, this.#device) !== this.#before) {
      throw new DwcpError('IMAGE_CHANGED', `${this.#path} was written to while it was being read`, { side: 'source' });
    }
  }

  async close(): Promise<void> {
    this.#disk?.close();
    await this.#handle.close();
  }
}

/** The blocks that lie in such stretches as a whole. */
function* wholeBlocks(
  extents: Iterable<{ readonly offset: number; readonly length: number }>,
  sizeBytes: number,
): Generator<BlockStretch> {
  for (const { offset, length } of extents) {
    const first = Math.ceil(offset / BLOCK_SIZE_BYTES);
    const end = offset + length >= sizeBytes ? blockCount(sizeBytes) : Math.floor((offset + length) / BLOCK_SIZE_BYTES);
    if (end > first) yield { first, count: end - first };
  }
}
