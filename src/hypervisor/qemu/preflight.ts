/**
 * Whether a host can run a guest that comes from another: its QEMU, the machine and processor model, the files that the
 * command names, memory. Asked before anything is sent; `--force` leaves it out and lets QEMU itself refuse.
 */
import { execFile } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { promisify } from 'node:util';
import { messageOf } from '../../model/errors';
import type { GuestSpec } from '../../model/guest';
import { cannotRunHere } from '../../model/guest-refusals';
import { formatBytes } from '../../model/units';
import { filesOf } from './allowed-options';
import { machineOf } from './guest-command';
import type { GuestPolicy } from './guest-policy';
import { tpmSocketOf } from './guest-tpm';
import { mayUse } from './guest-user';
import { assertKvm } from './kvm-use';
import { filesThatStay } from './named-files';
import { programPath, sandboxArguments } from './qemu-program';

const run = promisify(execFile);
const HELP_TIMEOUT_MS = 20_000;
/** Besides its memory a QEMU takes this for itself, about. */
const QEMU_ITSELF_BYTES = 64 * 1024 * 1024;

/** A guest that runs elsewhere. @throws GUEST_REFUSED with what is missing */
export async function assertCanRun(
  vmId: string,
  command: readonly string[],
  { qemuVersion, machine, ramBlocks }: GuestSpec,
  policy: Pick<GuestPolicy, 'qemuFolder' | 'user'>,
): Promise<void> {
  const program = programPath(command, policy.qemuFolder);
  const { versionText } = await abilitiesOf(program, command);
  const version = /version (\d+\.\d+(?:\.\d+)?)/.exec(versionText)?.[1] ?? '';
  if (version === '') throw cannotRunHere(`${program} does not say its version`);
  if (olderThan(version, qemuVersion))
    throw cannotRunHere(
      `${program} is version ${version} here and ${qemuVersion} at the source: a guest moves to the same version or a newer one`,
    );
  await assertHas(vmId, command, machine, policy);
  const wanted = ramBlocks.reduce((sum, { usedBytes }) => sum + usedBytes, QEMU_ITSELF_BYTES);
  const free = availableMemoryBytes();
  if (wanted > free)
    throw cannotRunHere(`its memory takes ${formatBytes(wanted)} and ${formatBytes(free)} are free here`);
}

/** A guest that does not run: it begins anew, in any version, when there is memory for it. @throws GUEST_REFUSED with what is missing */
export async function assertCanStart(
  vmId: string,
  command: readonly string[],
  policy: Pick<GuestPolicy, 'qemuFolder' | 'user'>,
): Promise<void> {
  await assertHas(vmId, command, machineOf(command), policy);
}

async function assertHas(
  vmId: string,
  command: readonly string[],
  machine: string | undefined,
  { qemuFolder, user }: Pick<GuestPolicy, 'qemuFolder' | 'user'>,
): Promise<void> {
  const program = programPath(command, qemuFolder);
  const { machines, model, models } = await abilitiesOf(program, command);
  assertKvm(command, { user });
  if (tpmSocketOf(command) !== undefined) await assertSwtpm();
  if (machine !== undefined && !machines.split('\n').some((line) => line.split(/\s/, 1)[0] === machine))
    throw cannotRunHere(`${program} has no machine ${machine} here`);
  if (model !== undefined && !models.split(/\s+/).includes(model))
    throw cannotRunHere(`${program} has no processor model ${model} here`);
  const missing = filesOf(command).read.find((path) => !existsSync(path));
  if (missing !== undefined) {
    const isDrive = filesThatStay(command).some(({ path, use }) => path === missing && use === 'drive');
    const mend = isDrive ? 'put it there, or eject it at the source' : 'put it there';
    throw cannotRunHere(`${vmId} needs ${missing}, which this host does not have: ${mend}`);
  }
  const closed = user && filesOf(command).read.find((path) => !mayUse(path, 'read', user));
  if (closed !== undefined)
    throw cannotRunHere(`${vmId} needs ${closed}, which ${user?.name ?? ''} may not read here (chmod o+r)`);
}

