/**
 * The doctor's checks: what was found, whether that will do, and the mend. Each looks at this machine as it is.
 */
import { execFile } from 'node:child_process';
import { X509Certificate } from 'node:crypto';
import { existsSync, mkdirSync } from 'node:fs';
import { readFile, statfs } from 'node:fs/promises';
import { connect } from 'node:net';
import { userInfo } from 'node:os';
import { promisify } from 'node:util';
import { connectClient, temporalTarget } from '../../control/connection';
import { chooseGuestUser, GUEST_USER_MEND, mayUse } from '../../hypervisor/qemu/guest-user';
import { messageOf } from '../../model/errors';
import { PROCESS_OPTIONS } from '../../model/options';
import { formatBytes, formatDuration, GIB, MIB } from '../../model/units';
import { hostOf } from '../../trust/host-certificate';
import { TrustFolder } from '../../trust/trust-folder';
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
  /** File of what this host shows others, and the folder of whom it believes. */
  readonly certificate: string;
  readonly trustDir: string;
  readonly guestUser: string;
  readonly peer: string | undefined;
  readonly payloadKeyFile: string;
}

/** 256 streams, their control connection, image files, and room for everything else. */
const WANTED_DESCRIPTORS = 1024;
const WANTED_BUFFER_BYTES = 4 * MIB;
const WANTED_FREE_BYTES = 10 * GIB;
const MAX_CLOCK_OFFSET_MS = 2_000;
const CONNECT_TIMEOUT_MS = 3_000;
const CERTIFICATE_WARN_MS = 30 * 86_400_000;

export async function runChecks(input: CheckInput): Promise<Finding[]> {
  const [host, port] = (input.peer ?? '').split(':');
  const findings = [
    checkNode(),
    await checkDescriptors(),
    await checkBuffers('tcp_rmem', 'net.ipv4.tcp_rmem="4096 131072 16777216"'),
    await checkBuffers('tcp_wmem', 'net.ipv4.tcp_wmem="4096 65536 16777216"'),
    await checkCongestionControl(),
    await checkDisk(input.dataDir),
    checkGuestUser(input),
    ...(await checkLinks()),
    checkTools(),
    await checkCertificate(input.certificate),
    checkTrust(input.trustDir),
    await checkPort('this agent', '127.0.0.1', input.port, 'warn'),
  ];
  if (host) findings.push(await checkPort('peer', host, Number(port ?? PROCESS_OPTIONS.port.default), 'fail'));
  return [...findings, ...(await checkTemporal(input.payloadKeyFile))];
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

async function checkCertificate(path: string): Promise<Finding> {
  const finding = (state: Finding['state'], found: string, mend: string): Finding => ({
    check: 'certificate',
    state,
    found,
    mend,
  });
  const pem = await readFile(path).catch(() => undefined);
  if (!pem)
    return finding('warn', `none at ${path}`, 'An agent makes one at its first start, or name one with --tls-cert');
  let certificate: X509Certificate;
  try {
    certificate = new X509Certificate(pem);
  } catch {
    return finding(
      'fail',
      `${path} is no certificate`,
      'Put a PEM certificate there, or remove the file: an agent makes one',
    );
  }
  const leftMs = Date.parse(certificate.validTo) - Date.now();
  const found = `${hostOf(certificate) ?? 'names no host'}, valid to ${certificate.validTo}`;
  const mend =
    'Replace it; a running agent takes changed files up. One that an agent has made it makes anew at its next start';
  return finding(leftMs <= 0 ? 'fail' : leftMs < CERTIFICATE_WARN_MS ? 'warn' : 'ok', found, mend);
}

function checkTrust(path: string): Finding {
  const check = 'trust folder';
  const mend =
    'Start `dwcp control` on this machine, or join by `dwcp host invite` there and `dwcp agent --join CODE` here';
  try {
    const folder = TrustFolder.find(path);
    if (!folder) return { check, state: 'warn', found: `none at ${path}`, mend };
    const signs = folder.controlKey() === undefined ? 'believes a control plane' : 'control plane';
    return { check, state: 'ok', found: `${path}: ${signs}, ${folder.hosts().length} hosts`, mend };
  } catch (error) {
    return { check, state: 'fail', found: messageOf(error), mend: `chmod -R go= ${path}` };
  }
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

/** As whom guests run, and whether that user has what QEMU needs. */
function checkGuestUser({ guestUser, dataDir }: CheckInput): Finding {
  const check = 'guests’ user';
  try {
    const { user, asRoot } = chooseGuestUser(guestUser, dataDir);
    if (asRoot !== undefined)
      return { check, state: 'warn', found: `guests run as root: ${asRoot}`, mend: GUEST_USER_MEND };
    if (!user) return { check, state: 'ok', found: userInfo().username, mend: '' };
    const found = `${user.name}, ${user.perVm ? 'each VM with an id of its own' : 'one id for all VMs'}`;
    const lacksKvm = existsSync('/dev/kvm') && !mayUse('/dev/kvm', 'write', user);
    if (!lacksKvm) return { check, state: 'ok', found, mend: '' };
    return {
      check,
      state: 'warn',
      found: `${found}; it may not use /dev/kvm`,
      mend: `usermod --gid kvm ${user.name}, where /dev/kvm belongs to that group`,
    };
  } catch (error) {
    return { check, state: 'fail', found: messageOf(error), mend: GUEST_USER_MEND };
  }
}

/** The kernel keeps one user from giving another’s files a second name where root would find it. */
async function checkLinks(): Promise<Finding[]> {
  const text = await readFile('/proc/sys/fs/protected_hardlinks', 'utf8').catch(() => '');
  if (text.trim() !== '0') return [];
  return [
    {
      check: 'hard links',
      state: 'warn',
      found: 'fs.protected_hardlinks is off',
      mend: 'sysctl -w fs.protected_hardlinks=1 fs.protected_symlinks=1',
    },
  ];
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
async function checkTemporal(payloadKeyFile: string): Promise<Finding[]> {
  const { address, namespace } = temporalTarget();
  try {
    const client = await connectClient(payloadKeyFile);
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
