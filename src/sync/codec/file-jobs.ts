/**
 * What is asked of a file's blocks otherwise: their hashes, a copy, sealing, a sample of what they would take on the wire.
 */
import { HASH_BYTES, manifestRoot, writeBlockHash, ZERO_HASH } from '../../encoder/hash';
import { PAGE_DIGESTS_BYTES, writePageDigests } from '../../encoder/keyed-hash';
import { compressBound, Packer } from '../../encoder/packer';
import { BLOCK_SIZE_BYTES, PAGE_SIZE_BYTES } from '../../model/image';
import { Manifest } from '../../store/manifest';
import { applyCipher } from '../../store/sealing-key';
import { BlockWriter, blocksInMemory, readBlocks, writeFully } from './block-io';
import type {
  BlockHashJob,
  CopyJob,
  DictionaryGainJob,
  MeasureJob,
  PageDigestJob,
  RecallJob,
  RootJob,
  SampleJob,
  SampleResult,
  SealJob,
  SealResult,
} from './codec-jobs';
import { slicesOf } from './pieces';
import { REGION_BYTES, region } from './thread-memory';

/** Frames that dictionaries serve: a page or two of the last round, packed fast. */
const SERVED_BYTES = PAGE_SIZE_BYTES;

const SERVED_LEVEL = 1;
const packer = new Packer();
let sampleScratch: Buffer | undefined;

export function measure(job: MeasureJob): { dataBlocks: number } {
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

export function pageDigests(job: PageDigestJob): Uint8Array {
  const out = Buffer.alloc(job.list.length * PAGE_DIGESTS_BYTES);
  let at = 0;
  for (const list of slicesOf(job.list))
    for (const { bytes } of readBlocks(job.file, { list }, region)) {
      writePageDigests(bytes, out, at);
      at += PAGE_DIGESTS_BYTES;
    }
  return out;
}

export function blockHashes({ file, input, list }: BlockHashJob): Uint8Array {
  const out = Buffer.alloc(list.length * HASH_BYTES);
  const blocks = input
    ? blocksInMemory(file.sizeBytes, { list }, Buffer.from(input))
    : readBlocks(file, { list }, region);
  for (const [index, { bytes }] of blocks.entries()) writeBlockHash(bytes, out, index * HASH_BYTES);
  return out;
}

export function recall(job: RecallJob): { equal: number } {
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

export function copy(job: CopyJob): { copied: number; differing: number } {
  const hashes = new Manifest(job.file.sizeBytes, job.hashes);
  const hash = Buffer.alloc(HASH_BYTES);
  let copied = 0;
  let differing = 0;
  const writer = new BlockWriter({ fd: job.toFd, sizeBytes: job.file.sizeBytes }, () => (copied += 1));
  for (const { block, bytes } of readBlocks(job.file, { first: job.first, count: job.count }, region)) {
    writeBlockHash(bytes, hash, 0);
    if (!hash.equals(hashes.hashOf(block))) differing += 1;
    else if (!hash.equals(ZERO_HASH)) writer.write(block, bytes, Buffer.from(hash), 'until flush');
  }
  writer.flush();
  return { copied, differing };
}

export function seal(job: SealJob): SealResult {
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

export function sample(job: SampleJob): SampleResult {
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

export function dictionaryGain(job: DictionaryGainJob): { plainBytes: number; withBytes: number } {
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

export function root(job: RootJob): string {
  return manifestRoot(Buffer.from(job.hashes), job.sizeBytes, BLOCK_SIZE_BYTES);
}
