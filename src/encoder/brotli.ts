/**
 * The rung above zstd's 9, for links so slow that there is time: Brotli at quality 5 codes literals by their context, which on
 * memory saves 3 to 4 %, on a database's files 7 to 8 % at half of zstd -9's pace (measured, docs/encoding.md), and on
 * logs nothing: section-packer.ts tries. Higher qualities take ten times as long for one per cent.
 */
import { brotliCompressSync, brotliDecompressSync, constants } from 'node:zlib';

/** From this level on zstd's 9 is joined by Brotli where that is of use. */
export const BROTLI_LEVEL = 10;

const WINDOW_BITS = 20;
const OPTIONS = {
  params: {
    [constants.BROTLI_PARAM_QUALITY]: 5,
    [constants.BROTLI_PARAM_LGWIN]: WINDOW_BITS,
    // At this size or more the encoder takes its better search, which pays for less too.
    [constants.BROTLI_PARAM_SIZE_HINT]: 2 ** WINDOW_BITS,
  },
};

export function packBrotli(source: Buffer): Buffer {
  return brotliCompressSync(source, OPTIONS);
}

/** @returns the unpacked length, or -1 where it is damaged or larger than `out` */
export function unpackBrotli(packed: Buffer, out: Buffer): number {
  try {
    return brotliDecompressSync(packed, { maxOutputLength: Math.max(1, out.length) }).copy(out);
  } catch {
    return -1;
  }
}
