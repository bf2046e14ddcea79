/**
 * Blocks of an image to a sealed batch: read, hashed, held against what the destination has, packed. Which blocks, and against
 * what, is said by the job (source/batch-source.ts); the format is src/encoder's.
 */
import { emptyAccount, NO_TIMES } from '../../encoder/account';
import { BatchEncoder, type BlockToEncode, type HeldVersion } from '../../encoder/batch-encoder';
import { batchMetaBytes } from '../../encoder/batch-format';
import { HASH_BYTES, PAGE_HASH_BYTES, writeBlockHash, ZERO_HASH } from '../../encoder/hash';
import { keyedHashesOf } from '../../encoder/keyed-hash';
import { writePageHashes } from '../../encoder/page-patch';
import { NOT_REFERRED } from '../../encoder/references';
import { fromShared } from '../../encoder/trained-dictionary';
import { isZero } from '../../encoder/zero';
import { BLOCK_SIZE_BYTES, blockLength, PAGES_PER_BLOCK } from '../../model/image';
import { Manifest } from '../../store/manifest';
import { HEADER_BYTES, sealFrame } from '../../transport/frame';
import { blocksInMemory, readBlocks, readFully } from './block-io';
import type { EncodeJob, EncodeResult, IndexJob } from './codec-jobs';
import { ReferenceIndex } from './reference-index';
import { PAGE_HASHES_PER_BLOCK, REGION_BYTES, region } from './thread-memory';
import { VersionCache } from './version-cache';

const encoder = new BatchEncoder();
const shadowRegion = Buffer.allocUnsafeSlow(REGION_BYTES);
const shadowHash = Buffer.alloc(HASH_BYTES);
const ownPageHashes = Buffer.alloc(PAGE_HASHES_PER_BLOCK);

/** Later images, and memory, find the pages of this block here. */
function addPages(references: ReferenceIndex, from: number, block: number, bytes: Buffer): void {
  writePageHashes(bytes, ownPageHashes, 0);
  for (let page = 0; page < PAGES_PER_BLOCK; page += 1)
    references.add(from + block * PAGES_PER_BLOCK + page, ownPageHashes, page * PAGE_HASH_BYTES);
}

/** Where pages are looked for: a disk's in bases alone, all else in what comes before it too. */
function findIn(
  { plain, references: named, bases }: EncodeJob,
  references: ReferenceIndex | undefined,
): ((hashes: Buffer, bytes: Buffer) => number[] | undefined) | undefined {
  const own = named?.from === undefined ? references : undefined;
  const others = bases && { index: new ReferenceIndex(bases.shared), from: bases.from, key: Buffer.from(bases.key) };
  if (plain || (!own && !others)) return undefined;
  return (hashes, bytes) => {
    const keyed = others && keyedHashesOf(others.key, bytes);
    const addresses = Array.from({ length: PAGES_PER_BLOCK }, (_, page) => {
      const address = own?.find(hashes, page * PAGE_HASH_BYTES) ?? NOT_REFERRED;
      if (address !== NOT_REFERRED || !others || !keyed) return address;
      const inBase = others.index.find(keyed, page * PAGE_HASH_BYTES);
      return inBase === NOT_REFERRED ? NOT_REFERRED : others.from + inBase;
    });
    return addresses.some((address) => address !== NOT_REFERRED) ? addresses : undefined;
  };
}

export function index(job: IndexJob): { pages: number } {
  const references = new ReferenceIndex(job.shared);
  for (const { block, bytes } of readBlocks(job.file, { first: job.first, count: job.count }, region))
    if (!isZero(bytes)) addPages(references, job.from, block, bytes);
  return { pages: job.count * PAGES_PER_BLOCK };
}

/**
 * Where to read to: straight to the payload's place while batches do not compress, which spares a copy (the one into
 * shared memory is V8's slow kind), else to this thread's own memory, which stays in the processor's cache.
 */
function readTarget({ blocks }: EncodeJob, out: Buffer): Buffer {
  if (!('first' in blocks) || !encoder.lastWasStored) return region;
  return out.subarray(HEADER_BYTES + batchMetaBytes(blocks.count));
}

