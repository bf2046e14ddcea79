/**
 * Hexadecimal text taken apart without loss: identifiers, hashes and tokens are noise of four bits a digit, of which an entropy
 * coder that has other text to code beside makes five or six. Here two digits become a byte, and the text without them
 * compresses better too.
 *
 *   split := u32 gap bytes   u32 text bytes   gaps   text   digits, two a byte
 *   gaps  := for each run: varint bytes of text since the run before, varint 2 * (bytes of digits) + (1 where upper case)
 *
 * A run is of one case, of an even number of digits, LEAST_DIGITS at least. The caller packs the split as a whole.
 */
import { grown } from './scratch';
import { readVarint, writeVarint } from './varint';

const LEAST_DIGITS = 12;
const HEAD_BYTES = 8;
const MAX_VARINT_BYTES = 4;

const [NO_DIGIT, DIGIT, LOWER, UPPER] = [0, 1, 2, 3];
const KIND = new Uint8Array(256);
const VALUE = new Uint8Array(256);
const DIGITS = { lower: Buffer.from('0123456789abcdef', 'latin1'), upper: Buffer.from('0123456789ABCDEF', 'latin1') };
for (const [value, code] of DIGITS.lower.entries()) [KIND[code], VALUE[code]] = [value < 10 ? DIGIT : LOWER, value];
for (const [value, code] of DIGITS.upper.entries()) if (value >= 10) [KIND[code], VALUE[code]] = [UPPER, value];

/** What a split of `bytes` takes at most: runs are half as long, and what is said of each is shorter than what they lose. */
export function hexSplitBound(bytes: number): number {
  return HEAD_BYTES + bytes + 2 * MAX_VARINT_BYTES;
}

interface Run {
  readonly end: number;
  readonly upper: boolean;
}

/** The run of digits of one case that begins at `start`, of whatever length. */
function runAt(bytes: Buffer, start: number, run: { end: number; upper: boolean }): Run {
  let letters = DIGIT;
  let at = start;
  for (; at < bytes.length; at += 1) {
    const kind = KIND[bytes[at] ?? 0] ?? NO_DIGIT;
    if (kind === NO_DIGIT || (kind !== DIGIT && letters !== DIGIT && kind !== letters)) break;
    if (kind !== DIGIT) letters = kind;
  }
  run.end = start + ((at - start) & ~1);
  run.upper = letters === UPPER;
  return run;
}

/** One thread's scratch for taking hexadecimal text apart. */
export class HexSplit {
  readonly #run = { end: 0, upper: false };
  #gaps: Buffer = Buffer.alloc(0);
  #digits: Buffer = Buffer.alloc(0);

  /** Share of the bytes that are digits in runs. */
  shareOf(sample: Buffer): number {
    let digits = 0;
    for (let at = 0; at < sample.length; ) {
      if (KIND[sample[at] ?? 0] === NO_DIGIT) at += 1;
      else {
        const { end } = runAt(sample, at, this.#run);
        if (end - at >= LEAST_DIGITS) digits += end - at;
        at = Math.max(end, at + 1);
      }
    }
    return digits / Math.max(1, sample.length);
  }

  /** @param out holds hexSplitBound(source.length) bytes and shares no memory with `source` @returns the length of the split */
  split(source: Buffer, out: Buffer): number {
    this.#digits = grown(this.#digits, Math.ceil(source.length / 2));
    // A run of the least length says two varints of one byte, now and then more.
    this.#gaps = grown(this.#gaps, source.length);
    const [gaps, digits] = [this.#gaps, this.#digits];
    let [gapsAt, digitsAt, textAt, runBefore] = [0, 0, HEAD_BYTES, HEAD_BYTES];
    for (let at = 0; at < source.length; ) {
      const code = source[at] ?? 0;
      if (KIND[code] === NO_DIGIT) {
        out[textAt++] = code;
        at += 1;
        continue;
      }
      const { end, upper } = runAt(source, at, this.#run);
      if (end - at < LEAST_DIGITS) {
        for (const stop = Math.max(end, at + 1); at < stop; at += 1) out[textAt++] = source[at] ?? 0;
        continue;
      }
      gapsAt = writeVarint(gaps, gapsAt, textAt - runBefore);
      gapsAt = writeVarint(gaps, gapsAt, (end - at) | (upper ? 1 : 0));
      runBefore = textAt;
      for (; at < end; at += 2)
        digits[digitsAt++] = ((VALUE[source[at] ?? 0] ?? 0) << 4) | (VALUE[source[at + 1] ?? 0] ?? 0);
    }
    const textBytes = textAt - HEAD_BYTES;
    out.copyWithin(HEAD_BYTES + gapsAt, HEAD_BYTES, textAt);
    gaps.copy(out, HEAD_BYTES, 0, gapsAt);
    digits.copy(out, textAt + gapsAt, 0, digitsAt);
    out.writeUInt32BE(gapsAt, 0);
    out.writeUInt32BE(textBytes, 4);
    return textAt + gapsAt + digitsAt;
  }

  /** The inverse; fills `out` exactly. @returns false where the split is damaged or of another length */
  join(split: Buffer, out: Buffer): boolean {
    if (split.length < HEAD_BYTES) return false;
    const textStart = HEAD_BYTES + split.readUInt32BE(0);
    const textEnd = textStart + split.readUInt32BE(4);
    if (textEnd > split.length) return false;
    const cursor = { at: HEAD_BYTES };
    let [textAt, digitsAt, at] = [textStart, textEnd, 0];
    while (cursor.at < textStart) {
      const gap = readVarint(split, cursor, MAX_VARINT_BYTES);
      const run = readVarint(split, cursor, MAX_VARINT_BYTES);
      const bytes = run >>> 1;
      if (
        gap < 0 ||
        run < 0 ||
        cursor.at > textStart ||
        textAt + gap > textEnd ||
        digitsAt + bytes > split.length ||
        at + gap + 2 * bytes > out.length
      )
        return false;
      at += split.copy(out, at, textAt, textAt + gap);
      textAt += gap;
      const names = (run & 1) === 1 ? DIGITS.upper : DIGITS.lower;
      for (const end = digitsAt + bytes; digitsAt < end; digitsAt += 1) {
        const value = split[digitsAt] ?? 0;
        out[at++] = names[value >>> 4] ?? 0;
        out[at++] = names[value & 15] ?? 0;
      }
    }
    if (digitsAt !== split.length || textEnd - textAt !== out.length - at) return false;
    split.copy(out, at, textAt, textEnd);
    return true;
  }
}