/** @throws GUEST_REFUSED where a TPM could not be started here */
async function assertSwtpm(): Promise<void> {
  await run('swtpm', ['--version'], { timeout: HELP_TIMEOUT_MS }).catch((cause: unknown) => {
    throw cannotRunHere('its TPM needs swtpm, which is not installed here (apt-get install swtpm)', { cause });
  });
}

/** Asks ahead what assertCanRun() will want to know of a command: nobody should have to wait for it when a guest comes. */
export async function askAhead(
  command: readonly string[],
  { qemuFolder }: Pick<GuestPolicy, 'qemuFolder'>,
): Promise<void> {
  try {
    const program = programPath(command, qemuFolder);
    await Promise.all([abilitiesOf(program, command), sandboxArguments(program, command)]);
  } catch {
    // Whoever needs the answer will hear it.
  }
}

async function abilitiesOf(
  program: string,
  command: readonly string[],
): Promise<{ versionText: string; machines: string; model: string | undefined; models: string }> {
  const model = valueOf(command, '-cpu')?.split(',')[0];
  const [versionText, machines, models] = await Promise.all([
    help(program, '--version'),
    help(program, '-machine', 'help'),
    model === undefined ? '' : help(program, ...acceleratorOf(command), '-cpu', 'help'),
  ]);
  return { versionText, machines, model, models };
}

const MAX_ANSWERS = 100;
const answers = new Map<string, string>();

function valueOf(command: readonly string[], flag: string): string | undefined {
  const at = command.indexOf(flag);
  return at < 0 ? undefined : command[at + 1];
}

function acceleratorOf(command: readonly string[]): string[] {
  const value = valueOf(command, '-accel');
  return value === undefined ? [] : ['-accel', value];
}

/**
 * By which version a guest's machine goes that its command names by an alias, or not at all; undefined where the command says it, or this
 * host has no such QEMU that could.
 */
export async function machineMeant(
  command: readonly string[],
  { qemuFolder }: Pick<GuestPolicy, 'qemuFolder'>,
): Promise<string | undefined> {
  const named = machineOf(command);
  const machines = await help(programPath(command, qemuFolder), '-machine', 'help').catch(() => '');
  const lines = machines.split('\n');
  if (named === undefined) return lines.find((line) => line.includes('(default)'))?.split(/\s/, 1)[0];
  const line = lines.find((each) => each.split(/\s/, 1)[0] === named);
  return /\(alias of (\S+)\)/.exec(line ?? '')?.[1];
}

/** What a program says of itself; asked once for as long as this process lives. */
async function help(program: string, ...args: readonly string[]): Promise<string> {
  const question = JSON.stringify([program, ...args]);
  const known = answers.get(question);
  if (known !== undefined) return known;
  try {
    const { stdout } = await run(program, args, { timeout: HELP_TIMEOUT_MS, maxBuffer: 4 * 1024 * 1024 });
    if (answers.size < MAX_ANSWERS) answers.set(question, stdout);
    return stdout;
  } catch (cause) {
    throw cannotRunHere(`${program} ${args.join(' ')} fails: ${messageOf(cause).split('\n')[0] ?? ''}`, { cause });
  }
}

function olderThan(version: string, other: string): boolean {
  const [a, b] = [version, other].map((text) => text.split('.').map(Number));
  for (let part = 0; part < 2; part += 1)
    if ((a?.[part] ?? 0) !== (b?.[part] ?? 0)) return (a?.[part] ?? 0) < (b?.[part] ?? 0);
  return false;
}

/** Free for programs, by the kernel's own estimate. */
function availableMemoryBytes(): number {
  const kib = /^MemAvailable:\s+(\d+)/m.exec(readFileSync('/proc/meminfo', 'utf8'))?.[1];
  return kib === undefined ? Infinity : Number(kib) * 1024;
}
