/**
 * The worker threads of an agent and the line of jobs before them. A job goes to the thread with the fewest. Where a thread
 * dies its jobs go to another: doing one twice does no harm, and most died for no fault of theirs. The one that was at work is
 * given a second thread only: what kills two would kill all, one after the other.
 */
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { DwcpError, type ErrorReport, fromReport, messageOf, toDwcpError } from '../../model/errors';
import { wait } from '../../system/wait';
import { type CodecJob, type CodecJobs, type CodecResult, LOADED } from './codec-jobs';

interface Pending {
  readonly job: CodecJob;
  readonly resolve: (result: CodecResult) => void;
  readonly reject: (error: DwcpError) => void;
  /** Threads that have died at it. */
  deaths: number;
}

interface Lane {
  /** Started when there is something to do: one that dies at once must not be started over and over. */
  worker: Worker | undefined;
  /** Resolves once its thread has loaded all that it runs, or has ended. */
  loaded: Promise<void>;
  /** In the order in which the thread does them. */
  readonly jobs: Map<number, Pending>;
}

/** A second job in a thread's line hides the time that messages take. */
const JOBS_PER_LANE = 2;
const MOST_DEATHS = 2;

const WORKER = join(__dirname, 'codec-worker.js');

const LOADED_WITHIN_MS = 5_000;

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
    for (let lane = 0; lane < this.threads; lane += 1)
      this.#lanes.push({ worker: undefined, loaded: Promise.resolve(), jobs: new Map() });
    for (const lane of this.#lanes) this.#start(lane);
  }

  /** @throws the coded error of the job; ENCODER_FAILED or INTERNAL where two threads died at it */
  run<K extends keyof CodecJobs>(job: CodecJobs[K]['job'] & { readonly kind: K }): Promise<CodecJobs[K]['result']> {
    if (this.#closed) return Promise.reject(new DwcpError('SUPERSEDED', 'The agent stops'));
    return new Promise((resolve, reject) => {
      this.#waiting.push({ job, resolve, reject, deaths: 0 });
      this.#dispatch();
    });
  }

  async close(): Promise<void> {
    this.#closed = true;
    // A thread that is ended while it loads an add-on takes the whole process with it (napi_throw in koffi).
    const late = new AbortController();
    const patience = wait(LOADED_WITHIN_MS, late.signal).catch(() => undefined);
    await Promise.race([patience, Promise.all(this.#lanes.map(({ loaded }) => loaded))]);
    late.abort();
    await Promise.all(this.#lanes.map(async (lane) => lane.worker?.terminate()));
    const error = new DwcpError('SUPERSEDED', 'The agent stops');
    for (const pending of [...this.#waiting.splice(0), ...this.#lanes.flatMap((lane) => [...lane.jobs.values()])])
      pending.reject(error);
  }

  #start(lane: Lane): Worker {
    const worker = new Worker(WORKER, { resourceLimits: { maxYoungGenerationSizeMb: 8, maxOldGenerationSizeMb: 128 } });
    worker.unref();
    let reason: unknown = 'it ended';
    let isLoaded = (): void => undefined;
    lane.loaded = new Promise((resolve) => (isLoaded = resolve));
    worker.on('message', (reply: Reply | typeof LOADED) => (reply === LOADED ? isLoaded() : this.#settle(lane, reply)));
    worker.on('error', (error) => (reason = error));
    // Behind the error: by then every reply that it still gave has been heard.
    worker.on('exit', () => {
      isLoaded();
      this.#buried(lane, reason);
    });
    lane.worker = worker;
    return worker;
  }

  #settle(lane: Lane, reply: Reply): void {
    const pending = lane.jobs.get(reply.id);
    lane.jobs.delete(reply.id);
    if (lane.jobs.size === 0) lane.worker?.unref();
    if ('error' in reply) pending?.reject(fromReport(reply.error));
    else pending?.resolve(reply.result);
    this.#dispatch();
  }

  #buried(lane: Lane, reason: unknown): void {
    lane.worker = undefined;
    if (this.#closed) return;
    const [first, ...rest] = lane.jobs.values();
    lane.jobs.clear();
    this.#waiting.unshift(...rest);
    if (first) {
      first.deaths += 1;
      if (first.deaths < MOST_DEATHS) this.#waiting.unshift(first);
      else first.reject(fatal(first.job, reason));
    }
    this.#dispatch();
  }

  #dispatch(): void {
    while (this.#waiting.length > 0) {
      const lane = this.#lanes.reduce((best, next) => (next.jobs.size < best.jobs.size ? next : best));
      if (lane.jobs.size >= JOBS_PER_LANE) return;
      const pending = this.#waiting.shift();
      if (!pending) return;
      const id = this.#nextId++;
      const worker = lane.worker ?? this.#start(lane);
      lane.jobs.set(id, pending);
      worker.ref();
      try {
        worker.postMessage({ id, job: pending.job });
      } catch (error) {
        lane.jobs.delete(id);
        pending.reject(toDwcpError(error, 'INTERNAL'));
      }
    }
  }
}

/** Only what the codec itself does may be done by the standard transfer instead. */
function fatal({ kind }: CodecJob, cause: unknown): DwcpError {
  const code = kind === 'encode' || kind === 'decode' ? 'ENCODER_FAILED' : 'INTERNAL';
  return new DwcpError(code, `${MOST_DEATHS} worker threads died at the same job (${kind}): ${messageOf(cause)}`, {
    cause,
  });
}
