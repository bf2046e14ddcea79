/**
 * Blocks in, one batch out: chooses per block the cheapest encoding that the destination can undo, gathers what
 * remains and packs it once. Which blocks changed, and what the destination holds of them, is the caller's knowledge.
 */
import { BLOCK_SIZE_BYTES } from '../model/image';
import { KIB } from '../model/units';
import { MAX_BATCH_BLOCKS, OLD_HASH_BYTES, batchMetaBytes, writeBatchEntry, writeBatchHead, type BatchEntry, type Encoding } from './batch-format';
import { ZERO_HASH } from './hash';
import { compressBound, Packer } from './packer';
import { bitmapBytes, differingPages, differingPagesByHash, gatherPages, pageCount, pageOf } from './page-patch';
import { encodeReferences, NOT_REFERRED } from './references';
import { encodeRunDelta } from './run-delta';
import { isZero } from './zero';

/** The version of a block that the destination holds, as far as the source knows it. */
export type HeldVersion =
  | { readonly hash: Buffer; readonly bytes: Buffer }
  | { readonly hash: Buffer; readonly pageHashes: Buffer };

export interface BlockToEncode {
  readonly block: number;
  /** The new content, at most a block long. Unchanged while it is being encoded. */
  readonly bytes: Buffer;
  readonly hash: Buffer;
  readonly held?: HeldVersion | undefined;
  /** Where the destination has its pages, by their addresses; NOT_REFERRED for those that it has nowhere. */
  readonly references?: ArrayLike<number> | undefined;
}

export interface EncodeSettings {
  readonly compress: boolean;
  readonly level: number;
  readonly delta: boolean;
  /** A delta is sent only where it takes at most this share of the full encoding. */
  readonly deltaThreshold: number;
}

export interface EncodedBatch {
  readonly metaBytes: number;
  readonly payloadBytes: number;
  readonly gatheredBytes: number;
  readonly packed: boolean;
  readonly blocksByEncoding: Readonly<Record<Encoding, number>>;
  readonly packMs: number;
}

/** Deltas and full encodings are weighed at the cheapest level that shows their true proportion. */
const WEIGHING_LEVEL = 1;
const NO_OLD_HASH = Buffer.alloc(OLD_HASH_BYTES);
const SAMPLE_PIECES = 16;
const SAMPLE_PIECE_BYTES = 4 * KIB;

/** Room that a batch of some blocks may need, head and payload together. */
export function encodedBound(blocks: number): number {
  return batchMetaBytes(blocks) + compressBound(blocks * BLOCK_SIZE_BYTES);
}

interface Choice {
  readonly encoding: Encoding;
  readonly pageBitmap: number;
  readonly length: number;
}

export class BatchEncoder {
  readonly #packer = new Packer();
  /** What is gathered of a mixed batch; the packed form of one that lies in `out` already. */
  readonly #gathered = Buffer.allocUnsafeSlow(compressBound(MAX_BATCH_BLOCKS * BLOCK_SIZE_BYTES));
  readonly #scratch = Buffer.allocUnsafeSlow(compressBound(BLOCK_SIZE_BYTES));
  readonly #sample = Buffer.allocUnsafeSlow(SAMPLE_PIECES * SAMPLE_PIECE_BYTES);
  #lastWasStored = false;

  /** The next batch will likely travel as it is. */
  get lastWasStored(): boolean {
    return this.#lastWasStored;
  }

