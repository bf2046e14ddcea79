/**
 * Blocks in, one batch out: chooses per block the cheapest encoding that the destination can undo, gathers what
 * remains and packs it once. Which blocks changed, and what the destination holds of them, is the caller's knowledge.
 */
import { BLOCK_SIZE_BYTES } from '../model/image';
import { type EncodingAccount, NOTHING_PACKED } from './account';
import {
  type BatchEntry,
  batchMetaBytes,
  type Encoding,
  MAX_BATCH_BLOCKS,
  noBlocks,
  OLD_HASH_BYTES,
  type Packing,
  writeBatchEntry,
  writeBatchHead,
} from './batch-format';
import { ZERO_HASH } from './hash';
import { differingPagesByKeyedHash } from './keyed-hash';
import { PIECE_TABLE_BYTES } from './old-pages';
import { OldPagesPacker } from './old-pages-packer';
import { Packer } from './packer';
import { bitmapBytes, differingPages, differingPagesByHash, gatherPages, pageCount, pageOf } from './page-patch';
import { encodeReferences, NOT_REFERRED } from './references';
import { encodeRunDelta } from './run-delta';
import { type PackedSection, SectionPacker, type SectionSettings, sectionBound } from './section-packer';
import { equalLines, SIMILARITY_SPLIT } from './similarity';
import { isZero } from './zero';

/** The version of a block that the destination holds, as far as the source knows it. */
export type HeldVersion =
  | { readonly hash: Buffer; readonly bytes: Buffer }
  /** @property key where they are the destination's own, as it has told them */
  | { readonly hash: Buffer; readonly pageHashes: Buffer; readonly key?: Buffer | undefined };

export interface BlockToEncode {
  readonly block: number;
  /** The new content, at most a block long. Unchanged while it is being encoded. */
  readonly bytes: Buffer;
  readonly hash: Buffer;
  readonly held?: HeldVersion | undefined;
  /** Where the destination has its pages, by their addresses; NOT_REFERRED for those that it has nowhere. */
  readonly references?: ArrayLike<number> | undefined;
}

export interface EncodeSettings extends SectionSettings {
  readonly delta: boolean;
  /** A delta is sent only where it takes at most this share of the pages that it replaces. */
  readonly deltaThreshold: number;
}

export interface EncodedBatch {
  readonly metaBytes: number;
  readonly payloadBytes: number;
  /** Before packing: the section, and the pages that were packed with what they replace. */
  readonly gatheredBytes: number;
  readonly packing: Packing;
  /** Without the time that reading took. */
  readonly account: EncodingAccount;
}

const NO_OLD_HASH = Buffer.alloc(OLD_HASH_BYTES);

/** Room that a batch of some blocks may need, head and payload together. */
export function encodedBound(blocks: number): number {
  return batchMetaBytes(blocks) + blocks * PIECE_TABLE_BYTES + sectionBound(blocks * BLOCK_SIZE_BYTES);
}

interface Choice {
  readonly encoding: Exclude<Encoding, 'oldPages'>;
  readonly pageBitmap: number;
  readonly length: number;
}

/** Its changed pages go into a piece, with what they replace. */
interface ForPiece {
  readonly encoding: 'oldPages';
  readonly pageBitmap: number;
  readonly before: Buffer;
}

export class BatchEncoder {
  readonly #packer = new Packer();
  readonly #section = new SectionPacker(this.#packer);
  readonly #pieces = new OldPagesPacker<BlockToEncode>(this.#packer);
  /** What is gathered of a mixed batch; the packed form of one that lies in `out` already. */
  readonly #gathered = Buffer.allocUnsafeSlow(sectionBound(MAX_BATCH_BLOCKS * BLOCK_SIZE_BYTES));
  #gatheredBytes = 0;
  #entries = 0;
  #blocks = noBlocks();
  #bytes = noBlocks();

  /** The next batch will likely travel as it is. */
  get lastWasStored(): boolean {
    return this.#section.lastWasStored;
  }

