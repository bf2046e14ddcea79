/**
 * Which program runs a guest here, and in what cage. The command says which QEMU it is, by its base name; where that lies is this
 * host's configuration's to say, and what it may ask of the kernel is DWCP's.
 */
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { startsProgram } from './allowed-networks';
import { programOf } from './allowed-options';
import { optionWords } from './option-words';

const run = promisify(execFile);
const PROBE_TIMEOUT_MS = 20_000;
const MAX_PROGRAMS = 100;
/** What a QEMU is told of its surroundings: keys of the agent's may stand beside it. */
const TOLD = ['PATH', 'LANG', 'LC_ALL', 'TZ', 'TMPDIR', 'LD_LIBRARY_PATH'];
const caged = new Map<string, Promise<boolean>>();

/** @throws GUEST_REFUSED where the command starts no QEMU */
export function programPath(command: readonly string[], qemuFolder: string): string {
  const name = programOf(command);
  return qemuFolder === '' ? name : join(qemuFolder, name);
}

/**
 * No other program, no other user, no other share of the machine: what QEMU is not made for. Nothing where this QEMU was built
 * without it. Only what puts a guest in a network, a helper or a script, is a program of its own.
 */
export async function sandboxArguments(program: string, command: readonly string[]): Promise<string[]> {
  if (!(await hasSandbox(program))) return [];
  const helps = optionWords(command.slice(1)).some(
    ({ flag, value }) => ['-netdev', '-nic', '-net'].includes(flag) && startsProgram(value ?? ''),
  );
  const denied = ['obsolete', ...(helps ? [] : ['elevateprivileges', 'spawn']), 'resourcecontrol'];
  return ['-sandbox', ['on', ...denied.map((what) => `${what}=deny`)].join(',')];
}

export function harmless(env: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  return Object.fromEntries(Object.entries(env).filter(([name]) => TOLD.includes(name)));
}

/** Asked once for as long as this process lives. */
function hasSandbox(program: string): Promise<boolean> {
  const known = caged.get(program);
  if (known) return known;
  const asked = run(program, ['-sandbox', 'on', '--version'], { timeout: PROBE_TIMEOUT_MS }).then(
    () => true,
    () => false,
  );
  if (caged.size < MAX_PROGRAMS) caged.set(program, asked);
  return asked;
}
