/**
 * QEMU processes: starting one that outlives the agent, finding the one behind a monitor, ending one. A guest's process
 * belongs to the host, not to the agent: an agent that dies leaves it running.
 */
import { spawn } from 'node:child_process';
import { closeSync, existsSync, openSync, readFileSync, rmSync } from 'node:fs';
import { DwcpError, hasCode, messageOf } from '../../model/errors';
import { until, wait } from '../../system/wait';
import type { ProcessIdentity } from '../contract';
import type { Allowance } from './allowance';
import { assertAllowed, filesOf } from './allowed-options';
import { assertLayers } from './disk-format';
import { type GuestPurpose, ownArguments, unsaidConsoles } from './guest-command';
import { lendDisks, settleGuest } from './guest-places';
import type { GuestPolicy } from './guest-policy';
import { startTpm } from './guest-tpm';
import { findListener, isAlive, killProcess, startTicksOf } from './process-table';
import { harmless, programPath, sandboxArguments } from './qemu-program';
import { QmpClient } from './qmp-client';
import { MAX_SOCKET_PATH_BYTES, type RunPlaces, runPlaces } from './run-places';

const START_TIMEOUT_MS = 20_000;
const QUIT_TIMEOUT_MS = 10_000;
/** From the end of its monitor to that of the process. */
const EXIT_PATIENCE_MS = 2_000;
/** QEMU says what is wrong, in what, and that therefore it does not load. */
const REASON_LINES = 3;
const MAX_SAID = 500;

export interface StartedGuest {
  readonly places: RunPlaces;
  readonly qmp: QmpClient;
  readonly process: ProcessIdentity;
  /** The last that it has printed: why it does not go on, where it does not. */
  readonly said: () => string;
}

/** On whose word a QEMU is started. */
export interface StartRules {
  readonly purpose: GuestPurpose;
  readonly allowance: Allowance;
  readonly policy: GuestPolicy;
}

/**
 * Starts a guest's QEMU and connects to its monitor; nothing of a command that may not run here comes as far as that.
 * @throws GUEST_REFUSED with what may not be in the command; QEMU_REFUSED with what QEMU printed; QEMU_UNREACHABLE where it was
 * killed, or is not ready in time
 */
export async function startGuestProcess(
  command: readonly string[],
  runFolder: string,
  { purpose, allowance, policy }: StartRules,
): Promise<StartedGuest> {
  assertAllowed(command, allowance);
  await assertLayers(command, policy.folders);
  const places = runPlaces(runFolder);
  if (Buffer.byteLength(places.outgoingPath) > MAX_SOCKET_PATH_BYTES)
    throw new DwcpError(
      'CONFIG_INVALID',
      `${places.outgoingPath} is too long for a socket (${MAX_SOCKET_PATH_BYTES} bytes)`,
      { hint: 'Take a shorter dataDir or VM id' },
    );
  const program = programPath(command, policy.qemuFolder);
  const sandbox = await sandboxArguments(program, command);
  const ids = settleGuest(places, policy.user);
  if (ids && policy.user) lendDisks(filesOf(command).written, ids, policy.user);
  for (const path of [places.qmpPath, places.monitorPath, places.incomingPath]) rmSync(path, { force: true });
  const tpm = await startTpm(command, places, purpose, ids);
  const log = openSync(places.logPath, 'w', 0o600);
  const own = [...unsaidConsoles(command, places), ...ownArguments(places, purpose)];
  const child = spawn(program, [...command.slice(1), ...sandbox, ...own], {
    detached: true,
    stdio: ['ignore', log, log],
    env: harmless(process.env),
    ...ids,
  });
  closeSync(log);
  let failed: { readonly why: string; readonly code: 'QEMU_REFUSED' | 'QEMU_UNREACHABLE' } | undefined;
  child.once('error', (error) => (failed = { why: messageOf(error), code: 'QEMU_REFUSED' }));
  child.once(
    'exit',
    (code, signal) =>
      (failed ??= {
        why: `it ended with ${code ?? signal ?? '?'}`,
        code: signal === null ? 'QEMU_REFUSED' : 'QEMU_UNREACHABLE',
      }),
  );
  child.unref();
  const endedBecause = (): DwcpError => {
    const { why, code } = failed ?? { why: 'it is not ready in time', code: 'QEMU_UNREACHABLE' };
    return doesNotStart(code, `${program} does not start: ${why}: ${lastWords(places.logPath)}`, policy);
  };
  const deadline = performance.now() + START_TIMEOUT_MS;
  while (!existsSync(places.qmpPath) || (purpose === 'incoming' && !existsSync(places.incomingPath))) {
    if (failed !== undefined || performance.now() > deadline) {
      if (child.pid !== undefined && failed === undefined) child.kill('SIGKILL');
      // It may never have been called, and waits for that.
      if (tpm) killProcess(tpm);
      throw endedBecause();
    }
    await wait(15);
  }
  // Its monitor is there before its devices are: it may yet end over one of them.
  const qmp = await connectSoon(places.qmpPath).catch(async (error: unknown) => {
    await until(() => failed !== undefined, { everyMs: 15, withinMs: EXIT_PATIENCE_MS });
    throw failed === undefined ? error : endedBecause();
  });
  const pid = child.pid ?? 0;
  return {
    places,
    qmp,
    process: { pid, startTicks: startTicksOf(pid) ?? -1 },
    said: () => lastLines(places.logPath, REASON_LINES),
  };
}

function doesNotStart(code: 'QEMU_REFUSED' | 'QEMU_UNREACHABLE', what: string, { user }: GuestPolicy): DwcpError {
  const hint =
    user && /(Permission denied|Operation not permitted)(;|$)/.test(what)
      ? {
          hint:
            `It runs as ${user.name}: let that user read the file and pass the folders above it, ` +
            'and write its disks (docs/security.md); a tap is given to it by `ip tuntap add NAME mode tap user ' +
            `${user.name}\``,
        }
      : {};
  return new DwcpError(code, what, hint);
}

/** The socket is there a moment before QEMU listens on it. */
export async function connectSoon(path: string): Promise<QmpClient> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await QmpClient.connect(path);
    } catch (error) {
      if (attempt >= 20 || !hasCode(error, 'QEMU_UNREACHABLE')) throw error;
      await wait(20);
    }
  }
}

/** A program that QEMU has started says itself what is wrong; QEMU only that it has failed. */
function lastWords(path: string): string {
  const last = lastLines(path, 1);
  return /helper failed|network script/.test(last) ? lastLines(path, 2) : last;
}

function lastLines(path: string, count: number): string {
  const lines = readFileSync(path, 'utf8').trim().split('\n').slice(-count);
  return lines
    .map((line) => line.replace(/^\S*qemu-system-\w+: /, ''))
    .join('; ')
    .slice(0, MAX_SAID);
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
