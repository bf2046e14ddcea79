/**
 * Batches as they come off the wire, made here: for tests of what takes them in.
 */
import { BatchEncoder, encodedBound } from '../../src/encoder/batch-encoder';
import { blockHash } from '../../src/encoder/hash';
import { buildFrame, type Frame, openFrame, readHeader } from '../../src/transport/frame';

/** A checked BATCH frame with these blocks in full. @param sequence of two versions of a block the later one is newer */
export function batchOf(sequence: number, contents: Readonly<Record<number, Buffer>>): Frame {
  const blocks = Object.entries(contents).map(([block, bytes]) => ({
    block: Number(block),
    bytes,
    hash: blockHash(bytes),
  }));
  const out = Buffer.alloc(encodedBound(blocks.length));
  const { metaBytes, payloadBytes } = new BatchEncoder().encode(
    0,
    blocks,
    { compress: true, level: 1, delta: false, deltaThreshold: 0.7 },
    out,
  );
  const frame = Buffer.from(
    buildFrame('batch', sequence, out.subarray(0, metaBytes), out.subarray(metaBytes, metaBytes + payloadBytes)),
  );
  return openFrame(readHeader(frame, new Set(['batch'])), frame);
}
