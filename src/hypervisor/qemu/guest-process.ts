/**
 * QEMU processes: starting one that outlives the agent, finding the one behind a monitor, ending one. A guest's process
 * belongs to the host, not to the agent: an agent that dies leaves it running.
 */
import { spawn } from 'node:child_process';
import { closeSync, existsSync, openSync, readFileSync, rmSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { DwcpError, hasCode, messageOf } from '../../model/errors';
import { until, wait } from '../../system/wait';
import type { ProcessIdentity } from '../contract';
import type { Allowance } from './allowance';
import { assertAllowed } from './allowed-options';
import { assertLayers } from './disk-format';
import { ownArguments } from './guest-command';
import type { GuestPolicy } from './guest-policy';
import { findListener, isAlive, killProcess, startTicksOf } from './process-table';
import { programPath, sandboxArguments } from './qemu-program';
import { QmpClient } from './qmp-client';
import { type RunPlaces, runPlaces } from './run-places';

/** Linux, sockaddr_un. */
const MAX_SOCKET_PATH_BYTES = 107;
const START_TIMEOUT_MS = 20_000;
const QUIT_TIMEOUT_MS = 10_000;

export interface StartedGuest {
  readonly places: RunPlaces;
  readonly qmp: QmpClient;
  readonly process: ProcessIdentity;
}

/** On whose word a QEMU is started. */
export interface StartRules {
  /** It waits for a migration, paused. */
  readonly incoming: boolean;
  readonly allowance: Allowance;
  readonly policy: GuestPolicy;
}

/**
 * Starts a guest's QEMU and connects to its monitor; nothing of a command that may not run here comes as far as that.
 * @throws GUEST_REFUSED with what may not be in the command; QEMU_REFUSED with what QEMU printed
 */
export async function startGuestProcess(
  command: readonly string[],
  runFolder: string,
  { incoming, allowance, policy }: StartRules,
): Promise<StartedGuest> {
  assertAllowed(command, allowance);
  await assertLayers(command, policy.folders);
  await mkdir(runFolder, { recursive: true, mode: 0o700 });
  const places = runPlaces(runFolder);
  if (Buffer.byteLength(places.incomingPath) > MAX_SOCKET_PATH_BYTES)
    throw new DwcpError(
      'CONFIG_INVALID',
      `${places.incomingPath} is too long for a socket (${MAX_SOCKET_PATH_BYTES} bytes)`,
      { hint: 'Take a shorter dataDir or VM id' },
    );
  const program = programPath(command, policy.qemuFolder);
  const sandbox = await sandboxArguments(program, command);
  for (const path of [places.qmpPath, places.monitorPath, places.incomingPath]) rmSync(path, { force: true });
  const log = openSync(places.logPath, 'w', 0o600);
  const child = spawn(
    program,
    [...command.slice(1), ...sandbox, ...ownArguments(places, incoming ? 'incoming' : 'run')],
    {
      detached: true,
      stdio: ['ignore', log, log],
    },
  );
  closeSync(log);
  let failed: string | undefined;
  child.once('error', (error) => (failed = messageOf(error)));
  child.once('exit', (code, signal) => (failed ??= `it ended with ${code ?? signal ?? '?'}`));
  child.unref();
  const deadline = performance.now() + START_TIMEOUT_MS;
  while (!existsSync(places.qmpPath) || (incoming && !existsSync(places.incomingPath))) {
    if (failed !== undefined || performance.now() > deadline) {
      if (child.pid !== undefined && failed === undefined) child.kill('SIGKILL');
      throw new DwcpError(
        'QEMU_REFUSED',
        `${program} does not start: ${failed ?? 'it is not ready in time'}: ${lastLine(places.logPath)}`,
      );
    }
    await wait(15);
  }
  const pid = child.pid ?? 0;
  return { places, qmp: await connectSoon(places.qmpPath), process: { pid, startTicks: startTicksOf(pid) ?? -1 } };
}

/** The socket is there a moment before QEMU listens on it. */
async function connectSoon(path: string): Promise<QmpClient> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await QmpClient.connect(path);
    } catch (error) {
      if (attempt >= 20 || !hasCode(error, 'QEMU_UNREACHABLE')) throw error;
      await wait(20);
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
export async function quitGuest(qmpPath: string, which: 'stopped' | 'even running' = 'stopped'): Promise<void> {
  if (!existsSync(qmpPath)) return;
  const found = findListener(qmpPath);
  try {
    const qmp = await QmpClient.connect(qmpPath);
    if ((await qmp.execute('query-status')).running && which === 'stopped') {
      qmp.close();
      throw new DwcpError('GUEST_REFUSED', `The guest behind ${qmpPath} runs: it is not ended`);
    }
    const ended = new Promise<void>((resolve) => qmp.onEnd(() => resolve()));
    await qmp.execute('quit').catch(() => undefined);
    await Promise.race([ended, wait(QUIT_TIMEOUT_MS)]);
    qmp.close();
  } catch (error) {
    if (hasCode(error, 'GUEST_REFUSED')) throw error;
    // Nobody answers: what is left of it is ended by its process, where it has one.
  }
  if (found) await untilEnded(found, QUIT_TIMEOUT_MS);
}

/** Ends a QEMU that waits for a guest and has never run one, at once, whether it answers or not. */
export async function endIncoming(process: ProcessIdentity): Promise<void> {
  killProcess(process);
  await untilEnded(process, QUIT_TIMEOUT_MS);
}

async function untilEnded(process: ProcessIdentity, patienceMs: number): Promise<void> {
  const ended = (): Promise<boolean> => until(() => !isAlive(process), { everyMs: 20, withinMs: patienceMs });
  await ended();
  killProcess(process);
  await ended();
}
