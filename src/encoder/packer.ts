/**
 * zstd behind two functions. Contexts and scratch live as long as the packer; one packer a thread, never shared.
 * `compress` ignores set parameters (compression.md section 10, trap 4): the level is its argument, nothing else is used.
 */
import * as zstd from 'zstd-napi/binding';

export { compressBound } from 'zstd-napi/binding';

/** Below this saving a batch travels stored: the other side is spared the unpacking. */
const MIN_SAVING = 0.03;

export class Packer {
  readonly #compressor = new zstd.CCtx();
  readonly #decompressor = new zstd.DCtx();

  /**
   * Compresses `source` into `out`, which holds compressBound(source) bytes and shares no memory with it.
   * @returns the packed length, or -1 where packing does not pay.
   */
  pack(source: Buffer, out: Buffer, level: number): number {
    const packed = this.#compressor.compress(out, source, level);
    return packed <= source.length * (1 - MIN_SAVING) ? packed : -1;
  }

  /** Packed size of `source` at a level; the content goes to `scratch` and is of no further use. */
  packedSize(source: Buffer, scratch: Buffer, level: number): number {
    return this.#compressor.compress(scratch, source, level);
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
