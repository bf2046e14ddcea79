/** Old versions of blocks, kept for deltas in bounded memory. */
import { randomBytes } from 'node:crypto';
import { blockHash } from '../../src/encoder/hash';
import { BLOCK_SIZE_BYTES } from '../../src/model/image';
import { shareVersions, VERSION_CACHE_BYTES, VersionCache } from '../../src/sync/codec/version-cache';

const PLACES = VERSION_CACHE_BYTES / BLOCK_SIZE_BYTES;

test('gives back the version that was put, by its hash, and no other', () => {
  const cache = new VersionCache(shareVersions(100));
  const [first, second] = [randomBytes(BLOCK_SIZE_BYTES), randomBytes(BLOCK_SIZE_BYTES)];
  cache.put(7, blockHash(first), first);
  expect(cache.find(7, blockHash(first), BLOCK_SIZE_BYTES)?.equals(first)).toBe(true);
  expect(cache.find(7, blockHash(second), BLOCK_SIZE_BYTES)).toBeUndefined();
  expect(cache.find(8, blockHash(first), BLOCK_SIZE_BYTES)).toBeUndefined();
  cache.put(7, blockHash(second), second);
  expect(cache.find(7, blockHash(first), BLOCK_SIZE_BYTES)).toBeUndefined();
  expect(cache.find(7, blockHash(second), 4096)?.equals(second.subarray(0, 4096))).toBe(true);
});

test('keeps to its size: the block that has had its place longest loses it, and two views of it agree', () => {
  const shared = shareVersions(10 * PLACES);
  const [one, other] = [new VersionCache(shared), new VersionCache(shared)];
  expect(shared.bytes.byteLength).toBe(VERSION_CACHE_BYTES);
  const content = (block: number): Buffer => Buffer.alloc(64, `block ${block}`);
  for (let block = 0; block < PLACES + 3; block += 1)
    (block % 2 === 0 ? one : other).put(block, blockHash(content(block)), content(block));
  const found = (block: number): boolean =>
    other.find(block, blockHash(content(block)), 64)?.equals(content(block)) ?? false;
  expect([0, 1, 2, 3, PLACES, PLACES + 2].map(found)).toEqual([false, false, false, true, true, true]);
});