  /**
   * Encodes 1 to 64 blocks into `out`, which has encodedBound(blocks.length) bytes: the head at its start, the payload
   * right behind. Blocks that lie there already, in order, are not copied unless packing pays.
   */
  encode(image: number, blocks: readonly BlockToEncode[], settings: EncodeSettings, out: Buffer): EncodedBatch {
    const metaBytes = batchMetaBytes(blocks.length);
    const counts: Record<Encoding, number> = { zero: 0, full: 0, pages: 0, runDelta: 0, references: 0 };
    const direct = contiguous(blocks);
    let gatheredBytes = 0;
    for (const [index, block] of blocks.entries()) {
      const choice = direct ? full(block) : this.#place(block, settings, gatheredBytes);
      counts[choice.encoding] += 1;
      gatheredBytes += choice.length;
      writeBatchEntry(out, index, entryOf(block, choice));
    }
    const source = direct ?? this.#gathered.subarray(0, gatheredBytes);
    // zstd must not read and write the same memory; what lies in `out` already is packed beside it first.
    const sharesMemory = source.buffer === out.buffer;
    const inPlace = sharesMemory && source.byteOffset === out.byteOffset + metaBytes;
    const startedAt = performance.now();
    const packInto = sharesMemory ? this.#gathered : out.subarray(metaBytes);
    const worthTrying = settings.compress && gatheredBytes > 0 && (!this.#lastWasStored || this.#samplePacks(source));
    const packedBytes = worthTrying ? this.#packer.pack(source, packInto, settings.level) : -1;
    const packMs = performance.now() - startedAt;
    const packed = packedBytes >= 0;
    this.#lastWasStored = !packed;
    if (packed && sharesMemory) packInto.copy(out, metaBytes, 0, packedBytes);
    if (!packed && !inPlace) source.copy(out, metaBytes);
    writeBatchHead(out, image, packed, gatheredBytes, blocks.length);
    return { metaBytes, payloadBytes: packed ? packedBytes : gatheredBytes, gatheredBytes, packed, blocksByEncoding: counts, packMs };
  }

  /** What does not compress comes in long stretches: behind a batch that did not, a look at a sample spares the attempt. */
  #samplePacks(source: Buffer): boolean {
    const step = Math.floor(source.length / SAMPLE_PIECES);
    if (step < 2 * SAMPLE_PIECE_BYTES) return true;
    for (let piece = 0; piece < SAMPLE_PIECES; piece += 1) source.copy(this.#sample, piece * SAMPLE_PIECE_BYTES, piece * step, piece * step + SAMPLE_PIECE_BYTES);
    return this.#packer.pack(this.#sample, this.#scratch, WEIGHING_LEVEL) >= 0;
  }

  /** Puts a block's encoded bytes behind what is gathered already. */
  #place(block: BlockToEncode, settings: EncodeSettings, at: number): Choice {
    if (block.hash.equals(ZERO_HASH)) return { encoding: 'zero', pageBitmap: 0, length: 0 };
    const { held } = block;
    const bitmap = held ? changedPages(held, block.bytes) : 0;
    const patchBytes = bitmapBytes(bitmap, block.bytes.length);
    if (held && 'bytes' in held && settings.delta) {
      const deltaBytes = this.#delta(held.bytes, block.bytes, settings, at);
      if (deltaBytes >= 0) return { encoding: 'runDelta', pageBitmap: 0, length: deltaBytes };
    }
    if (block.references) {
      const refers = referTo(block.bytes, block.references, held && bitmap);
      if (refers) return { encoding: 'references', pageBitmap: refers.carried, length: encodeReferences(block.bytes, refers.addresses, refers.carried, this.#gathered, at) - at };
    }
    if (held && settings.delta && bitmap !== 0 && patchBytes < block.bytes.length) {
      gatherPages(block.bytes, bitmap, this.#gathered, at);
      return { encoding: 'pages', pageBitmap: bitmap, length: patchBytes };
    }
    block.bytes.copy(this.#gathered, at);
    return full(block);
  }

  /** Writes a run delta where it is worth it under deltaThreshold; -1 where it is not. */
  #delta(before: Buffer, after: Buffer, settings: EncodeSettings, at: number): number {
    if (before.length !== after.length) return -1;
    const end = encodeRunDelta(before, after, this.#gathered, at, at + after.length);
    if (end < 0) return -1;
    const full = settings.compress ? this.#packer.packedSize(after, this.#scratch, WEIGHING_LEVEL) : after.length;
    const limit = settings.deltaThreshold * full;
    if (end - at <= limit) return end - at;
    if (!settings.compress) return -1;
    const packedDelta = this.#packer.packedSize(this.#gathered.subarray(at, end), this.#scratch, WEIGHING_LEVEL);
    return packedDelta <= limit ? end - at : -1;
  }
}

function changedPages(held: HeldVersion, bytes: Buffer): number {
  if ('pageHashes' in held) return differingPagesByHash(held.pageHashes, 0, bytes);
  return held.bytes.length === bytes.length ? differingPages(held.bytes, bytes) : 0;
}

/**
 * What of a block is referred to and what is carried: pages that stay as the held version has them are neither, and without
 * a held version zeros are neither.
 * @param changed bitmap of pages that differ from the held version, where there is one
 * @returns undefined where no page of it is worth a reference
 */
function referTo(bytes: Buffer, found: ArrayLike<number>, changed: number | undefined): { readonly carried: number; readonly addresses: readonly number[] } | undefined {
  const addresses: number[] = [];
  let carried = 0;
  for (let page = 0; page < pageCount(bytes.length); page += 1) {
    const stays = changed === undefined ? isZero(pageOf(bytes, page)) : (changed & (1 << page)) === 0;
    const address = stays ? NOT_REFERRED : (found[page] ?? NOT_REFERRED);
    addresses.push(address);
    if (address === NOT_REFERRED && !stays) carried |= 1 << page;
  }
  return addresses.some((address) => address !== NOT_REFERRED) ? { carried, addresses } : undefined;
}

function full(block: BlockToEncode): Choice {
  return { encoding: 'full', pageBitmap: 0, length: block.bytes.length };
}

function entryOf(block: BlockToEncode, choice: Choice): BatchEntry {
  const dependsOnOld = choice.encoding === 'pages' || choice.encoding === 'runDelta' || choice.encoding === 'references';
  return { block: block.block, hash: block.hash, oldHash: dependsOnOld && block.held ? block.held.hash : NO_OLD_HASH, ...choice };
}

/** The one stretch of memory that all blocks make up, where all of them go in full and lie side by side. */
function contiguous(blocks: readonly BlockToEncode[]): Buffer | undefined {
  const first = blocks[0];
  if (!first) return undefined;
  let end = first.bytes.byteOffset;
  for (const block of blocks) {
    const alone = !block.held && !block.references && block.bytes.buffer === first.bytes.buffer && block.bytes.byteOffset === end && !block.hash.equals(ZERO_HASH);
    if (!alone) return undefined;
    end += block.bytes.length;
  }
  return Buffer.from(first.bytes.buffer, first.bytes.byteOffset, end - first.bytes.byteOffset);
}
