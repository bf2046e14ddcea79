/**
 * The body of a worker thread: takes one job at a time, does it synchronously, answers. Hashing, compressing and the I/O
 * of disk images happen here (a running guest's RAM image is written by guest-memory.ts, as its stream comes), so that the
 * main thread stays free for sockets and heartbeats.
 */
import { parentPort } from 'node:worker_threads';
import { emptyAccount, NO_TIMES } from '../../encoder/account';
import { BatchDecoder } from '../../encoder/batch-decoder';
import { BatchEncoder, type BlockToEncode, type HeldVersion } from '../../encoder/batch-encoder';
import { MAX_BATCH_BLOCKS, batchMetaBytes, readBatchHead } from '../../encoder/batch-format';
import { HASH_BYTES, PAGE_HASH_BYTES, ZERO_HASH, manifestRoot, writeBlockHash } from '../../encoder/hash';
import { compressBound, Packer } from '../../encoder/packer';
import { writePageHashes } from '../../encoder/page-patch';
import { NOT_REFERRED } from '../../encoder/references';
import { fromShared, type TrainedDictionary } from '../../encoder/trained-dictionary';
import { isZero } from '../../encoder/zero';
import { DwcpError, errnoOf, toDwcpError } from '../../model/errors';
import { BLOCK_SIZE_BYTES, PAGE_SIZE_BYTES, PAGES_PER_BLOCK, blockCount, blockLength } from '../../model/image';
import { Manifest } from '../../store/manifest';
import { applyCipher } from '../../store/sealing-key';
import { yieldToOtherThreads } from '../../store/system-calls';
import { HEADER_BYTES, sealFrame } from '../../transport/frame';
import { blocksInMemory, BlockWriter, clearBlock, clearRange, readBlocks, readFully, writeFully } from './block-io';
import type {
  CodecJob,
  CodecResult,
  CopyJob,
  DecodeJob,
  DictionaryGainJob,
  DecodeResult,
  EncodeJob,
  EncodeResult,
  IndexJob,
  MeasureJob,
  PageHashJob,
  ReadExtentJob,
  RecallJob,
  ReferenceSource,
  RootJob,
  SampleJob,
  SampleResult,
  SealJob,
  SealResult,
  WriteExtentJob,
} from './codec-jobs';
import { EXTENT_META_BYTES, readExtentMeta, sha256, writeExtentMeta } from './extent-format';
import { ReferenceIndex } from './reference-index';
import { VersionCache } from './version-cache';

const REGION_BYTES = MAX_BATCH_BLOCKS * BLOCK_SIZE_BYTES;
/** Frames that dictionaries serve: a page or two of the last round, packed fast. */
const SERVED_BYTES = PAGE_SIZE_BYTES;
const SERVED_LEVEL = 1;
const PAGE_HASHES_PER_BLOCK = PAGES_PER_BLOCK * PAGE_HASH_BYTES;

const region = Buffer.allocUnsafeSlow(REGION_BYTES);
const shadowRegion = Buffer.allocUnsafeSlow(REGION_BYTES);
const encoder = new BatchEncoder();
const decoder = new BatchDecoder();
const packer = new Packer();
let sampleScratch: Buffer | undefined;

const shadowHash = Buffer.alloc(HASH_BYTES);
/** Of no content. */
const IN_FLUX = Buffer.alloc(HASH_BYTES, 0xff);
const ownPageHashes = Buffer.alloc(PAGE_HASHES_PER_BLOCK);

