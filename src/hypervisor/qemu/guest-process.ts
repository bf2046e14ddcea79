/**
 * QEMU processes: starting one that outlives the agent, finding the one behind a monitor, ending one. A guest's process
 * belongs to the host, not to the agent: an agent that dies leaves it running.
 */
import { spawn } from 'node:child_process';
import { closeSync, existsSync, openSync, readFileSync, readdirSync, readlinkSync, rmSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { DwcpError, hasCode, messageOf } from '../../model/errors';
import { ownArguments, type RunPlaces, runPlaces } from './guest-command';
import { QmpClient } from './qmp-client';

/** Linux, sockaddr_un. */
const MAX_SOCKET_PATH_BYTES = 107;
const START_TIMEOUT_MS = 20_000;
const QUIT_TIMEOUT_MS = 10_000;

export interface StartedGuest {
  readonly places: RunPlaces;
  readonly qmp: QmpClient;
  readonly pid: number;
}

/**
 * Starts a guest's QEMU and connects to its monitor. @param incoming it waits for a migration, paused
 * @throws QEMU_REFUSED with what QEMU printed
 */
export async function startGuestProcess(command: readonly string[], runFolder: string, incoming: boolean): Promise<StartedGuest> {
  await mkdir(runFolder, { recursive: true, mode: 0o700 });
  const places = runPlaces(runFolder);
  if (Buffer.byteLength(places.incomingPath) > MAX_SOCKET_PATH_BYTES) throw new DwcpError('CONFIG_INVALID', `${places.incomingPath} is too long for a socket (${MAX_SOCKET_PATH_BYTES} bytes)`, { hint: 'Take a shorter dataDir or VM id' });
  for (const path of [places.qmpPath, places.monitorPath, places.incomingPath]) rmSync(path, { force: true });
  const log = openSync(places.logPath, 'w', 0o600);
  const [program = '', ...args] = command;
  const child = spawn(program, [...args, ...ownArguments(places, incoming)], { detached: true, stdio: ['ignore', log, log] });
  closeSync(log);
  let failed: string | undefined;
  child.once('error', (error) => (failed = messageOf(error)));
  child.once('exit', (code, signal) => (failed ??= `it ended with ${code ?? signal ?? '?'}`));
  child.unref();
  const deadline = performance.now() + START_TIMEOUT_MS;
  while (!existsSync(places.qmpPath) || (incoming && !existsSync(places.incomingPath))) {
    if (failed !== undefined || performance.now() > deadline) {
      if (child.pid !== undefined && failed === undefined) child.kill('SIGKILL');
      throw new DwcpError('QEMU_REFUSED', `${program} does not start: ${failed ?? 'it is not ready in time'}: ${lastLine(places.logPath)}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 15));
  }
  return { places, qmp: await connectSoon(places.qmpPath), pid: child.pid ?? 0 };
}

/** The socket is there a moment before QEMU listens on it. */
async function connectSoon(path: string): Promise<QmpClient> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await QmpClient.connect(path);
    } catch (error) {
      if (attempt >= 20 || !hasCode(error, 'QEMU_UNREACHABLE')) throw error;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }
}

function lastLine(path: string): string {
  return readFileSync(path, 'utf8').trim().split('\n').at(-1)?.slice(0, 500) ?? '';
}

/**
 * Ends a QEMU through its monitor; one that is gone already is no error.
 * @throws GUEST_REFUSED where its guest runs: nothing here ends a running guest by mistake
 */
export async function quitGuest(qmpPath: string, evenRunning = false): Promise<void> {
  if (!existsSync(qmpPath)) return;
  let pid: number | undefined;
  try {
    pid = findListener(qmpPath)?.pid;
    const qmp = await QmpClient.connect(qmpPath);
    if ((await qmp.execute('query-status')).running && !evenRunning) {
      qmp.close();
      throw new DwcpError('GUEST_REFUSED', `The guest behind ${qmpPath} runs: it is not ended`);
    }
    const ended = new Promise<void>((resolve) => qmp.onEnd(() => resolve()));
    await qmp.execute('quit').catch(() => undefined);
    await Promise.race([ended, new Promise((resolve) => setTimeout(resolve, QUIT_TIMEOUT_MS))]);
    qmp.close();
  } catch (error) {
    if (hasCode(error, 'GUEST_REFUSED')) throw error;
    // Nobody answers: what is left of it is ended by its process id, where it has one.
  }
  for (const deadline = performance.now() + QUIT_TIMEOUT_MS; pid !== undefined && existsSync(`/proc/${pid}/exe`); ) {
    if (performance.now() > deadline) process.kill(pid, 'SIGKILL');
    await new Promise((resolve) => setTimeout(resolve, 20));
    if (performance.now() > deadline + QUIT_TIMEOUT_MS) break;
  }
}

/** Ends every QEMU whose command names one of these folders, whatever it is doing: for demos, benches and tests. */
export function killGuestsNaming(folders: readonly string[]): void {
  for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    try {
      const command = readFileSync(`/proc/${pid}/cmdline`, 'utf8');
      if ((command.split('\0')[0] ?? '').includes('qemu-system') && folders.some((folder) => command.includes(folder))) process.kill(Number(pid), 'SIGKILL');
    } catch {
      continue; // It has ended meanwhile.
    }
  }
}

export interface FoundGuest {
  readonly pid: number;
  readonly command: string[];
}

/** The process that listens on a UNIX socket, and its command line; undefined where there is none that may be seen. */
export function findListener(socketPath: string): FoundGuest | undefined {
  const inodes = new Set(
    readFileSync('/proc/net/unix', 'utf8').split('\n').flatMap((line) => {
      const fields = line.trim().split(/\s+/);
      return fields[7] === socketPath && fields[3] === '00010000' ? [fields[6] ?? ''] : [];
    }),
  );
  if (inodes.size === 0) return undefined;
  for (const name of readdirSync('/proc')) {
    if (!/^\d+$/.test(name)) continue;
    try {
      for (const fd of readdirSync(`/proc/${name}/fd`)) {
        const inode = /^socket:\[(\d+)\]$/.exec(readlinkSync(`/proc/${name}/fd/${fd}`))?.[1];
        if (inode === undefined || !inodes.has(inode)) continue;
        const command = readFileSync(`/proc/${name}/cmdline`, 'utf8').split('\0');
        return { pid: Number(name), command: command.slice(0, -1) };
      }
    } catch {
      continue; // It has ended meanwhile, or is another user's.
    }
  }
  return undefined;
}
