/**
 * The doctor's checks: what was found, whether that will do, and the mend. Each looks at this machine as it is.
 */
import { execFile } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { readFile, statfs } from 'node:fs/promises';
import { connect } from 'node:net';
import { promisify } from 'node:util';
import { connectClient, temporalTarget } from '../../control/connection';
import { messageOf } from '../../model/errors';
import { PROCESS_OPTIONS } from '../../model/options';
import { formatBytes, formatDuration, GIB, MIB } from '../../model/units';
import { whichTool } from '../demo/tools';

export interface Finding {
  readonly check: string;
  readonly state: 'ok' | 'warn' | 'fail';
  readonly found: string;
  readonly mend: string;
}

export interface CheckInput {
  readonly dataDir: string;
  readonly port: number;
  readonly peer: string | undefined;
}

/** 256 streams, their control connection, image files, and room for everything else. */
const WANTED_DESCRIPTORS = 1024;
const WANTED_BUFFER_BYTES = 4 * MIB;
const WANTED_FREE_BYTES = 10 * GIB;
const MAX_CLOCK_OFFSET_MS = 2_000;
const CONNECT_TIMEOUT_MS = 3_000;

export async function runChecks(input: CheckInput): Promise<Finding[]> {
  const [host, port] = (input.peer ?? '').split(':');
  const findings = [
    checkNode(),
    await checkDescriptors(),
    await checkBuffers('tcp_rmem', 'net.ipv4.tcp_rmem="4096 131072 16777216"'),
    await checkBuffers('tcp_wmem', 'net.ipv4.tcp_wmem="4096 65536 16777216"'),
    await checkCongestionControl(),
    await checkDisk(input.dataDir),
    checkTools(),
    await checkPort('this agent', '127.0.0.1', input.port, 'warn'),
  ];
  if (host) findings.push(await checkPort('peer', host, Number(port ?? PROCESS_OPTIONS.port.default), 'fail'));
  return [...findings, ...(await checkTemporal())];
}

function checkNode(): Finding {
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
  const enough = major > 20 || (major === 20 && minor >= 3);
  return {
    check: 'Node',
    state: enough ? 'ok' : 'fail',
    found: process.versions.node,
    mend: 'Install Node 24, or 20.3 or newer',
  };
}

async function checkDescriptors(): Promise<Finding> {
  const limits = await readFile('/proc/self/limits', 'utf8').catch(() => '');
  const limit = Number(/Max open files\s+(\d+)/.exec(limits)?.[1] ?? NaN);
  const state = Number.isNaN(limit) ? 'warn' : limit >= WANTED_DESCRIPTORS ? 'ok' : 'fail';
  return {
    check: 'file descriptors',
    state,
    found: `${limit} (256 streams want ${WANTED_DESCRIPTORS})`,
    mend: `ulimit -n ${WANTED_DESCRIPTORS * 8}, or LimitNOFILE=${WANTED_DESCRIPTORS * 8} in the agent’s unit`,
  };
}

async function checkBuffers(name: string, mend: string): Promise<Finding> {
  const text = await readFile(`/proc/sys/net/ipv4/${name}`, 'utf8').catch(() => '');
  const max = Number(text.trim().split(/\s+/)[2] ?? NaN);
  const state = Number.isNaN(max) ? 'warn' : max >= WANTED_BUFFER_BYTES ? 'ok' : 'warn';
  return {
    check: `TCP buffers (${name})`,
    state,
    found: Number.isNaN(max) ? 'unknown' : `up to ${formatBytes(max)}`,
    mend: `sysctl -w ${mend}: a stream may not carry more than its buffer each round trip`,
  };
}

async function checkCongestionControl(): Promise<Finding> {
  const name = (await readFile('/proc/sys/net/ipv4/tcp_congestion_control', 'utf8').catch(() => 'unknown')).trim();
  const available = (
    await readFile('/proc/sys/net/ipv4/tcp_available_congestion_control', 'utf8').catch(() => '')
  ).trim();
  const state = name.startsWith('bbr') ? 'ok' : 'warn';
  return {
    check: 'congestion control',
    state,
    found: `${name} (available: ${available})`,
    mend:
      'On links with loss one bbr stream carries what dozens of others do: sysctl -w ' +
      'net.ipv4.tcp_congestion_control=bbr. DWCP works without it, with more streams',
  };
}