function encode(job: EncodeJob): EncodeResult {
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
        : heldVersion(job, index, block, heldHash, shadow, versions);
    if (version === 'ask') {
      needPages.push(block);
      continue;
    }
    if (!heldHash.equals(ZERO_HASH)) replacedBlocks += 1;
    if (versions && !heldHash.equals(ZERO_HASH) && !hash.equals(ZERO_HASH)) later.push({ block, bytes, hash });
    const pages = job.pageTable
      ? Buffer.from(job.pageTable.sent, block * PAGE_HASHES_PER_BLOCK, PAGE_HASHES_PER_BLOCK)
      : ownPageHashes;
    if (job.pageTable ?? references ?? found) writePageHashes(bytes, pages, 0);
    toEncode.push({ block, bytes, hash, held: version, references: found?.(pages) });
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
): ((hashes: Buffer) => number[] | undefined) | undefined {
  const own = named?.from === undefined ? references : undefined;
  const others = bases && { index: new ReferenceIndex(bases.shared), from: bases.from };
  if (plain || (!own && !others)) return undefined;
  return (hashes) => {
    const addresses = Array.from({ length: PAGES_PER_BLOCK }, (_, page) => {
      const address = own?.find(hashes, page * PAGE_HASH_BYTES) ?? NOT_REFERRED;
      if (address !== NOT_REFERRED || !others) return address;
      const inBase = others.index.find(hashes, page * PAGE_HASH_BYTES);
      return inBase === NOT_REFERRED ? NOT_REFERRED : others.from + inBase;
    });
    return addresses.some((address) => address !== NOT_REFERRED) ? addresses : undefined;
  };
}

function index(job: IndexJob): { pages: number } {
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
  index: number,
  block: number,
  hash: Buffer,
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
  const hashes = job.pages.hashes.subarray(index * PAGE_HASHES_PER_BLOCK, (index + 1) * PAGE_HASHES_PER_BLOCK);
  return { hash, pageHashes: Buffer.from(hashes.buffer, hashes.byteOffset, hashes.length) };
}

function decode(job: DecodeJob): DecodeResult {
  const { memory, offset, metaBytes, payloadBytes } = job.frame;
  const meta = Buffer.from(memory, offset, metaBytes);
  const payload = Buffer.from(memory, offset + metaBytes, payloadBytes);
  const held = new Manifest(job.file.sizeBytes, job.held);
  const accepted: number[] = [];
  const refused: number[] = [];
  // A thread that dies at it leaves a block that nothing is equal to and no delta builds on, not one that claims its old content.
  const inFlux = (block: number): void => held.set(block, IN_FLUX);
  const writer = new BlockWriter(
    job.file,
    (block, hash) => {
      held.set(block, hash);
      accepted.push(block);
    },
    inFlux,
  );
  const image = {
    sizeBytes: job.file.sizeBytes,
    hashOf: (block: number): Buffer => held.hashOf(block),
    read: (block: number, out: Buffer): void => readFully(job.file, out, block * BLOCK_SIZE_BYTES),
    readReferences: (address: number, out: Buffer): boolean => readReferences(job.references, address, out),
    dictionaryOf: (id: number): TrainedDictionary | undefined => {
      const known = job.dictionaries.find((dictionary) => dictionary.id === id);
      return known && fromShared(known);
    },
  };
  decoder.decode(
    readBatchHead(meta),
    payload,
    image,
    ({ block, hash, bytes, stable }) => {
      if (held.hashOf(block).equals(hash)) accepted.push(block);
      else if (bytes) writer.write(block, bytes, hash, stable);
      else {
        inFlux(block);
        clearBlock(job.file, block);
        held.set(block, ZERO_HASH);
        accepted.push(block);
      }
    },
    (block) => refused.push(block),
  );
  writer.flush();
  return { accepted, refused };
}

function readReferences(sources: readonly ReferenceSource[], address: number, out: Buffer): boolean {
  const source = sources.findLast(({ from }) => from <= address);
  if (!source || (address - source.from) * PAGE_SIZE_BYTES + out.length > source.sizeBytes) return false;
  readFully(source, out, (address - source.from) * PAGE_SIZE_BYTES);
  return true;
}

function measure(job: MeasureJob): { dataBlocks: number } {
  const hashes = new Manifest(job.file.sizeBytes, job.hashes);
  const skip = job.skip && new Uint8Array(job.skip);
  const list = Array.from({ length: job.count }, (_, index) => job.first + index).filter((block) => !skip?.[block]);
  let dataBlocks = 0;
  for (const { block, bytes } of readBlocks(job.file, { list }, region)) {
    writeBlockHash(bytes, hashes.hashes, block * HASH_BYTES);
    if (!hashes.isZero(block)) dataBlocks += 1;
  }
  return { dataBlocks };
}

