/**
 * Run coding for blocks changed in place, after QEMU's XBZRLE but in 32-bit words: what stays is skipped, what
 * changed is copied. The result has no entropy stage of its own; the batch's zstd frame gives it one.
 *
 *   delta := run*          run := varint(words that stay) varint(words that follow) those words
 *
 * Words after the last run stay. Varints are LEB128. Source: QEMU docs/xbzrle.txt.
 */
import { readVarint, writeVarint } from './varint';

const WORD_BYTES = 4;
/** 28 bits: far more than a block has words. */
const MAX_VARINT_BYTES = 4;
/** Fewer unchanged words than this between two changes cost less copied than as a new run. */
const MIN_GAP_WORDS = 2;

function words(bytes: Buffer): Int32Array | undefined {
  if (bytes.length % WORD_BYTES !== 0 || bytes.byteOffset % WORD_BYTES !== 0) return undefined;
  return new Int32Array(bytes.buffer, bytes.byteOffset, bytes.length / WORD_BYTES);
}

/**
 * Writes the delta from `before` to `after` (equal lengths) at `out[offset]`.
 * @returns the offset behind it, or -1 where it would pass `limit` or the blocks are not whole words.
 */
export function encodeRunDelta(before: Buffer, after: Buffer, out: Buffer, offset: number, limit: number): number {
  const old = words(before);
  const now = words(after);
  if (!old || !now || old.length !== now.length) return -1;
  const count = now.length;
  let at = offset;
  let index = 0;
  let stays = 0;
  while (index < count) {
    const start = index;
    while (index < count && old[index] === now[index]) index += 1;
    stays += index - start;
    if (index === count) break;
    const end = endOfChange(old, now, index);
    const bytes = (end - index) * WORD_BYTES;
    if (at + bytes + 10 > limit) return -1;
    at = writeVarint(out, at, stays);
    at = writeVarint(out, at, end - index);
    after.copy(out, at, index * WORD_BYTES, end * WORD_BYTES);
    at += bytes;
    index = end;
    stays = 0;
  }
  return at;
}

function endOfChange(old: Int32Array, now: Int32Array, from: number): number {
  const count = now.length;
  let end = from + 1;
  for (let index = end; index < count; index += 1) {
    if (old[index] !== now[index]) end = index + 1;
    else if (index - end + 1 >= MIN_GAP_WORDS) break;
  }
  return end;
}

/**
 * Applies a delta in place: `block` holds the old bytes and then the new ones.
 * @returns false where the delta is malformed; `block` is then partly changed and must be thrown away.
 */
export function applyRunDelta(delta: Buffer, block: Buffer): boolean {
  const cursor = { at: 0 };
  let position = 0;
  while (cursor.at < delta.length) {
    const stays = readVarint(delta, cursor, MAX_VARINT_BYTES);
    const follow = readVarint(delta, cursor, MAX_VARINT_BYTES);
    if (stays < 0 || follow <= 0) return false;
    position += stays * WORD_BYTES;
    const bytes = follow * WORD_BYTES;
    if (position + bytes > block.length || cursor.at + bytes > delta.length) return false;
    delta.copy(block, position, cursor.at, cursor.at + bytes);
    position += bytes;
    cursor.at += bytes;
  }
  return true;
}
