/**
 * A guest's command made another host's: its disks at their new places, raw where their content is what arrives, its streams and
 * screens in that host's own folder. Whatever else it names stays, and is looked at afterwards, as it then is.
 */
import { guestOwn } from './guest-command';
import { asDrive, driveOf, nodeOf, pathOfDrive, pathOfNode } from './guest-disks';
import { type OptionText, type Pair, parseOptionText, printOptionText, valueIn } from './option-text';
import { type OptionWord, optionWords, printWords } from './option-words';
import { StreamPlaces } from './run-places';

export interface RelocatedDisk {
  readonly from: string;
  readonly to: string;
  /** What arrives is the disk's content; else it is the file that it was. */
  readonly raw: boolean;
}

/** Keys that only another format than raw has, or that show a part of a file. */
const NOT_RAW =
  /^(format|driver|backing|data-file|offset|size|overlap-check|lazy-refcounts|[\w-]*cache-[\w-]+|[\w-]*discard-[\w-]+)(\.|$)/;
const STREAM_FLAGS = new Set(['-serial', '-parallel', '-debugcon', '-chardev']);

/** The command for another host. */
export function relocate(command: readonly string[], disks: readonly RelocatedDisk[], runFolder: string): string[] {
  const [program = '', ...args] = guestOwn(command);
  const options = optionWords(args).map(asDrive);
  const nodes = new Nodes(options, disks);
  const places = new StreamPlaces(runFolder);
  const moved = options.flatMap((option): OptionWord[] => {
    const { flag, value } = option;
    if (value === undefined) return [option];
    if (STREAM_FLAGS.has(flag)) return [{ flag, value: relocateStream(flag, value, places) }];
    if (flag === '-vnc' && value !== 'none') return [{ flag, value: `unix:${places.place('/vnc.sock')}` }];
    if (flag === '-display' && /^(gtk|sdl|curses|cocoa)$/.test(value)) return [{ flag, value: 'none' }];
    const drive = driveOf(option);
    if (drive) return [{ flag, value: printOptionText(relocateDrive(drive, disks)) }];
    return flag === '-blockdev' ? nodes.relocate(option) : [option];
  });
  return [program.slice(program.lastIndexOf('/') + 1), ...printWords(moved)];
}

function withPath({ key, value }: Pair, disk: RelocatedDisk): Pair {
  return (key === 'file' || key === 'filename' || key === 'file.filename') && value === disk.from
    ? { key, value: disk.to }
    : { key, value };
}

function relocateDrive(drive: OptionText, disks: readonly RelocatedDisk[]): OptionText {
  const disk = disks.find(({ from }) => from === pathOfDrive(drive));
  if (!disk) return drive;
  const pairs = drive.pairs.map((pair) => withPath(pair, disk));
  return {
    pairs: disk.raw ? [...pairs.filter(({ key }) => !NOT_RAW.test(key)), { key: 'format', value: 'raw' }] : pairs,
  };
}

/** The -blockdev options of a command, which name one another. */
class Nodes {
  readonly #disks: readonly RelocatedDisk[];
  /** Names of nodes for files that arrive as content. */
  readonly #rawFiles: ReadonlySet<string>;
  /** Bases of disks that arrive whole. */
  readonly #left = new Set<string>();

