/**
 * A QEMU command line as data: what of it belongs to the guest and travels, what belongs to a host and is made anew there
 * (monitors, sockets, logs, places of disks). Pure; starting anything is guest-process.ts's.
 */
import { basename, join } from 'node:path';
import { blockdevOf, filenameOf } from './disk-format';

/** Where a guest's sockets and logs lie on a host: one of the monitors is the agent's, the other anybody's. */
export interface RunPlaces {
  readonly qmpPath: string;
  readonly monitorPath: string;
  readonly incomingPath: string;
  readonly outgoingPath: string;
  readonly nbdPath: string;
  /** Where QEMU's own mirror of a disk goes, and is carried on from. */
  readonly mirrorPath: string;
  readonly logPath: string;
}

export function runPlaces(runFolder: string): RunPlaces {
  const at = (name: string): string => join(runFolder, name);
  return {
    qmpPath: at('qmp.sock'),
    monitorPath: at('monitor.sock'),
    incomingPath: at('incoming.sock'),
    outgoingPath: at('outgoing.sock'),
    nbdPath: at('nbd.sock'),
    mirrorPath: at('mirror.sock'),
    logPath: at('qemu.log'),
  };
}

export interface RelocatedDisk {
  readonly from: string;
  readonly to: string;
  /** What arrives is the disk's content; else it is the file that it was. */
  readonly raw: boolean;
}

const WITH_VALUE_DROPPED = new Set(['-incoming', '-pidfile', '-qmp', '-qmp-pretty', '-monitor']);
const ALONE_DROPPED = new Set(['-S', '-daemonize', '--daemonize']);
/** Flags whose value may name a place of this host for a character stream. */
const STREAM_FLAGS = new Set(['-serial', '-parallel', '-debugcon', '-chardev']);

/** What of a command is the guest's own: without monitors, and without what only starting it needed. */
export function guestOwn(command: readonly string[]): string[] {
  const monitors = new Set(
    command.flatMap((word, index) => (command[index - 1] === '-mon' ? (/chardev=([^,]+)/.exec(word)?.[1] ?? []) : [])),
  );
  const kept: string[] = [];
  for (let at = 0; at < command.length; at += 1) {
    const word = command[at] ?? '';
    const value = command[at + 1] ?? '';
    if (ALONE_DROPPED.has(word)) continue;
    const ofMonitor =
      word === '-mon' || (word === '-chardev' && monitors.has(/(?:^|,)id=([^,]+)/.exec(value)?.[1] ?? ''));
    if (WITH_VALUE_DROPPED.has(word) || ofMonitor) {
      at += 1;
      continue;
    }
    if (word === '-nographic') kept.push('-display', 'none', '-serial', 'null');
    else kept.push(word);
  }
  return kept;
}

/** The command for another host: its disks at their new places, logs and sockets in that host's own folder. */
export function relocate(command: readonly string[], disks: readonly RelocatedDisk[], runFolder: string): string[] {
  const rawFiles = new Set(disks.filter(({ raw }) => raw).map(({ from }) => from));
  const blockdevs = command.filter((_, index) => command[index - 1] === '-blockdev').map(blockdevOf);
  const rawNodes = new Set(
    blockdevs.filter((node) => rawFiles.has(filenameOf(node) ?? '')).map((node) => node['node-name']),
  );
  return guestOwn(command).map((word, index, all) => {
    const flag = all[index - 1] ?? '';
    if (STREAM_FLAGS.has(flag)) return relocateStream(word, runFolder);
    const moved = disks.reduce((text, { from, to }) => replacePath(text, from, to), word);
    if (flag === '-blockdev') {
      const node = blockdevOf(word);
      return rawFiles.has(filenameOf(node) ?? '') || (node.file !== undefined && rawNodes.has(node.file))
        ? rawBlockdev(moved)
        : moved;
    }
    return disks.some(({ raw, from, to }) => raw && replacePath(word, from, to) !== word) ? rawDrive(moved) : moved;
  });
}

