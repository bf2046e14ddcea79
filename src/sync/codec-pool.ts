/**
 * The worker threads of an agent and the line of jobs before them. A job goes to the thread with the fewest; a thread
 * that dies fails its jobs and is replaced.
 */
import { join } from 'node:path';
import { availableParallelism } from 'node:os';
import { Worker } from 'node:worker_threads';
import { DwcpError, fromReport, type ErrorReport, messageOf } from '../model/errors';
import type { CodecJob, CodecJobs, CodecResult } from './codec-jobs';

interface Pending {
  readonly job: CodecJob;
  readonly resolve: (result: CodecResult) => void;
  readonly reject: (error: DwcpError) => void;
}

interface Lane {
  worker: Worker;
  readonly jobs: Map<number, Pending>;
}

/** A second job in a thread's line hides the time that messages take. */
const JOBS_PER_LANE = 2;

type Reply = { readonly id: number } & ({ readonly result: CodecResult } | { readonly error: ErrorReport });

export class CodecPool {
  readonly threads: number;
  readonly #lanes: Lane[] = [];
  readonly #waiting: Pending[] = [];
  #nextId = 1;
  #closed = false;

  /** @param threads 0 takes one a processor */
  constructor(threads: number) {
    this.threads = threads > 0 ? threads : availableParallelism();
    for (let lane = 0; lane < this.threads; lane += 1) this.#lanes.push(this.#open());
  }

  /** @throws the coded error of the job; INTERNAL where its thread died */
  run<K extends keyof CodecJobs>(job: CodecJobs[K]['job'] & { readonly kind: K }): Promise<CodecJobs[K]['result']> {
    if (this.#closed) return Promise.reject(new DwcpError('SUPERSEDED', 'The agent stops'));
    return new Promise((resolve, reject) => {
      this.#waiting.push({ job, resolve, reject });
      this.#dispatch();
    });
  }

  async close(): Promise<void> {
    this.#closed = true;
    await Promise.all(this.#lanes.map((lane) => lane.worker.terminate()));
    const error = new DwcpError('SUPERSEDED', 'The agent stops');
    for (const pending of [...this.#waiting.splice(0), ...this.#lanes.flatMap((lane) => [...lane.jobs.values()])]) pending.reject(error);
  }

  #open(): Lane {
    const lane: Lane = { worker: this.#start(), jobs: new Map() };
    this.#listen(lane);
    return lane;
  }

  #start(): Worker {
    const worker = new Worker(join(__dirname, 'codec-worker.js'), { resourceLimits: { maxYoungGenerationSizeMb: 8, maxOldGenerationSizeMb: 128 } });
    worker.unref();
    return worker;
  }

  #listen(lane: Lane): void {
    lane.worker.on('message', (reply: Reply) => this.#settle(lane, reply));
    lane.worker.on('error', (error) => this.#replace(lane, error));
  }

  #settle(lane: Lane, reply: Reply): void {
    const pending = lane.jobs.get(reply.id);
    lane.jobs.delete(reply.id);
    if (lane.jobs.size === 0) lane.worker.unref();
    if ('error' in reply) pending?.reject(fromReport(reply.error));
    else pending?.resolve(reply.result);
    this.#dispatch();
  }

  #replace(lane: Lane, error: unknown): void {
    if (this.#closed) return;
    const reason = new DwcpError('INTERNAL', `A worker thread died: ${messageOf(error)}`, { cause: error });
    const lost = [...lane.jobs.values()];
    lane.jobs.clear();
    lane.worker = this.#start();
    this.#listen(lane);
    for (const pending of lost) pending.reject(reason);
  }

  #dispatch(): void {
    while (this.#waiting.length > 0) {
      const lane = this.#lanes.reduce((best, next) => (next.jobs.size < best.jobs.size ? next : best));
      if (lane.jobs.size >= JOBS_PER_LANE) return;
      const pending = this.#waiting.shift();
      if (!pending) return;
      const id = this.#nextId++;
      lane.jobs.set(id, pending);
      lane.worker.ref();
      lane.worker.postMessage({ id, job: pending.job });
    }
  }
}