function pageHashes(job: PageHashJob): Uint8Array {
  const out = Buffer.alloc(job.list.length * PAGE_HASHES_PER_BLOCK);
  for (let at = 0; at < job.list.length; at += MAX_BATCH_BLOCKS) {
    const part = readBlocks(job.file, { list: job.list.slice(at, at + MAX_BATCH_BLOCKS) }, region);
    for (const [index, { bytes }] of part.entries()) writePageHashes(bytes, out, (at + index) * PAGE_HASHES_PER_BLOCK);
  }
  return out;
}

function recall(job: RecallJob): { equal: number } {
  const hashes = new Manifest(job.file.sizeBytes, job.hashes);
  const trusted = new Uint8Array(job.trusted);
  const hash = Buffer.alloc(HASH_BYTES);
  let equal = 0;
  for (const { block, bytes } of readBlocks(job.file, { list: job.list }, region)) {
    writeBlockHash(bytes, hash, 0);
    if (!hash.equals(hashes.hashOf(block))) continue;
    trusted[block] = 1;
    equal += 1;
  }
  return { equal };
}

function copy(job: CopyJob): { copied: number; differing: number } {
  const hashes = new Manifest(job.file.sizeBytes, job.hashes);
  const hash = Buffer.alloc(HASH_BYTES);
  let copied = 0;
  let differing = 0;
  const writer = new BlockWriter({ fd: job.toFd, sizeBytes: job.file.sizeBytes }, () => (copied += 1));
  for (const { block, bytes } of readBlocks(job.file, { first: job.first, count: job.count }, region)) {
    writeBlockHash(bytes, hash, 0);
    if (!hash.equals(hashes.hashOf(block))) differing += 1;
    else if (!hash.equals(ZERO_HASH)) writer.write(block, bytes, Buffer.from(hash), true);
  }
  writer.flush();
  return { copied, differing };
}

function seal(job: SealJob): SealResult {
  const hashes = new Manifest(job.file.sizeBytes, job.hashes);
  const hash = Buffer.alloc(HASH_BYTES);
  let damaged = 0;
  const isAsKnown = (block: number, bytes: Buffer): boolean => {
    writeBlockHash(bytes, hash, 0);
    return hash.equals(hashes.hashOf(block));
  };
  for (const { block, bytes } of readBlocks(job.file, { first: job.first, count: job.count }, region)) {
    const position = block * BLOCK_SIZE_BYTES;
    const plain = isAsKnown(block, bytes);
    if (plain && (job.into !== 'sealed' || hashes.isZero(block))) continue;
    const other = Buffer.from(bytes);
    if (job.cipher) applyCipher(job.cipher, other, position);
    if (plain) writeFully(job.file.fd, other, position);
    else if (!isAsKnown(block, other)) damaged += 1;
    else if (job.into === 'plain') writeFully(job.file.fd, other, position);
  }
  return { damaged };
}

function sample(job: SampleJob): SampleResult {
  const held = new Manifest(job.file.sizeBytes, job.held);
  sampleScratch ??= Buffer.allocUnsafeSlow(compressBound(REGION_BYTES));
  const hash = Buffer.alloc(HASH_BYTES);
  const result = { zeroBlocks: 0, unchangedBlocks: 0, changedBlocks: 0, changedBytes: 0, packedBytes: 0, packMs: 0 };
  const blocks = job.input
    ? blocksInMemory(job.file.sizeBytes, { list: job.list }, Buffer.from(job.input))
    : readBlocks(job.file, { list: job.list }, region);
  for (const { block, bytes } of blocks) {
    writeBlockHash(bytes, hash, 0);
    if (hash.equals(ZERO_HASH)) result.zeroBlocks += 1;
    else if (hash.equals(held.hashOf(block))) result.unchangedBlocks += 1;
    else {
      const startedAt = performance.now();
      const packed = job.compress
        ? Math.min(bytes.length, packer.packedSize(bytes, sampleScratch, job.level))
        : bytes.length;
      result.packMs += performance.now() - startedAt;
      result.changedBlocks += 1;
      result.changedBytes += bytes.length;
      result.packedBytes += packed;
    }
  }
  return result;
}