/** Absolute paths of files that a command names besides the disks given; what exists of them is needed elsewhere too. */
export function namedFiles(command: readonly string[], disks: readonly string[]): string[] {
  const found = new Set<string>();
  for (const [index, word] of command.entries()) {
    if (index === 0 || STREAM_FLAGS.has(command[index - 1] ?? '')) continue;
    for (const piece of word.split(/[,="]/))
      if (
        piece.startsWith('/') &&
        !disks.includes(piece) &&
        !piece.startsWith('/dev/') &&
        !piece.startsWith('/machine')
      )
        found.add(piece);
  }
  return [...found];
}

/** What a QEMU is started for: to run its guest, or to wait for one that a migration brings. */
export type GuestPurpose = 'run' | 'incoming';

/** The arguments that DWCP adds to run a guest on this host. */
export function ownArguments(places: RunPlaces, purpose: GuestPurpose): string[] {
  const monitors = [
    '-monitor',
    'none',
    '-qmp',
    `unix:${places.qmpPath},server=on,wait=off`,
    '-qmp',
    `unix:${places.monitorPath},server=on,wait=off`,
  ];
  return purpose === 'incoming' ? [...monitors, '-S', '-incoming', `unix:${places.incomingPath}`] : monitors;
}

/** Paths of disks that a command names with -drive, -hda and the like, writable ones. */
export function diskPathsOf(command: readonly string[]): string[] {
  const paths: string[] = [];
  for (const [index, word] of command.entries()) {
    const flag = command[index - 1] ?? '';
    if (/^-hd[a-d]$/.test(flag)) paths.push(word);
    if (flag !== '-drive' && flag !== '-blockdev') continue;
    if (/media=cdrom|readonly=on|read-only=on|snapshot=on|if=pflash/.test(word)) continue;
    const path = word.startsWith('{')
      ? /"filename":\s*"([^"]+)"/.exec(word)?.[1]
      : /(?:^|,)(?:file|file\.filename|filename)=([^,]+)/.exec(word)?.[1];
    if (path?.startsWith('/')) paths.push(path);
  }
  return paths;
}

function replacePath(text: string, from: string, to: string): string {
  const escaped = from.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
  return text.replace(new RegExp(`(^|[="':])${escaped}(?=$|[,"'])`, 'g'), (_, before: string) => `${before}${to}`);
}

/** What arrives is the disk's content, so it is raw there, whatever it was. */
function rawDrive(text: string): string {
  if (!/(^|,)file(\.filename)?=/.test(text)) return text;
  const bare = text
    .split(',')
    .filter(
      (part) =>
        !/^(format|driver|l2-cache-size|cache-size|lazy-refcounts|refcount-cache-size|cache-clean-interval|overlap-check)=/.test(
          part,
        ),
    );
  return [...bare, 'format=raw'].join(',');
}

function rawBlockdev(text: string): string {
  if (text.startsWith('{')) return text.replace(/"driver":\s*"qcow2"/, '"driver":"raw"');
  return text.replace(/(^|,)driver=qcow2(?=,|$)/, '$1driver=raw');
}

/** `file:/x/serial.log`, `unix:/x/sock,server=on`, `socket,id=a,path=/x/sock`, `stdio`, `mon:stdio`, `pty`: made this host's own. */
function relocateStream(value: string, runFolder: string): string {
  if (value === 'stdio' || value === 'mon:stdio' || value === 'pty') return `file:${join(runFolder, 'serial.log')}`;
  const moved = (path: string): string => join(runFolder, basename(path));
  return value
    .replace(/^(file:|unix:)(\/[^,]+)/, (_, kind: string, path: string) => `${kind}${moved(path)}`)
    .replace(/(^|,)path=(\/[^,]+)/, (_, before: string, path: string) => `${before}path=${moved(path)}`);
}

/** The command with its machine named by version: an alias means another machine to another QEMU. */
export function pinMachine(command: readonly string[], machine: string): string[] {
  const at = command.findIndex((word) => word === '-M' || word === '-machine');
  if (at < 0) return [...command, '-machine', machine];
  return command.map((word, index) => {
    if (index !== at + 1) return word;
    const [first = '', ...rest] = word.split(',');
    if (!first.includes('=')) return [machine, ...rest].join(',');
    const others = [first, ...rest].filter((part) => !part.startsWith('type='));
    return [machine, ...others].join(',');
  });
}
