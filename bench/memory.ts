/**
 * `npm run bench -- memory`: peak resident memory of both agents at 64 streams, for an image of 512 MiB and one of 4 GiB.
 */
import { mkdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { makeDiskImage } from '../src/cli/demo/sample-vm';
import { findTool } from '../src/cli/demo/tools';
import { formatBytes, GIB, MIB } from '../src/model/units';
import { report, type Row, say } from './report';
import { peakRssBytes, Stage } from './stage';

const STREAMS = 64;

export async function benchMemory(json: boolean, args: readonly string[]): Promise<void> {
  const sizes = args.includes('--small') ? [64 * MIB, 256 * MIB] : [512 * MIB, 4 * GIB];
  const rows: Row[] = [];
  for (const sizeBytes of sizes) rows.push(...(await measure(sizeBytes)));
  report('memory', rows, json, { streams: STREAMS });
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
    const result = await stage.migrate('rss', stage.a, stage.b, { bandwidthLimit: 0, minStreams: STREAMS, initialStreams: STREAMS, maxStreams: STREAMS });
    const seconds = result.images[0]?.seconds ?? 0;
    return [stage.a, stage.b].map(({ hostId }, index) => ({
      name: `dwcp ${index === 0 ? 'source' : 'destination'} ${formatBytes(sizeBytes)}`, seconds, rawBytes: sizeBytes,
      peakRssBytes: peakRssBytes(stage.agents.get(hostId)), note: `${result.images[0]?.streams ?? 0} streams`,
    }));
  } finally {
    await stage.stop();
  }
}
