/**
 * A mark by which two hosts see whether a file is the same on both, without either reading one of a terabyte: a keyed BLAKE3 over the
 * file's size and the hashes of its blocks (64 KiB, 16 bytes of BLAKE3 each), in rising order. Of which blocks, both sides know by size
 * and key:
 *
 *   up to 128 MiB   all of them
 *   above           the first 4 MiB, the last 4 MiB, and of 128 equal stretches one block each, which the key chooses
 *
 * No time of a file is in it: a copy has another. Read and hashed by the worker threads.
 */
import { constants } from 'node:fs';
import { open } from 'node:fs/promises';
import { HASH_BYTES } from '../../encoder/hash';
import { keyedHash } from '../../encoder/keyed-hash';
import { errnoOf } from '../../model/errors';
import { BLOCK_SIZE_BYTES, blockCount } from '../../model/image';
import { MIB } from '../../model/units';
import type { CodecPool } from './codec-pool';
import { inLanes, slicesOf } from './pieces';

export const MARKED_WHOLE_BYTES: number = 128 * MIB;
const EDGE_BLOCKS = (4 * MIB) / BLOCK_SIZE_BYTES;
const STRETCHES = 128;

export interface ContentMark {
  readonly sizeBytes: number;
  /** 16 bytes, as hex. */
  readonly mark: string;
}

/** @returns undefined where no file is there @throws what reading it says; Error where it is no ordinary file */
export async function contentMark(path: string, key: Buffer, pool: CodecPool): Promise<ContentMark | undefined> {
  const handle = await open(path, constants.O_RDONLY | constants.O_NONBLOCK).catch((error: unknown) => {
    if (errnoOf(error) === 'ENOENT') return undefined;
    throw error;
  });
  if (!handle) return undefined;
  try {
    const found = await handle.stat();
    if (!found.isFile()) throw new Error(`${path} is no ordinary file`);
    const sizeBytes = found.size;
    const blocks = markedBlocks(sizeBytes, key);
    const hashes = Buffer.alloc(blocks.length * HASH_BYTES);
    let at = 0;
    const slices = [...slicesOf(blocks)].map((list) => {
      const offset = at;
      at += list.length * HASH_BYTES;
      return { list, offset };
    });
    const file = { fd: handle.fd, sizeBytes };
    await inLanes(pool.threads, slices, async ({ list, offset }) => {
      hashes.set(await pool.run({ kind: 'blockHashes', file, list }), offset);
    });
    return { sizeBytes, mark: keyedHash(key, sizeOf(sizeBytes), hashes).toString('hex') };
  } finally {
    await handle.close();
  }
}

/** In rising order. */
export function markedBlocks(sizeBytes: number, key: Buffer): number[] {
  const count = blockCount(sizeBytes);
  if (sizeBytes <= MARKED_WHOLE_BYTES) return Array.from({ length: count }, (_, block) => block);
  const edges = Array.from({ length: EDGE_BLOCKS }, (_, block) => [block, count - 1 - block]).flat();
  const chosen = Array.from({ length: STRETCHES }, (_, stretch) => {
    const [first, end] = [stretch, stretch + 1].map((each) => Math.floor((each * count) / STRETCHES)) as [
      number,
      number,
    ];
    const drawn = keyedHash(key, Buffer.from(`block ${stretch}`)).readUIntBE(0, 6);
    return first + (drawn % (end - first));
  });
  return [...new Set([...edges, ...chosen])].sort((a, b) => a - b);
}

function sizeOf(sizeBytes: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(BigInt(sizeBytes));
  return bytes;
}
