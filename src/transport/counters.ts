/**
 * The receiver's report, every 100 ms and sooner when batches are done: what has been verified, what must come again,
 * and what each stream has brought. The payload of the `counters` event, big-endian:
 *
 *   u32 n, then n x u32                     ids of verified batches
 *   u32 n, then n x (u32 batch, u32 block)  blocks that must come again in full
 *   u16 n, then n x (u16 stream, u8 blocked, u64 bytes received)
 *
 * `blocked` is 1 while the receiver itself is the brake (no memory free): silence then is no stall.
 */
import { DwcpError } from '../model/errors';

export interface RefusedBlock {
  readonly batch: number;
  readonly block: number;
}

export interface StreamCount {
  readonly stream: number;
  readonly blocked: boolean;
  readonly receivedBytes: number;
}

export interface Counters {
  readonly verified: readonly number[];
  readonly refused: readonly RefusedBlock[];
  readonly streams: readonly StreamCount[];
}

/** More than this in one report is split by the caller; keeps a report under the limit of an event. */
export const MAX_COUNTED = 4096;

export function writeCounters(counters: Counters): Buffer {
  const { verified, refused, streams } = counters;
  const out = Buffer.alloc(4 + 4 * verified.length + 4 + 8 * refused.length + 2 + 11 * streams.length);
  let at = out.writeUInt32BE(verified.length, 0);
  for (const id of verified) at = out.writeUInt32BE(id, at);
  at = out.writeUInt32BE(refused.length, at);
  for (const { batch, block } of refused) {
    at = out.writeUInt32BE(batch, at);
    at = out.writeUInt32BE(block, at);
  }
  at = out.writeUInt16BE(streams.length, at);
  for (const { stream, blocked, receivedBytes } of streams) {
    at = out.writeUInt16BE(stream, at);
    at = out.writeUInt8(blocked ? 1 : 0, at);
    at = out.writeBigUInt64BE(BigInt(receivedBytes), at);
  }
  return out;
}

/** @throws PROTOCOL_VIOLATION where lengths do not fit */
export function readCounters(bytes: Buffer): Counters {
  try {
    let at = 0;
    const u32 = (): number => bytes.readUInt32BE((at += 4) - 4);
    const list = <T>(count: number, size: number, read: () => T): T[] => {
      if (count * size > bytes.length - at) throw new RangeError('a list is longer than its report');
      return Array.from({ length: count }, read);
    };
    const verified = list(u32(), 4, u32);
    const refused = list(u32(), 8, () => ({ batch: u32(), block: u32() }));
    const streams = list(bytes.readUInt16BE((at += 2) - 2), 11, () => ({
      stream: bytes.readUInt16BE((at += 2) - 2),
      blocked: bytes.readUInt8((at += 1) - 1) === 1,
      receivedBytes: Number(bytes.readBigUInt64BE((at += 8) - 8)),
    }));
    return { verified, refused, streams };
  } catch (cause) {
    throw new DwcpError('PROTOCOL_VIOLATION', 'A counters report is malformed', { cause });
  }
}
