/**
 * `npm run bench -- ram-image`: a guest's memory on its way into the RAM image file, written and compared on the main thread
 * (as the product does) and on a thread of its own: bytes a second, how busy the main thread is, how late its event loop.
 * Three passes over one file: first, the same again, a tenth changed; the two ways in turn, so that what else the machine
 * does meets both.
 */
import { once } from 'node:events';
import { closeSync, constants, mkdtempSync, openSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { Worker } from 'node:worker_threads';
import { GuestMemory } from '../src/hypervisor/qemu/guest-memory';
import { RamLayout } from '../src/model/guest';
import { PAGE_SIZE_BYTES } from '../src/model/image';
import { MIB } from '../src/model/units';
import { HEARS_NOTHING } from '../test/helpers/heard-memory';
import { numberOf } from './flags';
import type { RunJob } from './ram-image-worker';
import { type Row, report, say } from './report';

const BLOCK = 'ram';
/** What one read of QEMU's socket brings. */
const CHUNK_PAGES = 16;
const RUN_BYTES = 256 * 1024;
const RUNS_UNDER_WAY = 8;
const ROUNDS = 5;
const PASSES = ['first', 'same', 'a tenth changed'] as const;

/** Takes pages in, as GuestMemory does. */
interface Way {
  readonly name: string;
  /** Its thread, where it has one, is there. */
  ready(): Promise<unknown>;
  page(offset: number, content: Buffer): Promise<void> | undefined;
  passed(): Promise<void>;
  close(): Promise<void>;
}

function onMainThread(path: string, sizeBytes: number): Way {
  const memory = new GuestMemory(
    path,
    new RamLayout([{ id: BLOCK, usedBytes: sizeBytes }]),
    () => new Uint8Array(sizeBytes / PAGE_SIZE_BYTES).fill(1),
    new Uint8Array(sizeBytes / MIB / 16),
    HEARS_NOTHING,
  );
  return {
    name: 'main thread',
    ready: () => Promise.resolve(),
    page: (offset, content) => {
      memory.page(BLOCK, offset, content);
      return undefined;
    },
    passed: () => {
      memory.sectionEnded('part');
      return Promise.resolve();
    },
    close: () => {
      memory.close();
      return Promise.resolve();
    },
  };
}

/** The pages are copied to shared memory, a run at a time; what is asked for when all places are taken waits. */
class OwnThread implements Way {
  readonly name = 'thread of its own';
  readonly #fd: number;
  readonly #worker = new Worker(join(__dirname, 'ram-image-worker.js'));
  readonly #memory = new SharedArrayBuffer(RUNS_UNDER_WAY * RUN_BYTES);
  readonly #bytes = Buffer.from(this.#memory);
  readonly #blank: Uint8Array;
  #run = 0;
  #filled = 0;
  #position = 0;
  #underWay = 0;
  #onReply: (() => void) | undefined;

  constructor(path: string, sizeBytes: number) {
    this.#fd = openSync(path, constants.O_RDWR | constants.O_CREAT);
    this.#blank = new Uint8Array(sizeBytes / PAGE_SIZE_BYTES).fill(1);
    this.#worker.on('message', (written: readonly number[]) => {
      for (const page of written) this.#blank[page] = 0;
      this.#underWay -= 1;
      this.#onReply?.();
    });
  }

  ready(): Promise<unknown> {
    return once(this.#worker, 'online');
  }

  page(offset: number, content: Buffer): Promise<void> | undefined {
    if (this.#filled === 0) this.#position = offset;
    content.copy(this.#bytes, this.#run * RUN_BYTES + this.#filled);
    this.#filled += PAGE_SIZE_BYTES;
    return this.#filled === RUN_BYTES ? this.#hand() : undefined;
  }

  async passed(): Promise<void> {
    if (this.#filled > 0) await this.#hand();
    while (this.#underWay > 0) await this.#reply();
  }

  async close(): Promise<void> {
    await this.#worker.terminate();
    closeSync(this.#fd);
  }

  async #hand(): Promise<void> {
    const first = this.#position / PAGE_SIZE_BYTES;
    const job: RunJob = {
      fd: this.#fd,
      memory: this.#memory,
      offset: this.#run * RUN_BYTES,
      length: this.#filled,
      position: this.#position,
      blank: this.#blank.subarray(first, first + this.#filled / PAGE_SIZE_BYTES).every((page) => page === 1),
    };
    this.#worker.postMessage(job);
    this.#underWay += 1;
    this.#run = (this.#run + 1) % RUNS_UNDER_WAY;
    this.#filled = 0;
    // The place that comes next has to be free.
    while (this.#underWay >= RUNS_UNDER_WAY) await this.#reply();
  }

  #reply(): Promise<void> {
    return new Promise((resolve) => {
      this.#onReply = resolve;
    });
  }
}

/** One pass over the memory: a chunk a turn of the event loop, as a socket brings it. */
async function pass(way: Way, pages: number, contentOf: (page: number) => Buffer): Promise<Row> {
  const delay = monitorEventLoopDelay({ resolution: 1 });
  await new Promise((resolve) => setTimeout(resolve, 50));
  delay.enable();
  const [busy, startedAt] = [performance.eventLoopUtilization(), performance.now()];
  for (let page = 0; page < pages; ) {
    for (const end = Math.min(pages, page + CHUNK_PAGES); page < end; page += 1) {
      const waiting = way.page(page * PAGE_SIZE_BYTES, contentOf(page));
      if (waiting) await waiting;
    }
    await new Promise((resolve) => setImmediate(resolve));
  }
  await way.passed();
  const seconds = (performance.now() - startedAt) / 1000;
  const busyMs = performance.eventLoopUtilization(busy).active;
  delay.disable();
  const ms = (percentile: number): string => (delay.percentile(percentile) / 1e6 - 1).toFixed(1);
  return {
    name: way.name,
    seconds,
    rawBytes: pages * PAGE_SIZE_BYTES,
    bytesPerSecond: (pages * PAGE_SIZE_BYTES) / seconds,
    eventLoopP99Ms: delay.percentile(99) / 1e6 - 1,
    note: `main thread busy ${busyMs.toFixed(0)} ms; event loop late by p50 ${ms(50)}, p99 ${ms(99)}, at most ${ms(100)} ms`,
  };
}

export async function benchRamImage(json: boolean, args: readonly string[]): Promise<void> {
  const sizeBytes = (args.includes('--small') ? 64 : 512) * MIB;
  const pages = sizeBytes / PAGE_SIZE_BYTES;
  const contents = [0, 1].map((seed) =>
    Array.from({ length: 257 }, (_, index) => Buffer.alloc(PAGE_SIZE_BYTES, `${seed}/${index} `)),
  );
  const contentIn = (changed: boolean) => (page: number) =>
    contents[changed && page % 10 === 0 ? 1 : 0]?.[page % 257] ?? Buffer.alloc(PAGE_SIZE_BYTES);
  const folder = mkdtempSync(join(tmpdir(), 'dwcp-bench-ram-image-'));
  const rows: Row[] = [];
  try {
    for (let round = 0; round < (numberOf(args, '--rounds') ?? ROUNDS); round += 1)
      for (const own of round % 2 === 0 ? [false, true] : [true, false]) {
        const path = join(folder, 'ram');
        const way = own ? new OwnThread(path, sizeBytes) : onMainThread(path, sizeBytes);
        await way.ready();
        for (const name of PASSES) {
          const row = await pass(way, pages, contentIn(name === 'a tenth changed'));
          rows.push({ ...row, name: `${name}: ${row.name}` });
          say(`  ${name}: ${row.name}: ${((row.bytesPerSecond ?? 0) / 1e6).toFixed(0)} MB/s; ${row.note ?? ''}`);
        }
        await way.close();
        rmSync(path);
      }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  const kinds = [...new Set(rows.map(({ name }) => name))].sort();
  report(
    'ram-image',
    kinds.map((name) => medianOf(rows.filter((row) => row.name === name))),
    json,
    { rounds: rows.length / kinds.length },
  );
}

/** The run whose rate is the middle one. */
function medianOf(rows: readonly Row[]): Row {
  const sorted = [...rows].sort((a, b) => (a.bytesPerSecond ?? 0) - (b.bytesPerSecond ?? 0));
  const [row] = sorted.slice(Math.floor(sorted.length / 2));
  if (!row) throw new Error('no rows');
  return row;
}