  /**
   * Encodes 1 to 64 blocks into `out`, which has encodedBound(blocks.length) bytes: the head at its start, the payload
   * right behind. Blocks that lie there already, in order, are not copied unless packing pays.
   */
  encode(image: number, blocks: readonly BlockToEncode[], settings: EncodeSettings, out: Buffer): EncodedBatch {
    const metaBytes = batchMetaBytes(blocks.length);
    [this.#entries, this.#gatheredBytes, this.#blocks, this.#bytes] = [0, 0, noBlocks(), noBlocks()];
    this.#pieces.begin();
    const startedAt = performance.now();
    const direct = contiguous(blocks);
    if (direct) for (const block of blocks) this.#enter(out, block, full(block));
    else {
      for (const block of blocks) this.#place(block, settings, out);
      this.#closePiece(settings, out);
    }
    const { pieces } = this.#pieces;
    const piecesBytes = this.#pieces.writeTo(out, metaBytes);
    const sectionAt = metaBytes + piecesBytes;
    const source = direct ?? this.#gathered.subarray(0, this.#gatheredBytes);
    const packingAt = performance.now();
    const { packing, bytes } = this.#packSection(source, out, sectionAt, settings);
    const [gatheredBytes, entryCount] = [source.length, blocks.length];
    writeBatchHead(out, { image, packing, pieces: pieces.count, gatheredBytes, entryCount });
    const times = {
      readMs: 0,
      chooseMs: packingAt - startedAt - pieces.packMs,
      deltaMs: pieces.packMs,
      packMs: performance.now() - packingAt,
    };
    return {
      metaBytes,
      payloadBytes: piecesBytes + bytes,
      gatheredBytes: source.length + pieces.rawBytes,
      packing,
      account: {
        blocks: this.#blocks,
        bytes: onTheLink(this.#bytes, source.length, bytes, piecesBytes),
        headBytes: metaBytes,
        packings: {
          ...NOTHING_PACKED,
          [packing === 'numbers16' || packing === 'numbers32' ? 'numbers' : packing]: bytes,
        },
        times,
      },
    };
  }

  #packSection(source: Buffer, out: Buffer, at: number, settings: EncodeSettings): PackedSection {
    // zstd must not read and write the same memory; what lies in `out` already is packed beside it first.
    const sharesMemory = source.buffer === out.buffer;
    const packInto = sharesMemory ? this.#gathered : out.subarray(at);
    const packed = this.#section.pack(source, packInto, settings);
    if (packed.packing === 'stored') {
      const inPlace = sharesMemory && source.byteOffset === out.byteOffset + at;
      if (!inPlace) source.copy(out, at);
      return { packing: 'stored', bytes: source.length };
    }
    if (sharesMemory) packInto.copy(out, at, 0, packed.bytes);
    return packed;
  }

  /** Entries come in the order in which their content does. */
  #enter(out: Buffer, block: BlockToEncode, choice: Pick<BatchEntry, 'encoding' | 'pageBitmap' | 'length'>): void {
    writeBatchEntry(out, this.#entries, entryOf(block, choice));
    this.#entries += 1;
    this.#blocks[choice.encoding] += 1;
    this.#bytes[choice.encoding] += choice.length;
    if (choice.encoding !== 'oldPages') this.#gatheredBytes += choice.length;
  }

  /** Puts a block's encoded bytes behind what is gathered already, or its changed pages into the piece at hand. */
  #place(block: BlockToEncode, settings: EncodeSettings, out: Buffer): void {
    const choice = this.#choose(block, settings);
    if (choice.encoding !== 'oldPages') this.#enter(out, block, choice);
    else if (this.#pieces.add(block, choice.before, choice.pageBitmap, settings)) this.#closePiece(settings, out);
  }

  #choose(block: BlockToEncode, settings: EncodeSettings): Choice | ForPiece {
    if (block.hash.equals(ZERO_HASH)) return { encoding: 'zero', pageBitmap: 0, length: 0 };
    const at = this.#gatheredBytes;
    const { held } = block;
    const bitmap = held ? changedPages(held, block.bytes) : 0;
    const before = held && 'bytes' in held && bitmap !== 0 && settings.delta ? held.bytes : undefined;
    if (before && equalLines(before, block.bytes, bitmap) >= SIMILARITY_SPLIT) {
      const limit = Math.floor(settings.deltaThreshold * bitmapBytes(bitmap, block.bytes.length));
      const end = encodeRunDelta(before, block.bytes, this.#gathered, at, at + limit);
      if (end >= 0) return { encoding: 'runDelta', pageBitmap: 0, length: end - at };
    }
    const refers = block.references && referTo(block.bytes, block.references, held && bitmap);
    // Carried pages are packed without what they replace: where they are the more, the old content is worth more than the references.
    const oldIsWorthMore =
      before !== undefined &&
      settings.compress &&
      refers !== undefined &&
      bitmapBytes(refers.carried, block.bytes.length) > bitmapBytes(bitmap & ~refers.carried, block.bytes.length);
    if (refers && !oldIsWorthMore)
      return {
        encoding: 'references',
        pageBitmap: refers.carried,
        length: encodeReferences(block.bytes, refers.addresses, refers.carried, this.#gathered, at) - at,
      };
    if (before && settings.compress) return { encoding: 'oldPages', pageBitmap: bitmap, before };
    return held && settings.delta && bitmap !== 0 ? this.#gatherPages(block, bitmap) : this.#gatherFull(block);
  }

  #closePiece(settings: EncodeSettings, out: Buffer): void {
    const { blocks, kept } = this.#pieces.close(settings);
    for (const { block, pageBitmap, pagesBytes } of blocks)
      this.#enter(
        out,
        block,
        kept ? { encoding: 'oldPages', pageBitmap, length: pagesBytes } : this.#gatherPages(block, pageBitmap),
      );
  }

