/**
 * The body of a worker thread: takes one job at a time, does it synchronously, answers. Hashing, compressing and the I/O
 * of images happen here, so that the main thread stays free for sockets and heartbeats. One exception: a running guest's RAM
 * image is compared and written where its stream is read, by guest-memory.ts, which says what that costs.
 */
import { parentPort } from 'node:worker_threads';
import { errnoOf, toDwcpError } from '../../model/errors';
import { yieldToOtherThreads } from '../../store/system-calls';
import { type CodecJob, type CodecResult, LOADED } from './codec-jobs';
import { decode } from './decode-job';
import { encode, index } from './encode-job';
import { readExtent, writeExtent } from './extent-jobs';
import { blockHashes, copy, dictionaryGain, measure, pageDigests, recall, root, sample, seal } from './file-jobs';

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
    case 'pageDigests':
      return pageDigests(job);
    case 'blockHashes':
      return blockHashes(job);
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

parentPort?.postMessage(LOADED);

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
