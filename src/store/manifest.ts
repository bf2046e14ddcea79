/**
 * The hashes of an image's blocks, 16 bytes each, in shared memory so that worker threads read and write them in
 * place: 256 KiB of memory per GiB of image. On disk: the bare hashes, checked on open against the root that the
 * record beside them names.
 */
import { HASH_BYTES, manifestRoot } from '../encoder/hash';
import { BLOCK_SIZE_BYTES, blockCount } from '../model/image';
import { readIfThere, writeDurably } from './durable-file';

const WORDS = HASH_BYTES / 4;

/** The hash of no content: nothing is equal to it, and no delta builds on it. */
export const OF_NO_CONTENT = Buffer.alloc(HASH_BYTES, 0xff);

export class Manifest {
  readonly sizeBytes: number;
  readonly memory: SharedArrayBuffer;
  readonly hashes: Buffer;
  readonly #words: Uint32Array;

  /** An image of zeros, until hashes are set; or a view on the memory of another thread's manifest. */
  constructor(sizeBytes: number, memory = new SharedArrayBuffer(blockCount(sizeBytes) * HASH_BYTES)) {
    this.sizeBytes = sizeBytes;
    this.memory = memory;
    this.hashes = Buffer.from(memory);
    this.#words = new Uint32Array(memory);
  }

  get blocks(): number {
    return blockCount(this.sizeBytes);
  }

  hashOf(block: number): Buffer {
    return this.hashes.subarray(block * HASH_BYTES, (block + 1) * HASH_BYTES);
  }

  set(block: number, hash: Buffer): void {
    hash.copy(this.hashes, block * HASH_BYTES, 0, HASH_BYTES);
  }

  isZero(block: number): boolean {
    for (let word = block * WORDS; word < (block + 1) * WORDS; word += 1) if (this.#words[word] !== 0) return false;
    return true;
  }

  get isOfZeros(): boolean {
    return this.#words.every((word) => word === 0);
  }

  root(): string {
    return manifestRoot(this.hashes, this.sizeBytes, BLOCK_SIZE_BYTES);
  }

  async save(path: string): Promise<void> {
    // fs refuses views on shared memory in places; a copy of 16 bytes a block is cheap.
    await writeDurably(path, Buffer.from(this.hashes));
  }

  /** Reads a manifest; undefined where the file is missing, has another length, or does not hash to `root`. */
  static async load(path: string, sizeBytes: number, root: string): Promise<Manifest | undefined> {
    const bytes = await readIfThere(path);
    if (!bytes || bytes.length !== blockCount(sizeBytes) * HASH_BYTES) return undefined;
    const manifest = new Manifest(sizeBytes);
    bytes.copy(manifest.hashes);
    return manifest.root() === root ? manifest : undefined;
  }
}