  #gatherPages(block: BlockToEncode, bitmap: number): Choice {
    const length = bitmapBytes(bitmap, block.bytes.length);
    if (length === block.bytes.length) return this.#gatherFull(block);
    gatherPages(block.bytes, bitmap, this.#gathered, this.#gatheredBytes);
    return { encoding: 'pages', pageBitmap: bitmap, length };
  }

  #gatherFull(block: BlockToEncode): Choice {
    block.bytes.copy(this.#gathered, this.#gatheredBytes);
    return full(block);
  }
}

/** Shares the packed section out to the encodings by what of it is theirs. */
function onTheLink(
  gathered: Readonly<Record<Encoding, number>>,
  sectionBytes: number,
  packedBytes: number,
  piecesBytes: number,
): Record<Encoding, number> {
  const share = sectionBytes === 0 ? 0 : packedBytes / sectionBytes;
  const { zero, full: whole, pages, runDelta, references } = gathered;
  return {
    zero,
    full: whole * share,
    pages: pages * share,
    runDelta: runDelta * share,
    references: references * share,
    oldPages: piecesBytes,
  };
}

function changedPages(held: HeldVersion, bytes: Buffer): number {
  if ('pageHashes' in held)
    return held.key
      ? differingPagesByKeyedHash(held.pageHashes, held.key, bytes)
      : differingPagesByHash(held.pageHashes, 0, bytes);
  return held.bytes.length === bytes.length ? differingPages(held.bytes, bytes) : 0;
}

/**
 * What of a block is referred to and what is carried: pages that stay as the held version has them are neither, and without
 * a held version zeros are neither.
 * @param changed bitmap of pages that differ from the held version, where there is one
 * @returns undefined where no page of it is worth a reference
 */
function referTo(
  bytes: Buffer,
  found: ArrayLike<number>,
  changed: number | undefined,
): { readonly carried: number; readonly addresses: readonly number[] } | undefined {
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

function entryOf(block: BlockToEncode, choice: Pick<BatchEntry, 'encoding' | 'pageBitmap' | 'length'>): BatchEntry {
  const dependsOnOld = choice.encoding !== 'zero' && choice.encoding !== 'full';
  return {
    block: block.block,
    hash: block.hash,
    oldHash: dependsOnOld && block.held ? block.held.hash : NO_OLD_HASH,
    ...choice,
  };
}

/** The one stretch of memory that all blocks make up, where all of them go in full and lie side by side. */
function contiguous(blocks: readonly BlockToEncode[]): Buffer | undefined {
  const first = blocks[0];
  if (!first) return undefined;
  let end = first.bytes.byteOffset;
  for (const block of blocks) {
    const alone =
      !block.held &&
      !block.references &&
      block.bytes.buffer === first.bytes.buffer &&
      block.bytes.byteOffset === end &&
      !block.hash.equals(ZERO_HASH);
    if (!alone) return undefined;
    end += block.bytes.length;
  }
  return Buffer.from(first.bytes.buffer, first.bytes.byteOffset, end - first.bytes.byteOffset);
}
