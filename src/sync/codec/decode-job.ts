/**
 * A batch that has arrived, into the working image: each block is checked before it is written. Journal and sync are the image's.
 */
import { BatchDecoder } from '../../encoder/batch-decoder';
import { readBatchHead } from '../../encoder/batch-format';
import { ZERO_HASH } from '../../encoder/hash';
import { fromShared, type TrainedDictionary } from '../../encoder/trained-dictionary';
import { BLOCK_SIZE_BYTES, PAGE_SIZE_BYTES } from '../../model/image';
import { Manifest, OF_NO_CONTENT } from '../../store/manifest';
import { BlockWriter, clearBlock, readFully } from './block-io';
import type { DecodeJob, DecodeResult, ReferenceSource } from './codec-jobs';

const decoder = new BatchDecoder();

function readReferences(sources: readonly ReferenceSource[], address: number, out: Buffer): boolean {
  const source = sources.findLast(({ from }) => from <= address);
  if (!source || (address - source.from) * PAGE_SIZE_BYTES + out.length > source.sizeBytes) return false;
  readFully(source, out, (address - source.from) * PAGE_SIZE_BYTES);
  return true;
}

export function decode(job: DecodeJob): DecodeResult {
  const { memory, offset, metaBytes, payloadBytes } = job.frame;
  const meta = Buffer.from(memory, offset, metaBytes);
  const payload = Buffer.from(memory, offset + metaBytes, payloadBytes);
  const held = new Manifest(job.file.sizeBytes, job.held);
  const accepted: number[] = [];
  const refused: number[] = [];
  // A thread that dies at it leaves a block that nothing is equal to and no delta builds on, not one that claims its old content.
  const inFlux = (block: number): void => held.set(block, OF_NO_CONTENT);
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
      else if (bytes) writer.write(block, bytes, hash, stable ? 'until flush' : 'for now');
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
