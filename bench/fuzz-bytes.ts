/**
 * Bytes that were valid, made wrong: bits flipped, numbers at their edges where the format has its fields, cut, doubled, spliced with
 * another example, stretches moved. What the bytes are, and whether a checksum is put right behind it, is the caller's.
 */
import type { Draw } from './fuzz-draw';

/** Where a format has a number, and how many bytes it has. */
export interface Field {
  readonly at: number;
  readonly size: 1 | 2 | 4 | 8;
}

const SIZES = [1, 2, 4, 8] as const;
/** Longer ones are another test's: they cost time and show nothing more. */
const MOST_BYTES = 6 * 1024 * 1024;

type Change = (bytes: Buffer, draw: Draw, others: readonly Buffer[]) => Buffer;

function cut(bytes: Buffer, draw: Draw): Buffer {
  return bytes.subarray(0, draw.below(bytes.length + 1));
}

function without(bytes: Buffer, draw: Draw): Buffer {
  const from = draw.below(bytes.length);
  return Buffer.concat([bytes.subarray(0, from), bytes.subarray(from + 1 + draw.below(Math.min(64, bytes.length)))]);
}

function withMore(bytes: Buffer, draw: Draw): Buffer {
  const at = draw.below(bytes.length + 1);
  return Buffer.concat([bytes.subarray(0, at), draw.bytes(1 + draw.below(40)), bytes.subarray(at)]);
}

function doubled(bytes: Buffer, draw: Draw): Buffer {
  const from = draw.below(bytes.length);
  const stretch = bytes.subarray(from, from + 1 + draw.below(bytes.length - from));
  return bytes.length + stretch.length > MOST_BYTES
    ? bytes
    : Buffer.concat([bytes.subarray(0, from), stretch, stretch, bytes.subarray(from + stretch.length)]);
}

function spliced(bytes: Buffer, draw: Draw, others: readonly Buffer[]): Buffer {
  const other = others.length > 0 ? draw.pick(others) : bytes;
  return Buffer.concat([bytes.subarray(0, draw.below(bytes.length + 1)), other.subarray(draw.below(other.length + 1))]);
}

function filled(bytes: Buffer, draw: Draw): Buffer {
  const from = draw.below(bytes.length);
  return bytes.fill(draw.pick([0, 0xff, 0x80, 0x7f]), from, from + 1 + draw.below(Math.min(64, bytes.length - from)));
}

function flipped(bytes: Buffer, draw: Draw): Buffer {
  for (let times = 1 + draw.below(4); times > 0 && bytes.length > 0; times -= 1) {
    const at = draw.below(bytes.length);
    bytes[at] = (bytes[at] ?? 0) ^ (1 << draw.below(8));
  }
  return bytes;
}

const CHANGES: readonly Change[] = [cut, without, withMore, doubled, spliced, filled, flipped, flipped, flipped];

/** Puts an edge, or what was there and a little more or less, where a number stands. */
function writeNumber(bytes: Buffer, { at, size }: Field, draw: Draw): void {
  if (at + size > bytes.length) return;
  const bits = BigInt(size * 8);
  const before = size === 8 ? bytes.readBigUInt64BE(at) : BigInt(bytes.readUIntBE(at, size));
  const value = draw.oneIn(3) ? before + BigInt(draw.below(5) - 2) : BigInt(Math.trunc(draw.edge()));
  const kept = BigInt.asUintN(Number(bits), value);
  if (size === 8) bytes.writeBigUInt64BE(kept, at);
  else bytes.writeUIntBE(Number(kept), at, size);
}

/**
 * @param valid stays as it is
 * @param fields of the format, where half of the changes are made
 * @param others examples of the same kind, for splicing
 */
export function mutateBytes(
  valid: Buffer,
  draw: Draw,
  fields: readonly Field[] = [],
  others: readonly Buffer[] = [],
): Buffer {
  let bytes: Buffer = Buffer.from(valid);
  for (let times = 1 + draw.below(3); times > 0; times -= 1) {
    if (bytes.length === 0) return draw.bytes(draw.below(64));
    if (fields.length > 0 && draw.oneIn(2)) writeNumber(bytes, draw.pick(fields), draw);
    else if (draw.oneIn(4)) writeNumber(bytes, { at: draw.below(bytes.length), size: draw.pick(SIZES) }, draw);
    else bytes = draw.pick(CHANGES)(bytes, draw, others);
  }
  return bytes;
}

/** The same bytes in chunks as a socket may bring them: whole, halved, byte by byte. */
export function chunksOf(bytes: Buffer, draw: Draw): Buffer[] {
  const most = draw.pick([1, 7, 33, 1000, 65_536, bytes.length]);
  const chunks: Buffer[] = [];
  for (let at = 0; at < bytes.length; ) {
    // Byte by byte only as far as heads go.
    const length = most === 1 && at > 200 ? bytes.length - at : 1 + draw.below(most);
    chunks.push(bytes.subarray(at, at + length));
    at += length;
  }
  return chunks;
}
