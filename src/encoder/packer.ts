/**
 * zstd behind a few functions. Contexts and scratch live as long as the packer; one packer a thread, never shared.
 * `compress` ignores set parameters: the level is its argument, nothing else is used.
 */
import * as zstd from 'zstd-napi/binding';
import type { TrainedDictionary } from './trained-dictionary';

export { compressBound } from 'zstd-napi/binding';

/** Below this saving a batch travels stored: the other side is spared the unpacking. */
export const MIN_SAVING = 0.03;
/** Above it zstd gains nothing that its time is worth; brotli.ts does. */
const HIGHEST_LEVEL = 9;
/** Prepared dictionaries are a few hundred KiB each, one for each level. */
const MAX_PREPARED = 8;

export class Packer {
  readonly #compressor = new zstd.CCtx();
  readonly #decompressor = new zstd.DCtx();
  readonly #toCompress = new Map<string, zstd.CDict>();
  readonly #toDecompress = new Map<string, zstd.DDict>();

  /**
   * Compresses `source` into `out`, which holds compressBound(source) bytes and shares no memory with it.
   * @returns the packed length, or -1 where packing does not pay.
   */
  pack(source: Buffer, out: Buffer, level: number): number {
    const packed = this.packedSize(source, out, level);
    return packed <= source.length * (1 - MIN_SAVING) ? packed : -1;
  }

  /** Packed size of `source` at a level; the content goes to `scratch` and is of no further use. */
  packedSize(source: Buffer, scratch: Buffer, level: number): number {
    return this.#compressor.compress(scratch, source, Math.min(level, HIGHEST_LEVEL));
  }

  /** The same with a dictionary that serves once; an empty one is none. @returns the packed length, whatever it is */
  packWith(source: Buffer, out: Buffer, dictionary: Buffer, level: number): number {
    if (dictionary.length === 0) return this.packedSize(source, out, level);
    return this.#compressor.compressUsingDict(out, source, dictionary, Math.min(level, HIGHEST_LEVEL));
  }

  /** Unpacks one whole frame that packWith() made. @returns as unpack() */
  unpackWith(packed: Buffer, out: Buffer, dictionary: Buffer): number {
    if (dictionary.length === 0) return this.unpack(packed, out);
    try {
      return this.#decompressor.decompressUsingDict(out, packed, dictionary);
    } catch {
      return -1;
    }
  }

  /** As pack(), with a trained dictionary. */
  packTrained(source: Buffer, out: Buffer, { id, bytes }: TrainedDictionary, wanted: number): number {
    const level = Math.min(wanted, HIGHEST_LEVEL);
    const prepared = remembered(this.#toCompress, `${id} ${level}`, () => new zstd.CDict(bytes, level));
    const packed = this.#compressor.compressUsingCDict(out, source, prepared);
    return packed <= source.length * (1 - MIN_SAVING) ? packed : -1;
  }

  /** As unpack(), of what packTrained() made. */
  unpackTrained(packed: Buffer, out: Buffer, { id, bytes }: TrainedDictionary): number {
    const prepared = remembered(this.#toDecompress, `${id}`, () => new zstd.DDict(bytes));
    try {
      return this.#decompressor.decompressUsingDDict(out, packed, prepared);
    } catch {
      return -1;
    }
  }

  /** Unpacks one whole frame. @returns the unpacked length, or -1 where the frame is damaged or larger than `out`. */
  unpack(packed: Buffer, out: Buffer): number {
    try {
      return this.#decompressor.decompress(out, packed);
    } catch {
      return -1;
    }
  }
}

/** The oldest goes where there are too many. */
function remembered<T>(map: Map<string, T>, key: string, make: () => T): T {
  const known = map.get(key);
  if (known) return known;
  const [oldest] = map.keys();
  if (map.size >= MAX_PREPARED && oldest !== undefined) map.delete(oldest);
  const made = make();
  map.set(key, made);
  return made;
}
