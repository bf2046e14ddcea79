/** Pages that the destination has elsewhere: their encoding, and the index that finds them. */
import { randomBytes } from 'node:crypto';
import fc from 'fast-check';
import { BatchDecoder } from '../../src/encoder/batch-decoder';
import { BatchEncoder, encodedBound } from '../../src/encoder/batch-encoder';
import { namedBlocks, readBatchHead } from '../../src/encoder/batch-format';
import { blockHash, quickHash } from '../../src/encoder/hash';
import { applyReferences, encodeReferences, NOT_REFERRED } from '../../src/encoder/references';
import { ReferenceIndex, shareReferences } from '../../src/sync/codec/reference-index';

const PAGE = 4096;
const elsewhere = randomBytes(64 * PAGE);
const read = (address: number, out: Buffer): boolean => {
  if (address * PAGE + out.length > elsewhere.length) return false;
  elsewhere.copy(out, 0, address * PAGE, address * PAGE + out.length);
  return true;
};
const page = (address: number): Buffer => elsewhere.subarray(address * PAGE, (address + 1) * PAGE);

test('a block of referred, carried and staying pages is rebuilt, whatever the order of the addresses', () => {
  const kinds = fc.array(fc.oneof(fc.nat(63), fc.constant('carried' as const), fc.constant('stays' as const)), {
    minLength: 16,
    maxLength: 16,
  });
  fc.assert(
    fc.property(kinds, (pages) => {
      const base = randomBytes(65_536);
      const block = Buffer.from(base);
      let carried = 0;
      const addresses = pages.map((kind, at) => {
        if (kind === 'stays') return NOT_REFERRED;
        if (kind === 'carried') {
          randomBytes(PAGE).copy(block, at * PAGE);
          carried |= 1 << at;
          return NOT_REFERRED;
        }
        page(kind).copy(block, at * PAGE);
        return kind;
      });
      const out = Buffer.alloc(70_000);
      const end = encodeReferences(block, addresses, carried, out, 3);
      expect(applyReferences(out.subarray(3, end), carried, base, read)).toBe('done');
      expect(base.equals(block)).toBe(true);
    }),
    { numRuns: 200 },
  );
});

test('whatever comes is refused or applied, never read beyond its end nor written outside its block; an address that is nowhere is missing', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), fc.nat(0xffff), (bytes, carried) => {
      const memory = Buffer.alloc(65_536 + 2 * PAGE, 7);
      const block = memory.subarray(PAGE, PAGE + 65_536);
      expect(['done', 'missing', 'malformed']).toContain(applyReferences(Buffer.from(bytes), carried, block, read));
      for (const outside of [memory.subarray(0, PAGE), memory.subarray(PAGE + 65_536)])
        expect(outside.every((byte) => byte === 7)).toBe(true);
    }),
  );
  const out = Buffer.alloc(100);
  const end = encodeReferences(Buffer.alloc(65_536), [64], 0, out, 0);
  expect(applyReferences(out.subarray(0, end), 0, Buffer.alloc(65_536), read)).toBe('missing');
});

test('a batch refers instead of carrying, and a reference that means something else by now is asked for again', () => {
  const block = Buffer.concat([page(5), page(6), Buffer.alloc(PAGE), randomBytes(PAGE), Buffer.alloc(12 * PAGE)]);
  const addresses = [5, 6, ...Array.from({ length: 14 }, () => NOT_REFERRED)];
  const out = Buffer.alloc(encodedBound(1));
  const { metaBytes, payloadBytes, account } = new BatchEncoder().encode(
    0,
    [{ block: 2, bytes: block, hash: blockHash(block), references: addresses }],
    { compress: true, level: 1, delta: true, deltaThreshold: 0.7 },
    out,
  );
  expect([
    account.blocks.references,
    payloadBytes < PAGE + 100,
    namedBlocks(out.subarray(0, metaBytes)).map(({ block }) => block),
  ]).toEqual([1, true, [2]]);
  const decode = (readReferences: typeof read): { written: Buffer | undefined; refused: number[] } => {
    let written: Buffer | undefined;
    const refused: number[] = [];
    const image = {
      sizeBytes: 4 * 65_536,
      hashOf: () => Buffer.alloc(16, 7),
      read: () => undefined,
      readReferences,
      dictionaryOf: () => undefined,
    };
    new BatchDecoder().decode(
      readBatchHead(out.subarray(0, metaBytes)),
      out.subarray(metaBytes, metaBytes + payloadBytes),
      image,
      ({ bytes }) => (written = bytes && Buffer.from(bytes)),
      (refusedBlock) => refused.push(refusedBlock),
    );
    return { written, refused };
  };
  expect(decode(read).written?.equals(block)).toBe(true);
  expect(decode((address, into) => read(address + 1, into))).toEqual({ written: undefined, refused: [2] });
});

test('the index finds pages by content, forgets what an address was before, and keeps to its size', () => {
  const index = new ReferenceIndex(shareReferences(1000));
  const hashes = Array.from({ length: 1200 }, (_, at) => quickHash(Buffer.from(`page ${at}`)));
  for (const [address, hash] of hashes.entries()) index.add(address, hash, 0);
  const found = hashes.map((hash) => index.find(hash, 0));
  expect(found.slice(0, 1000).filter((address, at) => address === at).length).toBeGreaterThan(990);
  expect(found.slice(1000).every((address) => address === NOT_REFERRED)).toBe(true);
  index.add(3, hashes[1100]!, 0);
  expect([index.find(hashes[3]!, 0), index.find(hashes[1100]!, 0)]).toEqual([NOT_REFERRED, 3]);
  expect(index.find(quickHash(Buffer.alloc(PAGE)), 0)).toBe(NOT_REFERRED);
});

test.each<[string, number, number, 'references' | 'oldPages']>([
  ['more pages that the destination has elsewhere than others', 4, 3, 'references'],
  ['as many of either', 3, 3, 'references'],
  ['fewer of them: the old content of the others is worth more', 2, 3, 'oldPages'],
])('of a block that is held in another version, %s', (_, referred, changed, encoding) => {
  const before = randomBytes(65_536);
  const block = Buffer.from(before);
  const addresses = Array.from({ length: 16 }, (__, at) => (at < referred ? at : NOT_REFERRED));
  for (let at = 0; at < referred; at += 1) page(at).copy(block, at * PAGE);
  for (let at = referred; at < referred + changed; at += 1) randomBytes(PAGE / 2).copy(block, at * PAGE);
  const held = { hash: blockHash(before), bytes: before };
  const out = Buffer.alloc(encodedBound(1));
  const { account } = new BatchEncoder().encode(
    0,
    [{ block: 0, bytes: block, hash: blockHash(block), held, references: addresses }],
    { compress: true, level: 1, delta: true, deltaThreshold: 1 },
    out,
  );
  expect(account.blocks[encoding]).toBe(1);
});
