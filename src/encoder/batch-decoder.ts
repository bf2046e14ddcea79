/**
 * The exact inverse of the batch encoder, for a peer that may be hostile: every length is checked before memory is
 * used, every block is verified against its BLAKE3 before anybody may write it. A block that cannot be verified is
 * refused alone (the source sends it in full); a batch that breaks the format is a PROTOCOL_VIOLATION.
 */
import { DwcpError } from '../model/errors';
import { BLOCK_SIZE_BYTES, blockCount, blockLength } from '../model/image';
import { type BatchEntry, type BatchHead, MAX_GATHERED_BYTES, OLD_HASH_BYTES } from './batch-format';
import { HASH_BYTES, writeBlockHash, ZERO_HASH } from './hash';
import { OldPagesUnpacker } from './old-pages';
import { Packer } from './packer';
import { applyPages } from './page-patch';
import { applyReferences, type ReadReferences } from './references';
import { applyRunDelta } from './run-delta';
import { SectionPacker } from './section-packer';
import type { TrainedDictionary } from './trained-dictionary';

const NO_OLD_HASH = Buffer.alloc(OLD_HASH_BYTES);

/** What the decoder asks of the image that it decodes for. */
export interface HeldImage {
  readonly sizeBytes: number;
  /** Hash of the version held. */
  hashOf(block: number): Buffer;
  /** Reads the version held into `out` (exactly the block's length). */
  read(block: number, out: Buffer): void;
  /** Reads pages that lie elsewhere on this host. */
  readonly readReferences: ReadReferences;
  /** A trained dictionary that is active on this host. */
  readonly dictionaryOf: (id: number) => TrainedDictionary | undefined;
}

/** One verified block; `bytes` is undefined for zeros. Where it is not `stable` it is overwritten after the call. */
export interface VerifiedBlock {
  readonly block: number;
  readonly hash: Buffer;
  readonly bytes: Buffer | undefined;
  readonly stable: boolean;
}

export class BatchDecoder {
  readonly #packer = new Packer();
  readonly #section = new SectionPacker(this.#packer);
  readonly #pieces = new OldPagesUnpacker(this.#packer);
  readonly #gathered = Buffer.allocUnsafeSlow(MAX_GATHERED_BYTES);
  readonly #block = Buffer.allocUnsafeSlow(BLOCK_SIZE_BYTES);
  readonly #hash = Buffer.allocUnsafe(HASH_BYTES);

  /**
   * Decodes a batch. `accept` gets each verified block in order, `refuse` each block that must come again in full.
   * @throws PROTOCOL_VIOLATION where the batch breaks the format or lies outside its image.
   */
  decode(
    head: BatchHead,
    payload: Buffer,
    image: HeldImage,
    accept: (block: VerifiedBlock) => void,
    refuse: (block: number) => void,
  ): void {
    const blocks = blockCount(image.sizeBytes);
    for (const { block } of head.entries) if (block >= blocks) throw violation(`block ${block} is outside its image`);
    // All old content that serves as a dictionary is read before anything is written over it.
    const { end, pages } = this.#pieces.unpack(head, payload, image.sizeBytes, (entry, out) =>
      readOld(entry, image, out),
    );
    const gathered = this.#unpack(head, payload.subarray(end), image);
    let at = 0;
    for (const entry of head.entries) {
      const encoded = entry.encoding === 'oldPages' ? pages.get(entry) : gathered?.subarray(at, at + entry.length);
      if (entry.encoding !== 'oldPages') at += entry.length;
      const bytes = encoded && this.#restore(entry, encoded, image);
      if (bytes !== undefined)
        accept({
          block: entry.block,
          hash: entry.hash,
          bytes: bytes === 'zeros' ? undefined : bytes,
          stable: entry.encoding === 'full',
        });
      else refuse(entry.block);
    }
  }

  /** The gathered section; undefined where its dictionary is not here. */
  #unpack({ packing, gatheredBytes }: BatchHead, payload: Buffer, { dictionaryOf }: HeldImage): Buffer | undefined {
    const section = this.#section.unpack(packing, payload, gatheredBytes, this.#gathered, dictionaryOf);
    if (section === undefined) {
      if (packing === 'stored') throw violation(`${payload.length} stored bytes for ${gatheredBytes}`);
      throw new DwcpError('FRAME_CORRUPT', 'A batch does not unpack to the length its head gives', {
        side: 'destination',
      });
    }
    return section === 'no dictionary' ? undefined : section;
  }

  /** The verified new content of one block, `zeros`, or undefined where it does not come out as promised. */
  #restore(entry: BatchEntry, encoded: Buffer, image: HeldImage): Buffer | 'zeros' | undefined {
    const length = blockLength(image.sizeBytes, entry.block);
    if (entry.encoding === 'zero') return entry.hash.equals(ZERO_HASH) ? 'zeros' : undefined;
    if (entry.encoding === 'full') {
      if (encoded.length !== length)
        throw violation(`block ${entry.block} takes ${length} bytes, not ${encoded.length}`);
      return this.#verified(encoded, entry);
    }
    const block = this.#block.subarray(0, length);
    if (entry.encoding === 'references' && entry.oldHash.equals(NO_OLD_HASH)) block.fill(0);
    else if (!readOld(entry, image, block)) return undefined;
    if (entry.encoding === 'references') {
      const result = applyReferences(encoded, entry.pageBitmap, block, (address, out) =>
        image.readReferences(address, out),
      );
      if (result === 'malformed') throw violation(`the references of block ${entry.block} are malformed`);
      return result === 'done' ? this.#verified(block, entry) : undefined;
    }
    const whole =
      entry.encoding === 'runDelta' ? applyRunDelta(encoded, block) : applyPages(encoded, entry.pageBitmap, block);
    if (!whole) throw violation(`the ${entry.encoding} of block ${entry.block} is malformed`);
    return this.#verified(block, entry);
  }

  #verified(bytes: Buffer, entry: BatchEntry): Buffer | undefined {
    writeBlockHash(bytes, this.#hash, 0);
    return this.#hash.equals(entry.hash) ? bytes : undefined;
  }
}

/** Reads the version that an entry builds on; false where another one is held. */
function readOld(entry: BatchEntry, image: HeldImage, out: Buffer): boolean {
  if (image.hashOf(entry.block).compare(entry.oldHash, 0, OLD_HASH_BYTES, 0, OLD_HASH_BYTES) !== 0) return false;
  image.read(entry.block, out);
  return true;
}

function violation(text: string): DwcpError {
  return new DwcpError('PROTOCOL_VIOLATION', `Batch refused: ${text}`, { side: 'destination' });
}
