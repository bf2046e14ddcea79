/**
 * `npm run bench -- event-loop`: how late the main thread's event loop is while all worker threads compress a real image
 * at level 9, in a process with the agent's own pool. What is late there makes heartbeats and counters late.
 */
import { closeSync, mkdtempSync, openSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { Children } from '../src/cli/demo/children';
import { makeDiskImage } from '../src/cli/demo/sample-vm';
import { findTool } from '../src/cli/demo/tools';
import { BLOCK_SIZE_BYTES, blockCount } from '../src/model/image';
import { MIB } from '../src/model/units';
import { Manifest } from '../src/store/manifest';
import { CodecPool } from '../src/sync/codec/codec-pool';
import { Slab } from '../src/transport/slab';
import { type Row, report, say } from './report';

const BATCH_BLOCKS = 4;
const SETTINGS = { compress: true, level: 9, delta: true, deltaThreshold: 0.7 };

export async function benchEventLoop(json: boolean, args: readonly string[]): Promise<void> {
  const sizeBytes = (args.includes('--small') ? 64 : 256) * MIB;
  const folder = mkdtempSync(join(tmpdir(), 'dwcp-bench-event-loop-'));
  const children = new Children(join(folder, 'logs'));
  const path = join(folder, 'disk.img');
  try {
    await makeDiskImage(path, sizeBytes, children, await findTool('mkfs.ext4', 'e2fsprogs', children, say));
    report('event-loop', [await compress(path, sizeBytes)], json, { level: SETTINGS.level });
  } finally {
    await children.stopAll();
    rmSync(folder, { recursive: true, force: true });
  }
}

async function compress(path: string, sizeBytes: number): Promise<Row> {
  const pool = new CodecPool(0);
  const slab = new Slab(64 * MIB);
  const source = new Manifest(sizeBytes);
  const held = new Manifest(sizeBytes);
  const fd = openSync(path, 'r');
  const blocks = blockCount(sizeBytes);
  let next = 0;
  let payloadBytes = 0;
  const lane = async (): Promise<void> => {
    while (next < blocks) {
      const first = next;
      next += BATCH_BLOCKS;
      const run = slab.take((BATCH_BLOCKS + 1) * BLOCK_SIZE_BYTES);
      if (!run) throw new Error('the slab is too small for the lanes');
      const result = await pool.run({
        kind: 'encode',
        file: { fd, sizeBytes },
        blocks: { first, count: Math.min(BATCH_BLOCKS, blocks - first) },
        plain: false,
        source: source.memory,
        held: held.memory,
        pages: 'send',
        settings: SETTINGS,
        imageNumber: 1,
        sequence: first,
        out: { memory: slab.memory, offset: run.offset, length: run.bytes.length },
      });
      payloadBytes += result.payloadBytes;
      slab.free(run);
    }
  };
  const delay = monitorEventLoopDelay({ resolution: 5 });
  delay.enable();
  const startedAt = performance.now();
  await Promise.all(Array.from({ length: 4 * pool.threads }, lane));
  const seconds = (performance.now() - startedAt) / 1000;
  delay.disable();
  closeSync(fd);
  await pool.close();
  const ms = (percentile: number): string => `${(delay.percentile(percentile) / 1e6).toFixed(1)} ms`;
  return {
    name: 'level 9',
    seconds,
    rawBytes: sizeBytes,
    ratio: sizeBytes / payloadBytes,
    bytesPerSecond: sizeBytes / seconds,
    eventLoopP99Ms: delay.percentile(99) / 1e6,
    note: `event loop late by p50 ${ms(50)}, p99 ${ms(99)}, at most ${ms(100)}; ${pool.threads} worker threads`,
  };
}
