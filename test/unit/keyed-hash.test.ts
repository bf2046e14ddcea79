/** Hashes that leave a host: none without its key, none the same under another. */
import { createCipheriv } from 'node:crypto';
import { blake3 } from '@napi-rs/blake-hash';
import { quickHash } from '../../src/encoder/hash';
import {
  differingPagesByKeyedHash,
  keyedHash,
  keyedHashesOf,
  keyedPageHashes,
  pageDigest,
} from '../../src/encoder/keyed-hash';
import { proofOf } from '../../src/sync/protocol';
import { randomBlock } from '../helpers/data';

const [KEY, OTHER] = [Buffer.alloc(32, 1), Buffer.alloc(32, 2)];
const PAGE = 4096;
const block = randomBlock(1, 1);
block.fill(0, 3 * PAGE, 4 * PAGE);

test('page hashes are the first bytes of an enciphered BLAKE3, and zeros stay zeros', () => {
  const hashes = keyedHashesOf(KEY, block);
  expect(hashes.length).toBe(128);
  const cipher = createCipheriv('aes-256-ecb', KEY, null).setAutoPadding(false);
  const digest = blake3(block.subarray(PAGE, 2 * PAGE)).subarray(0, 16);
  expect(hashes.subarray(8, 16)).toEqual(cipher.update(digest).subarray(0, 8));
  expect(hashes.subarray(24, 32)).toEqual(Buffer.alloc(8));
});

test('no page hash is the same under another key, or is the one that a host keeps', () => {
  const [one, two] = [keyedHashesOf(KEY, block), keyedHashesOf(OTHER, block)];
  for (let page = 0; page < 16; page += 1) {
    if (page === 3) continue;
    const [start, end] = [page * 8, page * 8 + 8];
    const bytes = block.subarray(page * PAGE, (page + 1) * PAGE);
    expect(one.subarray(start, end)).not.toEqual(two.subarray(start, end));
    for (const kept of [quickHash(bytes), pageDigest(bytes).subarray(0, 8)])
      expect(one.subarray(start, end)).not.toEqual(kept);
  }
});

test('they tell which pages differ, in a block shorter than others too', () => {
  const short = block.subarray(0, 5 * PAGE + 100);
  const after = Buffer.from(short);
  after.writeUInt8(after.readUInt8(2 * PAGE) ^ 1, 2 * PAGE);
  after.writeUInt8(after.readUInt8(5 * PAGE + 99) ^ 1, 5 * PAGE + 99);
  expect(differingPagesByKeyedHash(keyedHashesOf(KEY, short), KEY, after)).toBe(0b100100);
  expect(differingPagesByKeyedHash(keyedHashesOf(KEY, short), KEY, short)).toBe(0);
});

test('many digests at once are as one after the other, wherever in memory they lie', () => {
  const digests = Buffer.concat([
    Buffer.alloc(1),
    pageDigest(block.subarray(0, PAGE)),
    pageDigest(block.subarray(PAGE, 2 * PAGE)),
  ]);
  expect(keyedPageHashes(KEY, digests.subarray(1))).toEqual(keyedHashesOf(KEY, block).subarray(0, 16));
});

test('a proof is of the nonce, the block and its hash', () => {
  const hashes = Buffer.concat([Buffer.alloc(16, 5), Buffer.alloc(16, 6)]);
  const proof = proofOf(KEY, [7, 9], hashes);
  expect(proof.length).toBe(32);
  expect(proof.subarray(0, 16)).toEqual(keyedHash(KEY, Buffer.from([0, 0, 0, 7]), Buffer.alloc(16, 5)));
  expect(proofOf(OTHER, [7, 9], hashes).subarray(0, 16)).not.toEqual(proof.subarray(0, 16));
  expect(proofOf(KEY, [8, 9], hashes).subarray(0, 16)).not.toEqual(proof.subarray(0, 16));
  expect(proofOf(KEY, [8, 9], hashes).subarray(16)).toEqual(proof.subarray(16));
});
