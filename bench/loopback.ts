/**
 * `npm run bench -- loopback`: incompressible data between two agents of this machine, with verification, through the
 * whole flow. What is measured is the transfer itself, first question to verified root; on a tmpfs, and on the disk,
 * whose own speed stands beside it; and what iperf3 does without files and hashes.
 */
import { execFileSync } from 'node:child_process';
import { randomBytes, randomFillSync } from 'node:crypto';
import { closeSync, existsSync, mkdirSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { Children } from '../src/cli/demo/children';
import { sha256OfFile } from '../src/cli/demo/sample-vm';
import { findTool } from '../src/cli/demo/tools';
import { GIB, MIB } from '../src/model/units';
import { type Row, report, say } from './report';
import { cpuSeconds, Stage } from './stage';

const RUNS = 5;

export async function benchLoopback(json: boolean, args: readonly string[]): Promise<void> {
  const sizeBytes = args.includes('--small') ? GIB / 4 : 2 * GIB;
  const rows: Row[] = [];
  if (existsSync('/dev/shm')) {
    rows.push(await measure('dwcp loopback tmpfs', '/dev/shm', sizeBytes));
    // Beside it what the proof of who is there and the encryption cost.
    rows.push(await measure('dwcp loopback tmpfs plain', '/dev/shm', sizeBytes, ['--insecure-data-plane']));
  }
  if (!args.includes('--memory-only'))
    rows.push(await measure('dwcp loopback disk', tmpdir(), sizeBytes), diskAlone(sizeBytes), ...(await iperf3Rows()));
  report('loopback', rows, json, facts(sizeBytes));
}

function facts(sizeBytes: number): Readonly<Record<string, string | number>> {
  return { runs: RUNS, image: `${sizeBytes} random bytes`, cores: 'as the host has' };
}

async function measure(
  name: string,
  parent: string,
  sizeBytes: number,
  agentArgs: readonly string[] = [],
): Promise<Row> {
  const stage = new Stage({ name: 'loopback', parent, agentArgs });
  try {
    await stage.start();
    const path = join(stage.folder, 'vms', 'disk.img');
    mkdirSync(dirname(path), { recursive: true });
    writeRandom(path, sizeBytes);
    // Memory that a virtual machine has never touched is slow to get, and the measurement is not of that.
    writeRandom(`${path}.warm-up`, sizeBytes);
    rmSync(`${path}.warm-up`);
    const hash = await sha256OfFile(path);
    const seconds: number[] = [];
    const cpu: number[] = [];
    let verified = true;
    for (let run = 0; run < RUNS; run += 1) {
      const vmId = `loop-${run}`;
      await stage.defineVm(vmId, stage.a, [{ imageId: 'vda', kind: 'disk', path }]);
      const before = cpuSeconds(stage.agents.get(stage.a.hostId)) + cpuSeconds(stage.agents.get(stage.b.hostId));
      const result = await stage.migrate(vmId, stage.a, stage.b, { bandwidthLimit: 0 });
      cpu.push(cpuSeconds(stage.agents.get(stage.a.hostId)) + cpuSeconds(stage.agents.get(stage.b.hostId)) - before);
      seconds.push(result.images[0]?.seconds ?? Infinity);
      say(
        `  ${name}: ${(result.images[0]?.seconds ?? 0).toFixed(2)} s, ${result.images[0]?.streams ?? 0} streams, level ` +
          `${result.images[0]?.level ?? 0}, batches of ${result.images[0]?.batchBytes ?? 0}`,
      );
      verified &&= (await sha256OfFile(stage.imageOnB(vmId, 'vda'))) === hash;
      rmSync(stage.imageOnB(vmId, 'vda'));
      execFileSync('mv', [`${path}.dwcp-baseline`, path]);
    }
    const median = [...seconds].sort((a, b) => a - b)[RUNS >> 1] ?? Infinity;
    const medianCpu = [...cpu].sort((a, b) => a - b)[RUNS >> 1] ?? 0;
    return {
      name,
      seconds: median,
      rawBytes: sizeBytes,
      bytesPerSecond: sizeBytes / median,
      cpuSecondsPerGb: medianCpu / (sizeBytes / 1e9),
      verified,
    };
  } finally {
    await stage.stop();
  }
}

export function writeRandom(path: string, sizeBytes: number): void {
  const fd = openSync(path, 'w');
  const part = Buffer.alloc(16 * MIB);
  for (let at = 0; at < sizeBytes; at += part.length)
    writeSync(fd, randomFillSync(part), 0, Math.min(part.length, sizeBytes - at), at);
  closeSync(fd);
}

/** What the kernel's own TCP does with memory that stays in the cache, unverified: both ends on one core, and on one each. */
async function iperf3Rows(): Promise<Row[]> {
  const folder = mkdtempSync(join(tmpdir(), 'dwcp-bench-iperf3-'));
  const children = new Children(folder);
  try {
    if ((await findTool('iperf3', 'iperf3', children, say)) === undefined) return [];
    const run = async (name: string, prefix: readonly string[]): Promise<Row> => {
      const [command, ...rest] = [...prefix, 'iperf3'];
      const server = children.start('iperf3-server', command, [...rest, '-s', '-1', '-p', '5299']);
      await new Promise((resolve) => setTimeout(resolve, 500));
      const report = JSON.parse(
        execFileSync(command, [...rest, '-c', '127.0.0.1', '-p', '5299', '-t', '5', '-J'], { encoding: 'utf8' }),
      ) as { end: { sum_received: { bits_per_second: number } } };
      await server.ended;
      return { name, bytesPerSecond: report.end.sum_received.bits_per_second / 8 };
    };
    return [await run('iperf3 x1 one core', ['taskset', '-c', '0']), await run('iperf3 x1', [])];
  } finally {
    await children.stopAll();
    rmSync(folder, { recursive: true, force: true });
  }
}

/** What the disk alone takes: the same bytes written once and synced. */
function diskAlone(sizeBytes: number): Row {
  const path = join(tmpdir(), `dwcp-disk-${process.pid}`);
  const part = randomBytes(16 * MIB);
  const startedAt = performance.now();
  const fd = openSync(path, 'w');
  for (let at = 0; at < sizeBytes; at += part.length) writeSync(fd, part, 0, part.length, at);
  execFileSync('sync', ['-d', path]);
  closeSync(fd);
  const seconds = (performance.now() - startedAt) / 1000;
  rmSync(path);
  return { name: 'disk alone', seconds, rawBytes: sizeBytes, bytesPerSecond: sizeBytes / seconds };
}
