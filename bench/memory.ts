/**
 * `npm run bench -- memory`: peak resident memory of both agents at 64 streams, for an image of 512 MiB and one of 4 GiB; and with
 * 32 GiB of baselines, sparse, that go there, change, and come back with copies kept on both sides.
 */
import { randomFillSync } from 'node:crypto';
import { closeSync, existsSync, ftruncateSync, mkdirSync, openSync, writeSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { makeDiskImage } from '../src/cli/demo/sample-vm';
import { findTool } from '../src/cli/demo/tools';
import { BLOCK_SIZE_BYTES } from '../src/model/image';
import { formatBytes, GIB, MIB } from '../src/model/units';
import { baselinePathOf } from '../src/store/baselines';
import { type Row, report, say } from './report';
import { peakRssBytes, Stage } from './stage';

const STREAMS = 64;
const BASELINE_BYTES = 32 * GIB;

export async function benchMemory(json: boolean, args: readonly string[]): Promise<void> {
  const sizes = args.includes('--small') ? [64 * MIB, 256 * MIB] : [512 * MIB, 4 * GIB];
  const rows: Row[] = [];
  for (const sizeBytes of sizes) rows.push(...(await measure(sizeBytes)));
  if (!args.includes('--small')) rows.push(...(await withBaselines()));
  report('memory', rows, json, { streams: STREAMS });
}

/** A block of noise in every 64th, moved there and back; some of them change meanwhile. */
async function withBaselines(): Promise<Row[]> {
  const stage = new Stage({ name: 'baselines', agentArgs: ['--keep-baseline-copy', 'auto'] });
  const name = `${formatBytes(BASELINE_BYTES)} of baselines`;
  try {
    await stage.start();
    const path = join(stage.folder, 'vms', 'disk.img');
    mkdirSync(dirname(path), { recursive: true });
    writeSparse(path, 'w', 64);
    await stage.defineVm('base', stage.a, [{ imageId: 'vda', kind: 'disk', path }]);
    const there = await stage.migrate('base', stage.a, stage.b, { bandwidthLimit: 0 });
    const onB = stage.imageOnB('base', 'vda');
    for (const deadline = Date.now() + 300_000; !existsSync(baselinePathOf(onB)) && Date.now() < deadline; )
      await new Promise((resolve) => setTimeout(resolve, 200));
    writeSparse(onB, 'r+', 640);
    const back = await stage.migrate('base', stage.b, stage.a, { bandwidthLimit: 0 });
    const seconds = (there.images[0]?.seconds ?? 0) + (back.images[0]?.seconds ?? 0);
    return [stage.a, stage.b].map(({ hostId }) => ({
      name: `dwcp ${hostId} ${name}`,
      seconds,
      rawBytes: BASELINE_BYTES,
      linkBytes: back.linkBytes,
      peakRssBytes: peakRssBytes(stage.agents.get(hostId)),
      note: 'time of both ways, bytes of the way back',
    }));
  } finally {
    await stage.stop();
  }
}

function writeSparse(path: string, flags: 'w' | 'r+', every: number): void {
  const fd = openSync(path, flags);
  ftruncateSync(fd, BASELINE_BYTES);
  for (let block = 0; block < BASELINE_BYTES / BLOCK_SIZE_BYTES; block += every)
    writeSync(fd, randomFillSync(Buffer.alloc(BLOCK_SIZE_BYTES)), 0, BLOCK_SIZE_BYTES, block * BLOCK_SIZE_BYTES);
  closeSync(fd);
}

/** Agents of their own for each size: a peak is for life. */
async function measure(sizeBytes: number): Promise<Row[]> {
  const stage = new Stage({ name: 'memory' });
  try {
    await stage.start();
    const path = join(stage.folder, 'vms', 'disk.img');
    mkdirSync(dirname(path), { recursive: true });
    await makeDiskImage(path, sizeBytes, stage.children, await findTool('mkfs.ext4', 'e2fsprogs', stage.children, say));
    await stage.defineVm('rss', stage.a, [{ imageId: 'vda', kind: 'disk', path }]);
    const result = await stage.migrate('rss', stage.a, stage.b, {
      bandwidthLimit: 0,
      minStreams: STREAMS,
      initialStreams: STREAMS,
      maxStreams: STREAMS,
    });
    const seconds = result.images[0]?.seconds ?? 0;
    return [stage.a, stage.b].map(({ hostId }, index) => ({
      name: `dwcp ${index === 0 ? 'source' : 'destination'} ${formatBytes(sizeBytes)}`,
      seconds,
      rawBytes: sizeBytes,
      peakRssBytes: peakRssBytes(stage.agents.get(hostId)),
      note: `${result.images[0]?.streams ?? 0} streams`,
    }));
  } finally {
    await stage.stop();
  }
}
