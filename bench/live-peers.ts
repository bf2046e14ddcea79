/**
 * QEMU's own live migration between the two hosts of the link: plain, with its delta coding (xbzrle), multifd, multifd
 * with zstd; with the disk through drive-mirror over NBD first. Driven over QMP as libvirt drives it.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, existsSync, mkdirSync, openSync } from 'node:fs';
import { join } from 'node:path';
import { QmpClient } from '../src/hypervisor/qemu/qmp-client';
import { MIB } from '../src/model/units';
import type { WanLink } from './wan-link';

export type PeerKind = 'qemu tcp' | 'qemu xbzrle' | 'qemu multifd' | 'qemu multifd+zstd';

const CHANNELS = 16;
/** As much as DWCP keeps of versions sent before. */
const XBZRLE_CACHE_BYTES = 64 * MIB;
const PORT = 4444;
const NBD_PORT = 10_809;
/** Longer than any of these takes. */
const LIMIT_MS = 900_000;

export interface LiveGuest {
  readonly process: ChildProcess;
  readonly qmp: QmpClient;
}

/** A guest's QEMU within a namespace. */
export async function startBenchGuest(
  folder: string,
  name: string,
  command: readonly string[],
  prefix: readonly string[],
  extra: readonly string[] = [],
): Promise<LiveGuest> {
  mkdirSync(folder, { recursive: true });
  const qmpPath = join(folder, `${name}.qmp`);
  const log = openSync(join(folder, `${name}.log`), 'w');
  const [program = '', ...args] = [
    ...prefix,
    ...command,
    '-monitor',
    'none',
    '-qmp',
    `unix:${qmpPath},server=on,wait=off`,
    ...extra,
  ];
  const child = spawn(program, args, { stdio: ['ignore', log, log] });
  closeSync(log);
  for (
    const deadline = Date.now() + 20_000;
    !existsSync(qmpPath);
    await new Promise((resolve) => setTimeout(resolve, 20))
  ) {
    if (Date.now() > deadline || child.exitCode !== null)
      throw new Error(`QEMU does not start; see ${folder}/${name}.log`);
  }
  return { process: child, qmp: await QmpClient.connect(qmpPath) };
}

/** Moves a guest by QEMU's own means. @returns seconds from the first command to the guest's run, and its downtime */
export async function moveByQemu(
  kind: PeerKind,
  link: WanLink,
  source: LiveGuest,
  destination: LiveGuest,
  withDisk: boolean,
): Promise<{ seconds: number; downtimeMs: number }> {
  const multifd = kind === 'qemu multifd' || kind === 'qemu multifd+zstd';
  const zstd = kind === 'qemu multifd+zstd';
  for (const { qmp } of [source, destination]) {
    if (!multifd) continue;
    await qmp.execute('migrate-set-capabilities', { capabilities: [{ capability: 'multifd', state: true }] });
    await qmp.execute('migrate-set-parameters', {
      'multifd-channels': CHANNELS,
      ...(zstd && { 'multifd-compression': 'zstd' }),
    });
  }
  if (kind === 'qemu xbzrle') {
    await source.qmp.execute('migrate-set-capabilities', { capabilities: [{ capability: 'xbzrle', state: true }] });
    await source.qmp.execute('migrate-set-parameters', { 'xbzrle-cache-size': XBZRLE_CACHE_BYTES });
  }
  await source.qmp.execute('migrate-set-capabilities', { capabilities: [{ capability: 'events', state: true }] });
  await source.qmp.execute('migrate-set-parameters', { 'max-bandwidth': 2 ** 40 });
  const startedAt = Date.now();
  if (withDisk) await mirrorDisk(link, source, destination);
  const uri = `tcp:${link.b.address}:${PORT}`;
  await destination.qmp.execute('migrate-incoming', { uri });
  const stopped = source.qmp.event('the guest’s stop', ({ name }) => name === 'STOP', LIMIT_MS);
  const resumed = destination.qmp.event('the guest’s run', ({ name }) => name === 'RESUME', LIMIT_MS);
  if (withDisk)
    await source.qmp.execute('migrate-set-capabilities', {
      capabilities: [{ capability: 'pause-before-switchover', state: true }],
    });
  const ready = withDisk
    ? source.qmp.event(
        'pre-switchover',
        ({ name, data }) => name === 'MIGRATION' && data.status === 'pre-switchover',
        LIMIT_MS,
      )
    : undefined;
  await source.qmp.execute('migrate', { uri });
  if (ready) {
    await ready;
    const ended = source.qmp.event('the end of the mirror', ({ name }) => name === 'BLOCK_JOB_COMPLETED', LIMIT_MS);
    await source.qmp.execute('block-job-cancel', { device: 'mirror' });
    await ended;
    await source.qmp.execute('migrate-continue', { state: 'pre-switchover' });
  }
  const [stop, resume] = await Promise.all([stopped, resumed]);
  return { seconds: (resume.atMs - startedAt) / 1000, downtimeMs: resume.atMs - stop.atMs };
}

async function mirrorDisk(link: WanLink, source: LiveGuest, destination: LiveGuest): Promise<void> {
  const device = 'virtio0';
  await destination.qmp.execute('nbd-server-start', {
    addr: { type: 'inet', data: { host: link.b.address, port: String(NBD_PORT) } },
  });
  await destination.qmp.execute('nbd-server-add', { device, writable: true });
  const ready = source.qmp.event('the mirror', ({ name }) => name === 'BLOCK_JOB_READY', LIMIT_MS);
  await source.qmp.execute('drive-mirror', {
    device,
    'job-id': 'mirror',
    target: `nbd:${link.b.address}:${NBD_PORT}:exportname=${device}`,
    sync: 'full',
    format: 'raw',
    mode: 'existing',
  });
  await ready;
}

export async function endGuest({ qmp, process: child }: LiveGuest): Promise<void> {
  await qmp.execute('quit').catch(() => undefined);
  qmp.close();
  if (child.exitCode === null)
    await new Promise<void>((resolve) => {
      child.once('close', () => resolve());
      setTimeout(() => {
        child.kill('SIGKILL');
        resolve();
      }, 5000);
    });
}
