/**
 * The processes of this host as /proc shows them: who listens on a socket, whether that is still the one that was meant, and
 * its end. A process id alone is nobody: it is given anew, so it goes with the time at which the process began.
 */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import type { ProcessIdentity } from '../contract';
import { identityOf, ProcessPaths } from './process-paths';

export interface FoundGuest extends ProcessIdentity {
  readonly command: string[];
}

/** When a process began; undefined where there is none of that id. */
export function startTicksOf(pid: number): number | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    // The name, in brackets, may hold anything; what follows it begins with field 3.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    // A zombie has ended; its parent has not looked yet.
    return fields[0] === 'Z' ? undefined : Number(fields[19]);
  } catch {
    return undefined;
  }
}

export function isAlive({ pid, startTicks }: ProcessIdentity): boolean {
  return startTicksOf(pid) === startTicks;
}

/** SIGKILL, to this process and to no other that has its number by now. */
export function killProcess(process_: ProcessIdentity): void {
  if (!isAlive(process_)) return;
  try {
    process.kill(process_.pid, 'SIGKILL');
  } catch {
    // It has ended meanwhile.
  }
}

/** Every QEMU whose command names one of these folders. */
export function guestsNaming(folders: readonly string[]): ProcessIdentity[] {
  return readdirSync('/proc').flatMap((pid) => {
    if (!/^\d+$/.test(pid)) return [];
    try {
      const command = readFileSync(`/proc/${pid}/cmdline`, 'utf8');
      if (!/qemu-system|kvm/.test(command.split('\0')[0] ?? '')) return [];
      const startTicks = startTicksOf(Number(pid));
      return startTicks !== undefined && folders.some((folder) => command.includes(folder))
        ? [{ pid: Number(pid), startTicks }]
        : [];
    } catch {
      return []; // It has ended meanwhile.
    }
  });
}

/** Ends every QEMU whose command names one of these folders, whatever it is doing: for demos, benches and tests. */
export function killGuestsNaming(folders: readonly string[]): void {
  for (const process of guestsNaming(folders)) killProcess(process);
}

/** The process that listens on a UNIX socket, and its command line; undefined where there is none that may be seen. */
export function findListener(socketPath: string): FoundGuest | undefined {
  const inodes = new Set(listenersAt(socketPath));
  const asNamed = listenersNamed(socketPath);
  if (inodes.size === 0 && asNamed.size === 0) return undefined;
  for (const name of readdirSync('/proc')) {
    if (!/^\d+$/.test(name)) continue;
    try {
      for (const fd of readdirSync(`/proc/${name}/fd`)) {
        const inode = /^socket:\[(\d+)\]$/.exec(readlinkSync(`/proc/${name}/fd/${fd}`))?.[1];
        if (inode === undefined) continue;
        const named = asNamed.get(inode);
        if (!inodes.has(inode) && (named === undefined || !isAt(Number(name), named, socketPath))) continue;
        const command = readFileSync(`/proc/${name}/cmdline`, 'utf8').split('\0');
        const startTicks = startTicksOf(Number(name));
        if (startTicks !== undefined) return { pid: Number(name), startTicks, command: command.slice(0, -1) };
      }
    } catch {
      continue; // It has ended meanwhile, or is another user's.
    }
  }
  return undefined;
}

/** Whether anybody listens on a UNIX socket, also one whose process may not be seen. */
export function isListenedAt(socketPath: string): boolean {
  return listenersAt(socketPath).length > 0;
}

function listenersAt(socketPath: string): string[] {
  return listening().flatMap(({ inode, name }) => (name === socketPath ? [inode] : []));
}

/** Sockets that may be the one at this path, by a name that only whoever made them can read: its folder or its root is another. */
function listenersNamed(socketPath: string): ReadonlyMap<string, string> {
  const mayBe = listening().filter(({ name }) => {
    const end = name.replace(/^(\.{0,2}\/)+/, '');
    return end !== '' && name !== socketPath && !name.startsWith('@') && socketPath.endsWith(`/${end}`);
  });
  return new Map(mayBe.map(({ inode, name }) => [inode, name]));
}

function isAt(pid: number, named: string, socketPath: string): boolean {
  const path = new ProcessPaths(pid).onHost(named);
  const found = path === undefined ? undefined : identityOf(path);
  return found !== undefined && found === identityOf(socketPath);
}

/** A row of /proc/net/unix: flags, inode, and the name, which may hold spaces. */
const ROW = /^\S+\s+\S+\s+\S+\s+(\S+)\s+\S+\s+\S+\s+(\d+)(?: (.*))?$/;
const LISTENS = '00010000';

function listening(): { readonly inode: string; readonly name: string }[] {
  return readFileSync('/proc/net/unix', 'utf8')
    .split('\n')
    .flatMap((line) => {
      const [, flags, inode = '', name = ''] = ROW.exec(line.trim()) ?? [];
      return flags === LISTENS ? [{ inode, name }] : [];
    });
}
