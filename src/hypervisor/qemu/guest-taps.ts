/**
 * The taps of a guest at its source: which of them a descriptor is, that another process has opened for its QEMU, and in which bridge each
 * is. By these names its destination looks for what it has in their place (network-map.ts).
 */
import { readFileSync, readlinkSync } from 'node:fs';
import { basename, join } from 'node:path';
import { type Pair, parseOptionText, printOptionText, valueIn } from './option-text';
import { optionWords, printWords } from './option-words';

const FLAGS = ['-netdev', '-nic', '-net'];
const GIVEN = ['fd', 'fds', 'vhostfd', 'vhostfds'];
const NAME = /^[\w.@+-]{1,15}$/;

/** Descriptors of taps by the names of these: what another process has opened cannot be opened again. @param pid of its QEMU */
export function nameTaps(command: readonly string[], pid: number): string[] {
  const [program = '', ...args] = command;
  return [
    program,
    ...printWords(
      optionWords(args).map(({ flag, value }) => ({
        flag,
        ...(value !== undefined && { value: FLAGS.includes(flag) ? nameTap(value, pid) : value }),
      })),
    ),
  ];
}

/** What cannot be seen stays as it is, and is refused. */
function nameTap(text: string, pid: number): string {
  const parsed = parseOptionText(text, 'type');
  if (!parsed || valueIn(parsed, 'type') !== 'tap') return text;
  const descriptors = (valueIn(parsed, 'fd', 'fds') ?? '').split(':').filter((fd) => /^\d+$/.test(fd));
  const name = descriptors.length === 0 ? undefined : tapOf(pid, descriptors[0] ?? '');
  if (name === undefined) return text;
  const kept = parsed.pairs.filter(({ key }) => ![...GIVEN, 'type'].includes(key));
  const said: Pair[] = [
    ...(descriptors.length > 1 ? [{ key: 'queues', value: String(descriptors.length) }] : []),
    { key: 'ifname', value: name },
    { key: 'script', value: 'no' },
    { key: 'downscript', value: 'no' },
  ];
  return printOptionText({ pairs: [{ key: 'type', value: 'tap' }, ...kept, ...said], unsaid: 'type' });
}

/** The kernel shows what a descriptor of /dev/net/tun is of. */
function tapOf(pid: number, fd: string): string | undefined {
  try {
    const name = /^iff:\s*(\S+)$/m.exec(readFileSync(`/proc/${pid}/fdinfo/${fd}`, 'utf8'))?.[1];
    return name !== undefined && NAME.test(name) ? name : undefined;
  } catch {
    return undefined;
  }
}

/** The bridges of a host's taps that a command names, by these. */
export function bridgesOf(command: readonly string[]): Record<string, string> {
  const taps = optionWords(command.slice(1)).flatMap(({ flag, value }) => {
    const parsed = FLAGS.includes(flag) && value !== undefined ? parseOptionText(value, 'type') : undefined;
    return (parsed && valueIn(parsed, 'ifname')) ?? [];
  });
  return Object.fromEntries(
    taps.flatMap((tap) => [bridgeOf(tap)].flatMap((bridge) => (bridge === undefined ? [] : [[tap, bridge]]))),
  );
}

function bridgeOf(tap: string): string | undefined {
  if (!NAME.test(tap)) return undefined;
  try {
    const bridge = basename(readlinkSync(join('/sys/class/net', tap, 'master')));
    return NAME.test(bridge) ? bridge : undefined;
  } catch {
    return undefined;
  }
}
