/**
 * How the gathered section of a batch travels: as it is, as one zstd frame, with a trained dictionary where it is small, or
 * as numbers or hexadecimal text taken apart where a sample says that they are that. What is tried is what may pay: a batch
 * behind one that did not compress is sampled first, numbers are looked for where zstd gains little, hexadecimal text
 * where there is time for it.
 *
 *   stored | zstd                  the section, the frame
 *   dictionary                     u32 id of the dictionary, the frame
 *   numbers16, numbers32           numeric-split.ts
 *   brotli                         one Brotli stream
 *   hex                            u32 length of the split (top bit: Brotli), then hex-split.ts as one frame or stream
 */
import { KIB } from '../model/units';
import type { Packing } from './batch-format';
import { BROTLI_LEVEL, packBrotli, unpackBrotli } from './brotli';
import { HexSplit, hexSplitBound } from './hex-split';
import { type NumberWidth, NumericSplit, splitBound } from './numeric-split';
import { compressBound, MIN_SAVING, type Packer } from './packer';
import { grown } from './scratch';
import type { TrainedDictionary } from './trained-dictionary';

export interface SectionSettings {
  readonly compress: boolean;
  readonly level: number;
  /** For small sections; the destination has it. */
  readonly dictionary?: TrainedDictionary | undefined;
  /** What is sent is known to be numbers. */
  readonly numeric?: boolean | undefined;
}

export interface PackedSection {
  readonly packing: Packing;
  /** 0 for `stored`: the section travels from where it lies. */
  readonly bytes: number;
}

const SAMPLE_LEVEL = 1;
const SAMPLE_PIECES = 16;
const SAMPLE_PIECE_BYTES = 4 * KIB;
/** Of the plain frame: above it numbers are worth a look, below it what text and code gain from. */
const NUMBERS_FROM_SHARE = 0.6;
const NUMBERS_MUST_SAVE = 0.03;
/** Above it a dictionary gains less than it costs. */
export const DICTIONARY_UP_TO_BYTES = 8 * KIB;
export const DICTIONARY_ID_BYTES = 4;

/** Levels below it are taken where the processors, not the link, are short. */
const HEX_FROM_LEVEL = 3;
const HEX_FROM_SHARE = 0.02;
const HEX_SAMPLE_PIECES = 4;
const HEX_MUST_SAVE = 0.02;
/** Batches for which one comparison of Brotli and zstd holds. */
const COMPARE_EVERY = 8;
const HEX_LENGTH_BYTES = 4;
const HEX_BY_BROTLI = 0x80000000;

const PACKING_OF_WIDTH = { 2: 'numbers16', 4: 'numbers32' } as const;

/** Room that a packed section may take. */
export function sectionBound(bytes: number): number {
  return Math.max(compressBound(hexSplitBound(bytes)), splitBound(bytes)) + DICTIONARY_ID_BYTES;
}

export class SectionPacker {
  readonly #packer: Packer;
  readonly #numbers = new NumericSplit();
  readonly #hex = new HexSplit();
  readonly #sample = Buffer.allocUnsafeSlow(SAMPLE_PIECES * SAMPLE_PIECE_BYTES);
  readonly #scratch = Buffer.allocUnsafeSlow(compressBound(hexSplitBound(SAMPLE_PIECES * SAMPLE_PIECE_BYTES)));
  readonly #hexSampleSplit = Buffer.allocUnsafeSlow(hexSplitBound(SAMPLE_PIECES * SAMPLE_PIECE_BYTES));
  #hexSplit: Buffer = Buffer.alloc(0);
  #brotliIsBetter = false;
  #sinceCompared = 0;
  #lastWasStored = false;
  #lastWasNumbers = false;

  constructor(packer: Packer) {
    this.#packer = packer;
  }

  get lastWasStored(): boolean {
    return this.#lastWasStored;
  }

  /** @param out holds sectionBound(source.length) bytes and shares no memory with `source` */
  pack(source: Buffer, out: Buffer, settings: SectionSettings): PackedSection {
    const packed = this.#choose(source, out, settings);
    this.#lastWasStored = packed.packing === 'stored';
    this.#lastWasNumbers = packed.packing === 'numbers16' || packed.packing === 'numbers32';
    return packed;
  }

