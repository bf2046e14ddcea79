/**
 * Reading and writing blocks of an image file from a worker thread, synchronously: holes are not read, zeros are not
 * written, neighbours go in one call.
 */
import { readSync, writeSync } from 'node:fs';
import { DwcpError } from '../../model/errors';
import { BLOCK_SIZE_BYTES, blockLength, wholeSectors } from '../../model/image';
import { isHole } from '../../store/data-runs';
import { applyCipher } from '../../store/sealing-key';
import { punchHole } from '../../store/system-calls';
import { type BlockSelection, blocksOf, runsOf } from './block-selection';
import type { ImageFile } from './codec-jobs';

const ZEROS = Buffer.alloc(BLOCK_SIZE_BYTES);

/** Of a sealed file: whole blocks. */
export function readFully(file: ImageFile, out: Buffer, position: number): void {
  let at = 0;
  while (at < out.length) {
    const got = readSync(file.fd, out, at, out.length - at, position + at);
    if (got === 0 && isInLastSector(file.sizeBytes, position + at)) {
      out.fill(0, at);
      break;
    }
    if (got === 0)
      throw new DwcpError('IMAGE_CHANGED', `The image ends at ${position + at} bytes and was ${file.sizeBytes} long`);
    at += got;
  }
  if (file.cipher) applyCipher(file.cipher, out, position);
}

/** Where a raw file may end and its image goes on: with zeros, up to a whole sector. */
function isInLastSector(sizeBytes: number, at: number): boolean {
  return at < sizeBytes && wholeSectors(at) === sizeBytes;
}

export function writeFully(fd: number, bytes: Buffer, position: number): void {
  for (let at = 0; at < bytes.length; ) at += writeSync(fd, bytes, at, bytes.length - at, position + at);
}

/** Makes a block read as zeros without giving it space, where the file system can. */
export function clearBlock(file: ImageFile, block: number): void {
  const length = blockLength(file.sizeBytes, block);
  if (!punchHole(file.fd, block * BLOCK_SIZE_BYTES, length))
    writeFully(file.fd, ZEROS.subarray(0, length), block * BLOCK_SIZE_BYTES);
}

/** Makes a range read as zeros; what is a hole already is not touched. */
export function clearRange(file: ImageFile, offset: number, length: number): void {
  const end = offset + length;
  if (isHole(file.fd, offset, end) || punchHole(file.fd, offset, length)) return;
  for (let at = offset; at < end; at += ZEROS.length)
    writeFully(file.fd, ZEROS.subarray(0, Math.min(ZEROS.length, end - at)), at);
}

export interface BlockBytes {
  readonly block: number;
  readonly bytes: Buffer;
}

/**
 * Reads blocks one behind the other into `buffer` and returns views on them. A stretch that is a hole as a whole is
 * not read: its blocks come as views on zeros.
 */
export function readBlocks(file: ImageFile, selection: BlockSelection, buffer: Buffer): BlockBytes[] {
  const blocks: BlockBytes[] = [];
  let at = 0;
  for (const { first, count } of runsOf(selection)) {
    const start = first * BLOCK_SIZE_BYTES;
    const end = Math.min(file.sizeBytes, start + count * BLOCK_SIZE_BYTES);
    const hole = isHole(file.fd, start, end);
    const region = buffer.subarray(at, at + end - start);
    if (!hole) readFully(file, region, start);
    for (let block = first; block < first + count; block += 1) {
      const length = blockLength(file.sizeBytes, block);
      const offset = block * BLOCK_SIZE_BYTES - start;
      blocks.push({ block, bytes: hole ? ZEROS.subarray(0, length) : region.subarray(offset, offset + length) });
    }
    if (!hole) at += region.length;
  }
  return blocks;
}

/** The same for bytes that are in memory already. */
export function blocksInMemory(sizeBytes: number, selection: BlockSelection, bytes: Buffer): BlockBytes[] {
  const list = blocksOf(selection);
  return list.map((block, index) => ({
    block,
    bytes: bytes.subarray(index * BLOCK_SIZE_BYTES, index * BLOCK_SIZE_BYTES + blockLength(sizeBytes, block)),
  }));
}

/** Collects verified blocks and writes neighbours in one call; `written` hears of a block only after its bytes are in the file. */
export class BlockWriter {
  readonly #file: ImageFile;
  readonly #written: (block: number, hash: Buffer) => void;
  readonly #writing: (block: number) => void;
  #first = 0;
  #bytes: Buffer | undefined;
  #hashes: Buffer[] = [];

  /** @param writing hears of a block before the first of its bytes is in the file */
  constructor(
    file: ImageFile,
    written: (block: number, hash: Buffer) => void,
    writing: (block: number) => void = () => undefined,
  ) {
    this.#file = file;
    this.#written = written;
    this.#writing = writing;
  }

  /** @param stays how long `bytes` are what they are */
  write(block: number, bytes: Buffer, hash: Buffer, stays: 'until flush' | 'for now'): void {
    const pending = this.#bytes;
    const follows =
      pending !== undefined &&
      block === this.#first + this.#hashes.length &&
      bytes.buffer === pending.buffer &&
      bytes.byteOffset === pending.byteOffset + pending.length;
    if (follows) this.#bytes = Buffer.from(pending.buffer, pending.byteOffset, pending.length + bytes.length);
    else {
      this.flush();
      this.#first = block;
      this.#bytes = bytes;
    }
    this.#hashes.push(hash);
    if (stays === 'for now') this.flush();
  }

  flush(): void {
    if (!this.#bytes) return;
    for (let block = this.#first; block < this.#first + this.#hashes.length; block += 1) this.#writing(block);
    writeFully(this.#file.fd, this.#bytes, this.#first * BLOCK_SIZE_BYTES);
    for (const [index, hash] of this.#hashes.entries()) this.#written(this.#first + index, hash);
    this.#bytes = undefined;
    this.#hashes = [];
  }
}
