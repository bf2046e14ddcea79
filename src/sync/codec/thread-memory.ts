/**
 * The memory of one worker thread: what blocks are read into. Module state by design: a thread takes one job at a time, and
 * nothing of it outlives a job.
 */
import { MAX_BATCH_BLOCKS } from '../../encoder/batch-format';
import { PAGE_HASH_BYTES } from '../../encoder/hash';
import { BLOCK_SIZE_BYTES, PAGES_PER_BLOCK } from '../../model/image';

export const REGION_BYTES = MAX_BATCH_BLOCKS * BLOCK_SIZE_BYTES;
export const region = Buffer.allocUnsafeSlow(REGION_BYTES);
export const PAGE_HASHES_PER_BLOCK = PAGES_PER_BLOCK * PAGE_HASH_BYTES;
