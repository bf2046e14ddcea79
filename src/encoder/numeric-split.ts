/**
 * Numbers taken apart without loss: float16, bfloat16 and float32 as planes of bytes, after a rotation by one bit that puts
 * the sign last, so that the exponent lies in a plane of its own. Exponents repeat and compress; mantissas are noise and go
 * as they are. Nothing is rounded: joining gives back the same bytes.
 *
 *   split := width x u32 plane bytes (top bit: packed as one zstd frame)   planes, lowest byte first   tail as it is
 *
 * The tail is what is left of a length that is no multiple of the width.
 */
import * as zstd from 'zstd-napi/binding';
import { grown } from './scratch';

/** Bytes a number: 2 for float16 and bfloat16, 4 for float32. */
export type NumberWidth = 2 | 4;
export const NUMBER_WIDTHS: readonly NumberWidth[] = [2, 4];

const PACKED = 0x80000000;
const LENGTH_BYTES = 4;
/** Bits of entropy a byte above which a plane is noise. */
const NOISE_BITS = 7.9;
const HISTOGRAM_EVERY = 8;

export function splitBound(bytes: number): number {
  return zstd.compressBound(bytes) + 4 * (LENGTH_BYTES + 512);
}

/** Entropy of bytes, in bits each, from every `step`th of them from `first` on. */
function entropyOf(bytes: Buffer, first: number, step: number): number {
  const counts = new Uint32Array(256);
  let total = 0;
  for (let at = first; at < bytes.length; at += step) {
    const value = bytes[at] ?? 0;
    counts[value] = (counts[value] ?? 0) + 1;
    total += 1;
  }
  let bits = 0;
  for (const count of counts) if (count > 0) bits -= count * Math.log2(count / total);
  return total === 0 ? 0 : bits / total;
}

function rotateLeft(bytes: Buffer, width: NumberWidth): void {
  if (width === 2) {
    const words = new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.length / 2);
    for (let index = 0; index < words.length; index += 1)
      words[index] = ((words[index] ?? 0) << 1) | ((words[index] ?? 0) >>> 15);
  } else {
    const words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
    for (let index = 0; index < words.length; index += 1)
      words[index] = ((words[index] ?? 0) << 1) | ((words[index] ?? 0) >>> 31);
  }
}

function rotateRight(bytes: Buffer, width: NumberWidth): void {
  if (width === 2) {
    const words = new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.length / 2);
    for (let index = 0; index < words.length; index += 1)
      words[index] = ((words[index] ?? 0) >>> 1) | ((words[index] ?? 0) << 15);
  } else {
    const words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
    for (let index = 0; index < words.length; index += 1)
      words[index] = ((words[index] ?? 0) >>> 1) | ((words[index] ?? 0) << 31);
  }
}

/** One thread's scratch and contexts for taking numbers apart and putting them together. */
export class NumericSplit {
  readonly #compressor = new zstd.CCtx();
  readonly #decompressor = new zstd.DCtx();
  #numbers: Buffer;
  #plane: Buffer;

  constructor() {
    this.#numbers = Buffer.allocUnsafeSlow(0);
    this.#plane = Buffer.allocUnsafeSlow(0);
    // Exponents follow a skewed distribution and no order: entropy coding alone, without a search for matches.
    this.#compressor.setParameter(zstd.CParameter.strategy, zstd.Strategy.fast);
    this.#compressor.setParameter(zstd.CParameter.minMatch, 7);
    this.#compressor.setParameter(zstd.CParameter.hashLog, 6);
  }

  /** Which width, if any, would make a sample smaller than `plainBytes` by more than `saving` of it; by entropy alone. */
  bestWidth(sample: Buffer, plainBytes: number, saving: number): NumberWidth | undefined {
    let best: NumberWidth | undefined;
    let least = plainBytes * (1 - saving);
    for (const width of NUMBER_WIDTHS) {
      const numbers = this.#rotated(sample, width);
      let bytes = 0;
      for (let plane = 0; plane < width; plane += 1)
        bytes += (Math.min(8, entropyOf(numbers, plane, width)) * (numbers.length / width)) / 8;
      // Entropy of a small sample flatters the larger width a little.
      if (bytes < least * (best === undefined ? 1 : 0.99)) [best, least] = [width, bytes];
    }
    return best;
  }

  /** @param out holds splitBound(source.length) bytes and shares no memory with `source` @returns the length of the split */
  split(source: Buffer, width: NumberWidth, out: Buffer): number {
    const numbers = this.#rotated(source, width);
    const planeBytes = numbers.length / width;
    this.#plane = grown(this.#plane, planeBytes);
    const plane = this.#plane.subarray(0, planeBytes);
    let at = width * LENGTH_BYTES;
    for (let index = 0; index < width; index += 1) {
      for (let to = 0, from = index; to < planeBytes; to += 1, from += width) plane[to] = numbers[from] ?? 0;
      const packed =
        entropyOf(plane, 0, HISTOGRAM_EVERY) > NOISE_BITS
          ? planeBytes
          : this.#compressor.compress2(out.subarray(at), plane);
      if (packed < planeBytes) out.writeUInt32BE((PACKED | packed) >>> 0, index * LENGTH_BYTES);
      else {
        plane.copy(out, at);
        out.writeUInt32BE(planeBytes, index * LENGTH_BYTES);
      }
      at += Math.min(packed, planeBytes);
    }
    return at + source.copy(out, at, numbers.length);
  }

  /** The inverse; fills `out` exactly. @returns false where the split is damaged or of another length */
  join(split: Buffer, width: NumberWidth, out: Buffer): boolean {
    const planeBytes = Math.floor(out.length / width);
    const tailBytes = out.length - planeBytes * width;
    this.#numbers = grown(this.#numbers, planeBytes * width);
    this.#plane = grown(this.#plane, planeBytes);
    const numbers = this.#numbers.subarray(0, planeBytes * width);
    if (split.length < width * LENGTH_BYTES) return false;
    let at = width * LENGTH_BYTES;
    for (let index = 0; index < width; index += 1) {
      const field = split.readUInt32BE(index * LENGTH_BYTES);
      const bytes = field & ~PACKED;
      if (bytes > split.length - at) return false;
      const plane = this.#planeOf(split.subarray(at, at + bytes), field >= PACKED, planeBytes);
      if (!plane) return false;
      for (let from = 0, to = index; from < planeBytes; from += 1, to += width) numbers[to] = plane[from] ?? 0;
      at += bytes;
    }
    if (split.length - at !== tailBytes) return false;
    rotateRight(numbers, width);
    numbers.copy(out);
    split.copy(out, numbers.length, at);
    return true;
  }

  #planeOf(bytes: Buffer, packed: boolean, planeBytes: number): Buffer | undefined {
    if (!packed) return bytes.length === planeBytes ? bytes : undefined;
    const plane = this.#plane.subarray(0, planeBytes);
    try {
      return this.#decompressor.decompress(plane, bytes) === planeBytes ? plane : undefined;
    } catch {
      return undefined;
    }
  }

  /** A copy of whole numbers, their signs last: words have to lie at multiples of their width. */
  #rotated(source: Buffer, width: NumberWidth): Buffer {
    const bytes = source.length - (source.length % width);
    this.#numbers = grown(this.#numbers, bytes);
    const numbers = this.#numbers.subarray(0, bytes);
    source.copy(numbers, 0, 0, bytes);
    rotateLeft(numbers, width);
    return numbers;
  }
}
