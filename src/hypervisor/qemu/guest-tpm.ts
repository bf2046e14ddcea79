/**
 * The TPM of a guest: swtpm, a program of its own that its QEMU speaks to. Its state is in QEMU's migration stream, so at a destination it
 * begins empty; DWCP starts it where its socket lies in the guest's run folder, as the guest's user, and it ends with its QEMU. Where the
 * socket lies elsewhere it is its operator's.
 */
import { spawn } from 'node:child_process';
import { chownSync, closeSync, mkdirSync, openSync, readFileSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { DwcpError, messageOf } from '../../model/errors';
import { cannotBeMovedLive } from '../../model/guest-refusals';
import { until } from '../../system/wait';
import type { ProcessIdentity } from '../contract';
import type { GuestPurpose } from './guest-command';
import type { GuestIds } from './guest-user';
import { parseOptionText, valueIn } from './option-text';
import { optionWords } from './option-words';
import { findListener, isAlive, isListenedAt, killProcess, startTicksOf } from './process-table';
import { harmless } from './qemu-program';
import { type RunPlaces, runPlaces } from './run-places';

const START_TIMEOUT_MS = 5_000;
const MAX_SAID = 300;

/** Where a guest's QEMU finds its TPM; undefined where it has none. */
export function tpmSocketOf(command: readonly string[]): string | undefined {
  const options = optionWords(command.slice(1)).map(({ flag, value }) => ({ flag, value: value ?? '' }));
  const parsed = (wanted: string, unsaid: string) =>
    options.flatMap(({ flag, value }) => (flag === wanted ? (parseOptionText(value, unsaid) ?? []) : []));
  const [tpm] = parsed('-tpmdev', 'type');
  const id = tpm && valueIn(tpm, 'chardev');
  const socket = parsed('-chardev', 'backend').find((each) => valueIn(each, 'id') === id);
  return id === undefined || !socket ? undefined : valueIn(socket, 'path');
}

/**
 * Whether the state of a running guest's TPM can go with it.
 * @throws GUEST_REFUSED by name where it is encrypted with a key of this host, is of another kind, or nobody is seen who has it
 */
export function assertTpmMoves(command: readonly string[]): void {
  const path = tpmSocketOf(command);
  if (path === undefined) return;
  const found = findListener(path);
  if (!found)
    throw cannotBeMovedLive(
      `no program is seen that answers for its TPM at ${path}: its swtpm has to be one that this agent may see`,
    );
  const words = found.command;
  const key = words.find((word) => /^--(migration-)?key(=|$)/.test(word));
  if (key !== undefined)
    throw cannotBeMovedLive(
      `the state of its TPM is encrypted with a key of this host (swtpm ${key.split('=')[0] ?? ''}, process ${found.pid}), which does not ` +
        'travel: start swtpm without it',
    );
  if (!words.includes('--tpm2'))
    throw cannotBeMovedLive(
      `its TPM at ${path} (process ${found.pid}) is no TPM 2.0: start swtpm with --tpm2, which loses what it holds`,
    );
}

/** Starts the guest's TPM where it is this host's to start. @returns it; undefined where there is none, or its operator has started it */
export async function startTpm(
  command: readonly string[],
  places: RunPlaces,
  purpose: GuestPurpose,
  ids: GuestIds | undefined,
): Promise<ProcessIdentity | undefined> {
  const path = tpmSocketOf(command);
  if (path === undefined || dirname(path) !== places.folder) return undefined;
  await endTpm(path);
  const state = stateOf(places);
  // What comes is in the stream.
  if (purpose !== 'run') rmSync(state, { recursive: true, force: true });
  mkdirSync(state, { recursive: true, mode: 0o700 });
  if (ids) chownSync(state, ids.uid, ids.gid);
  rmSync(path, { force: true });
  const logPath = join(places.agentFolder, 'swtpm.log');
  const log = openSync(logPath, 'w', 0o600);
  const args = ['socket', '--tpm2', '--tpmstate', `dir=${state}`, '--ctrl', `type=unixio,path=${path}`, '--terminate'];
  const child = spawn('swtpm', args, {
    detached: true,
    stdio: ['ignore', log, log],
    env: harmless(process.env),
    cwd: '/',
    ...ids,
  });
  closeSync(log);
  let failed: string | undefined;
  child.once('error', (error) => (failed = messageOf(error)));
  child.once('exit', (code, signal) => (failed ??= `it ended with ${code ?? signal ?? '?'}`));
  child.unref();
  const stands = await until(() => failed !== undefined || isListenedAt(path), {
    everyMs: 10,
    withinMs: START_TIMEOUT_MS,
  });
  const pid = child.pid ?? 0;
  const tpm = { pid, startTicks: startTicksOf(pid) ?? -1 };
  if (stands && failed === undefined) return tpm;
  killProcess(tpm);
  const said = readFileSync(logPath, 'utf8').trim().replaceAll('\n', '; ').slice(0, MAX_SAID);
  throw new DwcpError('QEMU_REFUSED', `swtpm does not start: ${failed ?? 'it is not ready in time'}: ${said}`);
}

/** What an earlier QEMU has left: it ends with that, a moment later. */
async function endTpm(path: string): Promise<void> {
  const left = findListener(path);
  if (!left || !/(^|\/)swtpm$/.test(left.command[0] ?? '')) return;
  killProcess(left);
  await until(() => !isAlive(left), { everyMs: 10, withinMs: START_TIMEOUT_MS });
}

/** The VM is not this host's: nothing of its TPM stays. */
export function removeTpm(places: RunPlaces): void {
  rmSync(stateOf(places), { recursive: true, force: true });
}

/** As removeTpm(), by the command of a VM that has left; what is not below this host's own folders is its operator's. */
export function removeTpmOf(command: readonly string[], dataDir: string | undefined): void {
  const path = tpmSocketOf(command);
  if (path !== undefined && dataDir !== undefined && dirname(dirname(path)) === join(dataDir, 'run'))
    removeTpm(runPlaces(dirname(path)));
}

/** In the agent's folder: in QEMU's, QEMU could put anything in its place. */
function stateOf({ agentFolder }: RunPlaces): string {
  return join(agentFolder, 'tpm');
}
