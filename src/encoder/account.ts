/**
 * Where the bytes and the time of batches went: by encoding, and by stage of the encoder. Added up per image by the
 * sender and shown to the operator; nothing is decided by it.
 */
import { ENCODING, type Encoding, noBlocks } from './batch-format';

/**
 * read: reading, hashing and looking for pages held elsewhere. choose: comparing with held versions and gathering.
 * delta: packing pages with what they replace. pack: packing the rest.
 */
export interface StageTimes {
  readonly readMs: number;
  readonly chooseMs: number;
  readonly deltaMs: number;
  readonly packMs: number;
}

/** numbers: of either width. */
export interface PackedBytes {
  readonly stored: number;
  readonly zstd: number;
  readonly dictionary: number;
  readonly numbers: number;
  readonly hex: number;
  readonly brotli: number;
}

export interface EncodingAccount {
  readonly blocks: Readonly<Record<Encoding, number>>;
  /** On the link, without heads. What is packed together is shared out by what it was before. */
  readonly bytes: Readonly<Record<Encoding, number>>;
  readonly headBytes: number;
  /** Gathered sections on the link, by how they were packed. */
  readonly packings: PackedBytes;
  readonly times: StageTimes;
}

export const NO_TIMES: StageTimes = { readMs: 0, chooseMs: 0, deltaMs: 0, packMs: 0 };

export const NOTHING_PACKED: PackedBytes = { stored: 0, zstd: 0, dictionary: 0, numbers: 0, hex: 0, brotli: 0 };

export function emptyAccount(): EncodingAccount {
  return { blocks: noBlocks(), bytes: noBlocks(), headBytes: 0, packings: NOTHING_PACKED, times: NO_TIMES };
}

export function sumOfAccounts(one: EncodingAccount, other: EncodingAccount): EncodingAccount {
  return {
    blocks: sumOf(one.blocks, other.blocks),
    bytes: sumOf(one.bytes, other.bytes),
    headBytes: one.headBytes + other.headBytes,
    packings: {
      stored: one.packings.stored + other.packings.stored,
      zstd: one.packings.zstd + other.packings.zstd,
      dictionary: one.packings.dictionary + other.packings.dictionary,
      numbers: one.packings.numbers + other.packings.numbers,
      hex: one.packings.hex + other.packings.hex,
      brotli: one.packings.brotli + other.packings.brotli,
    },
    times: {
      readMs: one.times.readMs + other.times.readMs,
      chooseMs: one.times.chooseMs + other.times.chooseMs,
      deltaMs: one.times.deltaMs + other.times.deltaMs,
      packMs: one.times.packMs + other.times.packMs,
    },
  };
}

function sumOf(
  one: Readonly<Record<Encoding, number>>,
  other: Readonly<Record<Encoding, number>>,
): Record<Encoding, number> {
  const sum = noBlocks();
  for (const name of Object.keys(ENCODING) as Encoding[]) sum[name] = one[name] + other[name];
  return sum;
}
