/**
 * As whom guests' QEMUs run. Where the agent is root it is a user who has nothing else on this host, so that a guest that has broken
 * out into its QEMU holds its own disks and sockets, and no key, journal or other guest. What is given to that user is guest-places.ts's.
 */
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { DwcpError } from '../../model/errors';

const USUAL_NAME = 'dwcp-guest';
const TRY_TIMEOUT_MS = 5_000;
/** What root needs to start another user's process, look at it, end it and give it files; a container may have taken it away. */
const NEEDED_CAPABILITIES = {
  CAP_CHOWN: 0,
  CAP_DAC_OVERRIDE: 1,
  CAP_FOWNER: 3,
  CAP_KILL: 5,
  CAP_SETGID: 6,
  CAP_SETUID: 7,
  CAP_SYS_PTRACE: 19,
};

export interface GuestIds {
  readonly uid: number;
  readonly gid: number;
}

export interface GuestUser extends GuestIds {
  readonly name: string;
  /** One for each VM, where /etc/subuid gives this user some: then no guest reaches another's files either. */
  readonly perVm: { readonly first: number; readonly count: number } | undefined;
  /** Below it lies what is given to it and what is not. */
  readonly dataDir: string;
}

export interface GuestUserChoice {
  /** Undefined: as this process. */
  readonly user: GuestUser | undefined;
  /** Why guests run as root though nobody has said so; undefined where they do not. */
  readonly asRoot: string | undefined;
}

export const GUEST_USER_MEND =
  `useradd --system --gid kvm --no-create-home --shell /usr/sbin/nologin ${USUAL_NAME}, a dataDir below folders that all may ` +
  'pass through (/var/lib/dwcp), and start the agent again; docs/security.md';

/** @param wanted the option guestUser @throws CONFIG_INVALID where guests cannot run as that user */
export function chooseGuestUser(wanted: string, dataDir: string): GuestUserChoice {
  const us = process.getuid?.();
  const entry = wanted === '' && us !== 0 ? undefined : entryOf(wanted || USUAL_NAME);
  if (us !== 0) {
    if (wanted === '' || entry?.uid === us) return { user: undefined, asRoot: undefined };
    throw refused(`only an agent that is root can start guests as ${wanted}`);
  }
  if (entry?.uid === 0) return { user: undefined, asRoot: undefined };
  const folder = resolve(dataDir);
  const reason = entry ? whyNot(entry, folder) : `there is no user ${wanted || USUAL_NAME}`;
  if (entry && reason === undefined)
    return { user: { ...entry, perVm: subordinateIds(entry), dataDir: folder }, asRoot: undefined };
  if (wanted === '') return { user: undefined, asRoot: reason };
  throw refused(reason ?? '');
}

/** Whether it may read, write or pass a file, as the kernel sees it. */
export function mayUse(path: string, way: 'read' | 'write' | 'pass', { uid, gid }: GuestIds): boolean {
  const flag = { read: '-r', write: '-w', pass: '-x' }[way];
  const { status, error } = spawnSync('test', [flag, path], { uid, gid, cwd: '/', timeout: TRY_TIMEOUT_MS });
  // Where it cannot be tried, QEMU will say it.
  return error !== undefined || status === 0;
}

function whyNot(user: GuestIds & { readonly name: string }, dataDir: string): string | undefined {
  const missing = missingCapability();
  if (missing !== undefined) return `this process is root without ${missing}`;
  if (mayUse(dirname(dataDir), 'pass', user)) return undefined;
  return `${user.name} is not let through to ${dataDir}: one of the folders above it is closed (chmod o+x)`;
}

function missingCapability(): string | undefined {
  const held = /^CapEff:\s*([0-9a-f]+)$/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1];
  if (held === undefined) return undefined;
  const bits = BigInt(`0x${held}`);
  return Object.entries(NEEDED_CAPABILITIES).find(([, bit]) => ((bits >> BigInt(bit)) & 1n) === 0n)?.[0];
}

function entryOf(name: string): (GuestIds & { readonly name: string }) | undefined {
  const [found] = linesOf('/etc/passwd').filter((fields) => fields[0] === name);
  return found && { name, uid: Number(found[2]), gid: Number(found[3]) };
}

function subordinateIds({ name, uid }: GuestIds & { readonly name: string }): GuestUser['perVm'] {
  const [found] = linesOf('/etc/subuid').filter(([who]) => who === name || who === String(uid));
  const [first, count] = [Number(found?.[1]), Number(found?.[2])];
  return first > 0 && count > 0 ? { first, count } : undefined;
}

function linesOf(path: string): string[][] {
  try {
    return readFileSync(path, 'utf8')
      .split('\n')
      .map((line) => line.split(':'));
  } catch {
    return [];
  }
}

function refused(reason: string): DwcpError {
  return new DwcpError('CONFIG_INVALID', `guestUser: ${reason}`, { hint: GUEST_USER_MEND });
}
