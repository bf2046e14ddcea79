/**
 * The standard transfer's extents: a piece of a file to a sealed frame, and back. The layout: extent-format.ts.
 */
import { HASH_BYTES, writeBlockHash } from '../../encoder/hash';
import { DwcpError } from '../../model/errors';
import { BLOCK_SIZE_BYTES, blockCount } from '../../model/image';
import { Manifest } from '../../store/manifest';
import { HEADER_BYTES, sealFrame } from '../../transport/frame';
import { blocksInMemory, clearRange, readFully, writeFully } from './block-io';
import type { ReadExtentJob, WriteExtentJob } from './codec-jobs';
import { EXTENT_META_BYTES, readExtentMeta, sha256, writeExtentMeta } from './extent-format';

export function readExtent(job: ReadExtentJob): { frameBytes: number } {
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

export function writeExtent(job: WriteExtentJob): { end: number } {
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