function readExtent(job: ReadExtentJob): { frameBytes: number } {
  const out = Buffer.from(job.out.memory, job.out.offset, job.out.length);
  const payload = out.subarray(HEADER_BYTES + EXTENT_META_BYTES, HEADER_BYTES + EXTENT_META_BYTES + job.length);
  if (!job.loaded) readFully(job.file, payload, job.offset);
  const { hashes } = new Manifest(job.file.sizeBytes, job.hashes);
  const blocks = { first: job.offset / BLOCK_SIZE_BYTES, count: blockCount(job.length) };
  for (const { block, bytes } of blocksInMemory(job.file.sizeBytes, blocks, payload))
    writeBlockHash(bytes, hashes, block * HASH_BYTES);
  writeExtentMeta(out.subarray(HEADER_BYTES), {
    kind: 'data',
    offset: job.offset,
    length: job.length,
    digest: sha256(payload),
  });
  sealFrame(out, 'extent', 0, EXTENT_META_BYTES, job.length);
  return { frameBytes: HEADER_BYTES + EXTENT_META_BYTES + job.length };
}

function writeExtent(job: WriteExtentJob): { end: number } {
  const { memory, offset, metaBytes, payloadBytes } = job.frame;
  const extent = readExtentMeta(Buffer.from(memory, offset, metaBytes), payloadBytes, job.file.sizeBytes);
  if (extent.kind === 'hole') clearRange(job.file, extent.offset, extent.length);
  else {
    const payload = Buffer.from(memory, offset + metaBytes, payloadBytes);
    if (!sha256(payload).equals(extent.digest))
      throw new DwcpError('FRAME_CORRUPT', `The extent at ${extent.offset} arrived damaged`, { side: 'destination' });
    writeFully(job.file.fd, payload, extent.offset);
  }
  return { end: extent.offset + extent.length };
}

function dictionaryGain(job: DictionaryGainJob): { plainBytes: number; withBytes: number } {
  const dictionary = { id: -1, bytes: Buffer.from(job.dictionary) };
  const pages = Buffer.from(job.pages);
  const out = Buffer.alloc(compressBound(SERVED_BYTES));
  const trial = new Packer();
  let plainBytes = 0;
  let withBytes = 0;
  for (let at = 0; at < pages.length; at += SERVED_BYTES) {
    const frame = pages.subarray(at, at + SERVED_BYTES);
    const packed = trial.packTrained(frame, out, dictionary, SERVED_LEVEL);
    withBytes += packed < 0 ? frame.length : packed;
    plainBytes += Math.min(frame.length, trial.packedSize(frame, out, SERVED_LEVEL));
  }
  return { plainBytes, withBytes };
}

function root(job: RootJob): string {
  return manifestRoot(Buffer.from(job.hashes), job.sizeBytes, BLOCK_SIZE_BYTES);
}

function run(job: CodecJob): CodecResult {
  switch (job.kind) {
    case 'encode':
      return encode(job);
    case 'decode':
      return decode(job);
    case 'dictionaryGain':
      return dictionaryGain(job);
    case 'measure':
      return measure(job);
    case 'pageHashes':
      return pageHashes(job);
    case 'recall':
      return recall(job);
    case 'copy':
      return copy(job);
    case 'sample':
      return sample(job);
    case 'seal':
      return seal(job);
    case 'readExtent':
      return readExtent(job);
    case 'writeExtent':
      return writeExtent(job);
    case 'index':
      return index(job);
    case 'root':
      return root(job);
  }
}

/** The main thread has sockets and heartbeats to serve: with all processors busy it goes first. */
yieldToOtherThreads(5);

const WRITING: ReadonlySet<CodecJob['kind']> = new Set(['decode', 'copy', 'writeExtent', 'seal']);

parentPort?.on('message', ({ id, job }: { id: number; job: CodecJob }) => {
  try {
    parentPort?.postMessage({ id, result: run(job) });
  } catch (error) {
    const writing = WRITING.has(job.kind);
    const ofDisk = writing ? 'IMAGE_UNWRITABLE' : 'IMAGE_UNREADABLE';
    const reason = toDwcpError(error, errnoOf(error) === undefined ? 'ENCODER_FAILED' : ofDisk, {
      side: writing ? 'destination' : 'source',
    });
    parentPort?.postMessage({ id, error: reason.report() });
  }
});