  constructor(options: readonly OptionWord[], disks: readonly RelocatedDisk[]) {
    this.#disks = disks;
    const nodes = options.flatMap((option) => nodeOf(option) ?? []);
    this.#rawFiles = new Set(nodes.filter((node) => this.#diskOf(node)?.raw).map((node) => nameOf(node)));
    const byName = new Map(nodes.map((node) => [nameOf(node), node]));
    const leave = (name: string | undefined): void => {
      const node = name === undefined ? undefined : byName.get(name);
      if (name === undefined || !node || this.#left.has(name)) return;
      this.#left.add(name);
      leave(valueIn(node, 'file'));
      leave(valueIn(node, 'backing'));
    };
    for (const node of nodes) if (this.#isRaw(node)) leave(valueIn(node, 'backing'));
  }

  relocate(option: OptionWord): OptionWord[] {
    const node = nodeOf(option);
    if (!node) return [option];
    if (this.#left.has(nameOf(node))) return [];
    return [{ flag: option.flag, value: printOptionText(this.#isRaw(node) ? this.#asRaw(node) : this.#moved(node)) }];
  }

  #diskOf(node: OptionText): RelocatedDisk | undefined {
    return this.#disks.find(({ from }) => from === pathOfNode(node));
  }

  #isRaw(node: OptionText): boolean {
    return (
      valueIn(node, 'filename') === undefined &&
      (this.#diskOf(node)?.raw ?? this.#rawFiles.has(valueIn(node, 'file') ?? ''))
    );
  }

  #moved(node: OptionText): OptionText {
    const disk = this.#diskOf(node);
    if (!disk) return node;
    return {
      ...node,
      pairs: node.pairs.map((pair) => withPath(pair, disk)),
      ...(node.json && { json: replaceIn(node.json, disk) }),
    };
  }

  #asRaw(node: OptionText): OptionText {
    const { pairs, json, unsaid } = this.#moved(node);
    const kept = pairs.filter(({ key }) => !NOT_RAW.test(key));
    return {
      pairs: [{ key: 'driver', value: 'raw' }, ...kept],
      ...(unsaid !== undefined && { unsaid }),
      ...(json && {
        json: { driver: 'raw', ...Object.fromEntries(Object.entries(json).filter(([key]) => !NOT_RAW.test(key))) },
      }),
    };
  }
}

function nameOf(node: OptionText): string {
  return valueIn(node, 'node-name') ?? '';
}

function replaceIn(json: Readonly<Record<string, unknown>>, disk: RelocatedDisk): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(json).map(([key, value]) => {
      if (typeof value === 'string') return [key, withPath({ key, value }, disk).value];
      const inner = key === 'file' && typeof value === 'object' && value !== null;
      return [key, inner ? replaceIn(value as Record<string, unknown>, disk) : value];
    }),
  );
}

/** `file:/x/serial.log`, `unix:/x/sock,server=on`, `socket,id=a,path=/x/sock`, `stdio`, `mon:stdio`, `pty`: made this host's own. */
function relocateStream(flag: string, value: string, places: StreamPlaces): string {
  if (flag === '-chardev') return relocateChardev(value, places);
  if (value === 'stdio' || value === 'mon:stdio' || value === 'pty') return `file:${places.place('/serial.log')}`;
  const [, kind, path, rest = ''] = /^(file|unix):(\/[^,]*)(?:,(.*))?$/s.exec(value) ?? [];
  if (kind === undefined || path === undefined) return value;
  const further = rest === '' ? [] : (parseOptionText(rest)?.pairs ?? []);
  return [
    `${kind}:${places.place(path)}`,
    ...(further.length === 0 ? [] : [printOptionText({ pairs: unwaiting(further) })]),
  ].join(',');
}

function relocateChardev(value: string, places: StreamPlaces): string {
  const parsed = parseOptionText(value, 'backend');
  if (!parsed || parsed.json) return value;
  const pairs = parsed.pairs.map(({ key, value: text }) =>
    (key === 'path' || key === 'logfile') && text.startsWith('/')
      ? { key, value: places.place(text) }
      : { key, value: text },
  );
  // One that calls waits for nobody.
  const listens = valueIn(parsed, 'backend') === 'socket' && valueIn(parsed, 'server') !== undefined;
  return printOptionText({ ...parsed, pairs: listens ? unwaiting(pairs) : pairs });
}

/** A guest that arrives waits for nobody to look at it. */
function unwaiting(pairs: readonly Pair[]): Pair[] {
  return [...pairs.filter(({ key }) => key !== 'wait'), { key: 'wait', value: 'off' }];
}
