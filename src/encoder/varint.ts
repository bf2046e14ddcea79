/** LEB128: whole numbers from zero on, seven bits a byte, the lowest first. */

/** @returns the offset behind what was written at `out[offset]` */
export function writeVarint(out: Buffer, offset: number, value: number): number {
  let rest = value;
  let at = offset;
  for (; rest >= 0x80; rest = Math.floor(rest / 0x80)) out[at++] = (rest % 0x80) | 0x80;
  out[at++] = rest;
  return at;
}

/** Moves the cursor behind it. @returns -1 where it does not end within `maxBytes`, or the bytes do not hold all of it */
export function readVarint(bytes: Buffer, cursor: { at: number }, maxBytes: number): number {
  let value = 0;
  let scale = 1;
  for (let count = 0; count < maxBytes; count += 1) {
    const byte = bytes[cursor.at++];
    if (byte === undefined) return -1;
    value += (byte & 0x7f) * scale;
    if (byte < 0x80) return value;
    scale *= 0x80;
  }
  return -1;
}