  #choose(
    source: Buffer,
    out: Buffer,
    { compress, level, dictionary, numeric = false }: SectionSettings,
  ): PackedSection {
    const stored: PackedSection = { packing: 'stored', bytes: 0 };
    if (!compress || source.length === 0) return stored;
    if (dictionary && source.length <= DICTIONARY_UP_TO_BYTES) {
      const bytes = this.#packer.packTrained(source, out.subarray(DICTIONARY_ID_BYTES), dictionary, level);
      out.writeUInt32BE(dictionary.id, 0);
      return bytes < 0 ? stored : { packing: 'dictionary', bytes: bytes + DICTIONARY_ID_BYTES };
    }
    const numbersFirst = numeric || this.#lastWasNumbers;
    if (numbersFirst) {
      const split = this.#split(source, out, source.length);
      if (split) return split;
    }
    const sampled = this.#lastWasStored && source.length >= 2 * this.#sample.length;
    if (sampled && this.#packer.pack(this.#takeSample(source), this.#scratch, SAMPLE_LEVEL) < 0) return stored;
    const text = level < HEX_FROM_LEVEL ? undefined : this.#packText(source, out, level);
    if (text) return text;
    const bytes = this.#packer.pack(source, out, level);
    const plainBytes = bytes < 0 ? source.length : bytes;
    if (!numbersFirst && plainBytes > NUMBERS_FROM_SHARE * source.length && this.#widthOf(source) !== undefined) {
      const split = this.#split(source, out, plainBytes);
      if (split) return split;
      // The planes have been written over the frame.
      if (bytes >= 0) this.#packer.pack(source, out, level);
    }
    return bytes < 0 ? stored : { packing: 'zstd', bytes };
  }

  /** Takes numbers apart where a sample says that it pays and it does. */
  #split(source: Buffer, out: Buffer, plainBytes: number): PackedSection | undefined {
    const width = this.#widthOf(source);
    if (width === undefined) return undefined;
    const bytes = this.#numbers.split(source, width, out);
    return bytes < (1 - MIN_SAVING) * plainBytes ? { packing: PACKING_OF_WIDTH[width], bytes } : undefined;
  }

  /** What takes more time than one zstd frame, where a sample says that it pays. */
  #packText(source: Buffer, out: Buffer, level: number): PackedSection | undefined {
    if (source.length < this.#sample.length) return undefined;
    const hasHex = this.#hex.shareOf(this.#takeSample(source, HEX_SAMPLE_PIECES)) >= HEX_FROM_SHARE;
    if (!hasHex && level < BROTLI_LEVEL) return undefined;
    const sample = this.#takeSample(source);
    const sampleBytes = this.#packer.packedSize(sample, this.#scratch, SAMPLE_LEVEL);
    if (sampleBytes > NUMBERS_FROM_SHARE * sample.length) return undefined;
    if (hasHex && this.#hexPays(sample)) {
      this.#hexSplit = grown(this.#hexSplit, hexSplitBound(source.length));
      const length = this.#hex.split(source, this.#hexSplit);
      const { bytes, brotli } = this.#packBest(
        this.#hexSplit.subarray(0, length),
        out.subarray(HEX_LENGTH_BYTES),
        level,
      );
      out.writeUInt32BE((length | (brotli ? HEX_BY_BROTLI : 0)) >>> 0, 0);
      if (bytes >= 0) return { packing: 'hex', bytes: bytes + HEX_LENGTH_BYTES };
    }
    if (level < BROTLI_LEVEL) return undefined;
    const { bytes, brotli } = this.#packBest(source, out, level);
    return bytes < 0 ? undefined : { packing: brotli ? 'brotli' : 'zstd', bytes };
  }

  /** At the level that allows Brotli the better of both, as both were compared last; now and then they are. */
  #packBest(source: Buffer, out: Buffer, level: number): { readonly bytes: number; readonly brotli: boolean } {
    if (level < BROTLI_LEVEL) return { bytes: this.#packer.pack(source, out, level), brotli: false };
    const compare = this.#sinceCompared === 0;
    this.#sinceCompared = (this.#sinceCompared + 1) % COMPARE_EVERY;
    const byBrotli = compare || this.#brotliIsBetter ? packBrotli(source) : undefined;
    const zstdBytes = compare || !byBrotli ? this.#packer.pack(source, out, level) : -1;
    if (compare && byBrotli) this.#brotliIsBetter = zstdBytes < 0 || byBrotli.length < zstdBytes;
    if (!byBrotli || !this.#brotliIsBetter || byBrotli.length > (1 - MIN_SAVING) * source.length)
      return { bytes: zstdBytes, brotli: false };
    return { bytes: byBrotli.copy(out), brotli: true };
  }

  #hexPays(sample: Buffer): boolean {
    const plainBytes = this.#packer.packedSize(sample, this.#scratch, HEX_FROM_LEVEL);
    const splitBytes = this.#packer.packedSize(
      this.#hexSampleSplit.subarray(0, this.#hex.split(sample, this.#hexSampleSplit)),
      this.#scratch,
      HEX_FROM_LEVEL,
    );
    return splitBytes <= (1 - HEX_MUST_SAVE) * plainBytes;
  }

  /** Which numbers a sample of a section seems to be made of. */
  #widthOf(source: Buffer): NumberWidth | undefined {
    const sample = this.#takeSample(source);
    const plainSample = this.#packer.packedSize(sample, this.#scratch, SAMPLE_LEVEL);
    return this.#numbers.bestWidth(sample, Math.min(plainSample, sample.length), NUMBERS_MUST_SAVE);
  }

  #takeSample(source: Buffer, pieces = SAMPLE_PIECES): Buffer {
    if (source.length <= this.#sample.length) return source;
    // Pieces begin where numbers of either width do.
    const step = 4 * Math.floor(source.length / pieces / 4);
    for (let piece = 0; piece < pieces; piece += 1)
      source.copy(this.#sample, piece * SAMPLE_PIECE_BYTES, piece * step, piece * step + SAMPLE_PIECE_BYTES);
    return this.#sample.subarray(0, pieces * SAMPLE_PIECE_BYTES);
  }

  /** The inverse. @returns the section, in `out` or where it lies in `payload`; undefined where it is damaged or not as long as promised */
  unpack(
    packing: Packing,
    payload: Buffer,
    bytes: number,
    out: Buffer,
    dictionaryOf: (id: number) => TrainedDictionary | undefined,
  ): Buffer | 'no dictionary' | undefined {
    const section = out.subarray(0, bytes);
    switch (packing) {
      case 'stored':
        return payload.length === bytes ? payload : undefined;
      case 'zstd':
        return this.#packer.unpack(payload, section) === bytes ? section : undefined;
      case 'numbers16':
        return this.#numbers.join(payload, 2, section) ? section : undefined;
      case 'numbers32':
        return this.#numbers.join(payload, 4, section) ? section : undefined;
      case 'brotli':
        return unpackBrotli(payload, section) === bytes ? section : undefined;
      case 'hex':
        return this.#unpackHex(payload, section) ? section : undefined;
      case 'dictionary': {
        if (payload.length < DICTIONARY_ID_BYTES) return undefined;
        const dictionary = dictionaryOf(payload.readUInt32BE(0));
        if (!dictionary) return 'no dictionary';
        return this.#packer.unpackTrained(payload.subarray(DICTIONARY_ID_BYTES), section, dictionary) === bytes
          ? section
          : undefined;
      }
    }
  }

  #unpackHex(payload: Buffer, section: Buffer): boolean {
    if (payload.length < HEX_LENGTH_BYTES) return false;
    const field = payload.readUInt32BE(0);
    const length = field & ~HEX_BY_BROTLI;
    if (length > hexSplitBound(section.length)) return false;
    this.#hexSplit = grown(this.#hexSplit, length);
    const split = this.#hexSplit.subarray(0, length);
    const frame = payload.subarray(HEX_LENGTH_BYTES);
    const unpacked = field >= HEX_BY_BROTLI ? unpackBrotli(frame, split) : this.#packer.unpack(frame, split);
    return unpacked === length && this.#hex.join(split, section);
  }
}