async function checkDisk(dataDir: string): Promise<Finding> {
  try {
    mkdirSync(dataDir, { recursive: true, mode: 0o700 });
    const disk = await statfs(dataDir);
    const free = disk.bavail * disk.bsize;
    return {
      check: 'disk space',
      state: free >= WANTED_FREE_BYTES ? 'ok' : 'warn',
      found: `${formatBytes(free)} free under ${dataDir}`,
      mend: 'Free space, `dwcp baseline prune`, or another --data-dir: images arrive there',
    };
  } catch (error) {
    return {
      check: 'disk space',
      state: 'fail',
      found: messageOf(error),
      mend: 'Choose a --data-dir that can be written',
    };
  }
}

function checkTools(): Finding {
  const missing = [
    ['mkfs.ext4', 'e2fsprogs'],
    ['rsync', 'rsync'],
    ['zstd', 'zstd'],
  ].filter(([tool = '']) => whichTool(tool) === undefined);
  return {
    check: 'tools (demo and benches only)',
    state: missing.length === 0 ? 'ok' : 'warn',
    found: missing.length === 0 ? 'all there' : `missing: ${missing.map(([tool]) => tool).join(', ')}`,
    mend: `apt-get install -y ${missing.map(([, name]) => name).join(' ')}`,
  };
}

function checkPort(who: string, address: string, port: number, otherwise: Finding['state']): Promise<Finding> {
  const startedAt = performance.now();
  return new Promise((resolve) => {
    const socket = connect({ host: address, port });
    const settle = (state: Finding['state'], found: string): void => {
      clearTimeout(timer);
      socket.destroy();
      const mend =
        who === 'peer'
          ? `Start the agent on that host, open port ${port} in its firewall, check --listen-address`
          : 'Start it with `dwcp agent`, if this host should take part';
      resolve({ check: `data plane of ${who}`, state, found: `${address}:${port} ${found}`, mend });
    };
    const timer = setTimeout(() => settle(otherwise, 'does not answer'), CONNECT_TIMEOUT_MS);
    socket.once('connect', () => settle('ok', `answers in ${formatDuration(performance.now() - startedAt)}`));
    socket.once('error', (error) => settle(otherwise, error.message));
  });
}

/** The server, and with it the clock: workflows and agents compare times. */
async function checkTemporal(): Promise<Finding[]> {
  const { address, namespace } = temporalTarget();
  try {
    const client = await connectClient();
    await client.workflowService.describeNamespace({ namespace });
    await client.connection.close();
    return [
      { check: 'Temporal server', state: 'ok', found: `${address}, namespace ${namespace}`, mend: '' },
      await checkClock(),
    ];
  } catch (error) {
    const found = messageOf(error);
    return [
      { check: 'Temporal server', state: 'fail', found, mend: 'Set TEMPORAL_ADDRESS, or start one with `dwcp server`' },
      await checkClock(),
    ];
  }
}

async function checkClock(): Promise<Finding> {
  const mend = 'Synchronise the clock: timedatectl set-ntp true, or install chrony';
  const { stdout } = await promisify(execFile)('adjtimex', ['--print']).catch(() => ({ stdout: '' }));
  const offsetMs = Math.abs(Number(/offset:\s*(-?\d+)/.exec(stdout)?.[1] ?? NaN)) / 1000;
  if (!Number.isNaN(offsetMs))
    return {
      check: 'clock',
      state: offsetMs <= MAX_CLOCK_OFFSET_MS ? 'ok' : 'fail',
      found: `off by ${offsetMs.toFixed(1)} ms`,
      mend,
    };
  const synchronised = (
    await promisify(execFile)('timedatectl', ['show', '-p', 'NTPSynchronized', '--value']).catch(() => ({ stdout: '' }))
  ).stdout.trim();
  return {
    check: 'clock',
    state: synchronised === 'yes' ? 'ok' : 'warn',
    found: synchronised === 'yes' ? 'synchronised' : 'not known to be synchronised',
    mend,
  };
}