/** What is known of the destination's version of a block, or `ask` where its page hashes are wanted first. */
function heldVersion(
  job: EncodeJob,
  { index, block, hash }: { readonly index: number; readonly block: number; readonly hash: Buffer },
  shadow: Manifest | undefined,
  versions: VersionCache | undefined,
): HeldVersion | 'ask' | undefined {
  if (!job.settings.delta) return undefined;
  if (job.shadow && shadow?.hashOf(block).equals(hash)) {
    const bytes = shadowRegion.subarray(
      index * BLOCK_SIZE_BYTES,
      index * BLOCK_SIZE_BYTES + blockLength(job.file.sizeBytes, block),
    );
    readFully(
      { fd: job.shadow.fd, sizeBytes: job.file.sizeBytes, cipher: job.shadow.cipher },
      bytes,
      block * BLOCK_SIZE_BYTES,
    );
    // A copy made while the VM ran already lacks what it wrote meanwhile, and a delta against anything else is refused.
    writeBlockHash(bytes, shadowHash, 0);
    if (shadowHash.equals(hash)) return { hash, bytes };
  }
  const kept = versions?.find(block, hash, blockLength(job.file.sizeBytes, block));
  if (kept) return { hash, bytes: kept };
  if (job.pageTable && new Uint8Array(job.pageTable.known)[block] === 1)
    return { hash, pageHashes: Buffer.from(job.pageTable.held, block * PAGE_HASHES_PER_BLOCK, PAGE_HASHES_PER_BLOCK) };
  if (job.pages === 'ask') return 'ask';
  if (job.pages === 'send') return undefined;
  const { hashes, key } = job.pages;
  const told = hashes.subarray(index * PAGE_HASHES_PER_BLOCK, (index + 1) * PAGE_HASHES_PER_BLOCK);
  return { hash, pageHashes: Buffer.from(told.buffer, told.byteOffset, told.length), key: Buffer.from(key) };
}

export function encode(job: EncodeJob): EncodeResult {
  const startedAt = performance.now();
  const source = new Manifest(job.file.sizeBytes, job.source);
  const held = new Manifest(job.file.sizeBytes, job.held);
  const shadow = job.shadow && new Manifest(job.file.sizeBytes, job.shadow.hashes);
  const toEncode: BlockToEncode[] = [];
  const later: { readonly block: number; readonly bytes: Buffer; readonly hash: Buffer }[] = [];
  const needPages: number[] = [];
  let zeroBlocks = 0;
  let unchangedBlocks = 0;
  let replacedBlocks = 0;
  const out = Buffer.from(job.out.memory, job.out.offset, job.out.length);
  const blocks = job.input
    ? blocksInMemory(job.file.sizeBytes, job.blocks, Buffer.from(job.input.memory, job.input.offset))
    : readBlocks(job.file, job.blocks, readTarget(job, out));
  const versions = job.versions && new VersionCache(job.versions);
  const references = job.references && new ReferenceIndex(job.references.shared);
  const found = findIn(job, references);
  for (const [index, { block, bytes }] of blocks.entries()) {
    writeBlockHash(bytes, source.hashes, block * HASH_BYTES);
    const hash = source.hashOf(block);
    if (references && job.references.from !== undefined && !hash.equals(ZERO_HASH))
      addPages(references, job.references.from, block, bytes);
    const heldHash = held.hashOf(block);
    if (!job.plain && hash.equals(heldHash)) {
      if (hash.equals(ZERO_HASH)) zeroBlocks += 1;
      else unchangedBlocks += 1;
      continue;
    }
    if (hash.equals(ZERO_HASH)) zeroBlocks += 1;
    const version =
      job.plain || heldHash.equals(ZERO_HASH) || hash.equals(ZERO_HASH)
        ? undefined
        : heldVersion(job, { index, block, hash: heldHash }, shadow, versions);
    if (version === 'ask') {
      needPages.push(block);
      continue;
    }
    if (!heldHash.equals(ZERO_HASH)) replacedBlocks += 1;
    if (versions && !heldHash.equals(ZERO_HASH) && !hash.equals(ZERO_HASH)) later.push({ block, bytes, hash });
    const pages = job.pageTable
      ? Buffer.from(job.pageTable.sent, block * PAGE_HASHES_PER_BLOCK, PAGE_HASHES_PER_BLOCK)
      : ownPageHashes;
    if (job.pageTable ?? references) writePageHashes(bytes, pages, 0);
    toEncode.push({ block, bytes, hash, held: version, references: found?.(pages, bytes) });
  }
  const common = { sent: toEncode.map((block) => block.block), needPages, zeroBlocks, unchangedBlocks, replacedBlocks };
  if (toEncode.length === 0) {
    return {
      ...common,
      frameBytes: 0,
      gatheredBytes: 0,
      payloadBytes: 0,
      account: { ...emptyAccount(), times: { ...NO_TIMES, readMs: performance.now() - startedAt } },
    };
  }
  const readMs = performance.now() - startedAt;
  // What is sent again in full must not fail for want of a dictionary once more.
  const dictionary = job.plain || !job.settings.dictionary ? undefined : fromShared(job.settings.dictionary);
  const batch = encoder.encode(job.imageNumber, toEncode, { ...job.settings, dictionary }, out.subarray(HEADER_BYTES));
  const encodedAt = performance.now();
  // Only now: until here the old versions were needed.
  for (const { block, bytes, hash } of later) versions?.put(block, hash, bytes);
  sealFrame(out, 'batch', job.sequence, batch.metaBytes, batch.payloadBytes);
  return {
    ...common,
    frameBytes: HEADER_BYTES + batch.metaBytes + batch.payloadBytes,
    gatheredBytes: batch.gatheredBytes,
    payloadBytes: batch.payloadBytes,
    account: { ...batch.account, times: { ...batch.account.times, readMs: readMs + performance.now() - encodedAt } },
  };
}
