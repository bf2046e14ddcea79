/**
 * A guest's command made another host's: its disks at their new places, raw where their content is what arrives, its consoles and
 * networks by relocate-consoles.ts and relocate-networks.ts. Whatever else it names stays, and is looked at afterwards, as it then is.
 */
import type { GuestConsole } from '../../model/guest-console';
import { guestOwn } from './guest-command';
import { asDrive, bottomDriver, driveOf, nodeOf, pathOfDrive, pathOfNode } from './guest-disks';
import { type OptionText, type Pair, printOptionText, valueIn } from './option-text';
import { type OptionWord, optionWords, printWords } from './option-words';
import { Consoles, type PortSupply } from './relocate-consoles';
import { type NetworkPlaces, relocateNetwork } from './relocate-networks';

export interface RelocatedDisk {
  readonly from: string;
  readonly to: string;
  /** What arrives is the disk's content; else it is the file that it was. */
  readonly raw: boolean;
  /** Of a device that is larger than the disk: so much of it the guest is shown. */
  readonly shownBytes?: number;
  /** Of the disk: a file of that size is shown whole, and needs no word for it. */
  readonly sizeBytes?: number;
}

/** Keys that only another format than raw has, or that show a part of a file. */
const NOT_RAW =
  /^(format|driver|backing|data-file|offset|size|overlap-check|lazy-refcounts|[\w-]*cache-[\w-]+|[\w-]*discard-[\w-]+)(\.|$)/;

/** What a host has for a guest that comes to it. */
export interface HostPlaces {
  readonly networks?: NetworkPlaces;
  /** For what the guest listens on. */
  readonly ports?: PortSupply;
}

/** The command for another host. */
export function relocate(
  command: readonly string[],
  disks: readonly RelocatedDisk[],
  runFolder: string,
  host: HostPlaces = {},
): string[] {
  return relocateTelling(command, disks, runFolder, host).command;
}

/** As relocate(), and where the guest's consoles are then. */
export function relocateTelling(
  command: readonly string[],
  disks: readonly RelocatedDisk[],
  runFolder: string,
  { networks = { map: [], bridges: {} }, ports }: HostPlaces = {},
): { readonly command: string[]; readonly consoles: readonly GuestConsole[] } {
  const [program = '', ...args] = guestOwn(command);
  const options = optionWords(args).map(asDrive);
  const nodes = new Nodes(options, disks);
  const consoles = new Consoles(options, runFolder, ports);
  const moved = options.flatMap((option): OptionWord[] => {
    const { flag, value } = option;
    if (value === undefined) return [option];
    const console = consoles.relocate(option);
    if (console) return [console];
    const drive = driveOf(option);
    if (drive) return [{ flag, value: printOptionText(relocateDrive(drive, disks)) }];
    return flag === '-blockdev' ? nodes.relocate(option) : [relocateNetwork(option, networks)];
  });
  const words = [...moved, ...consoles.serialOfAWindow(options)];
  return { command: [program.slice(program.lastIndexOf('/') + 1), ...printWords(words)], consoles: consoles.told };
}

function withPath({ key, value }: Pair, disk: RelocatedDisk): Pair {
  if ((key === 'file' || key === 'filename' || key === 'file.filename') && value === disk.from)
    return { key, value: disk.to };
  const namesBottom = (key === 'driver' || key === 'file.driver') && (value === 'file' || value === 'host_device');
  return { key, value: namesBottom ? bottomDriver(disk.to) : value };
}

/** What a raw node says of a disk that is not all of its device. */
function shown({ shownBytes }: RelocatedDisk): Pair[] {
  return shownBytes === undefined ? [] : [{ key: 'size', value: String(shownBytes) }];
}

function isToldAnew({ key, value }: Pair, { shownBytes, sizeBytes }: RelocatedDisk): boolean {
  return key === 'size' && (shownBytes !== undefined || value === String(sizeBytes));
}

function relocateDrive(drive: OptionText, disks: readonly RelocatedDisk[]): OptionText {
  const disk = disks.find(({ from }) => from === pathOfDrive(drive));
  if (!disk) return drive;
  const pairs = drive.pairs.map((pair) => withPath(pair, disk));
  const raw = [...pairs.filter(({ key }) => !NOT_RAW.test(key)), { key: 'format', value: 'raw' }];
  return {
    pairs: [...(disk.raw ? raw : pairs.filter((pair) => !isToldAnew(pair, disk))), ...shown(disk)],
  };
}

/** The -blockdev options of a command, which name one another. */
class Nodes {
  readonly #disks: readonly RelocatedDisk[];
  /** What is relocated, by the name of the node that opens it. */
  readonly #opened: ReadonlyMap<string, RelocatedDisk>;
  /** Bases of disks that arrive whole. */
  readonly #left = new Set<string>();

  constructor(options: readonly OptionWord[], disks: readonly RelocatedDisk[]) {
    this.#disks = disks;
    const nodes = options.flatMap((option) => nodeOf(option) ?? []);
    this.#opened = new Map(
      nodes.flatMap((node) => {
        const disk = this.#diskOf(node);
        return disk ? [[nameOf(node), disk] as const] : [];
      }),
    );
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
    return [{ flag: option.flag, value: printOptionText(this.#relocated(node)) }];
  }

  #diskOf(node: OptionText): RelocatedDisk | undefined {
    return this.#disks.find(({ from }) => from === pathOfNode(node));
  }

  #relocated(node: OptionText): OptionText {
    if (this.#isRaw(node)) return this.#asRaw(node);
    const [disk, moved] = [this.#above(node), this.#moved(node)];
    if (!disk) return moved;
    return disk.shownBytes === undefined ? withoutSize(moved, disk) : withSize(moved, disk.shownBytes);
  }

  /** The disk of a node that says how its bytes are read. */
  #above(node: OptionText): RelocatedDisk | undefined {
    if (valueIn(node, 'filename') !== undefined) return undefined;
    return this.#diskOf(node) ?? this.#opened.get(valueIn(node, 'file') ?? '');
  }

  #isRaw(node: OptionText): boolean {
    return this.#above(node)?.raw ?? false;
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
    const raw = {
      pairs: [{ key: 'driver', value: 'raw' }, ...kept],
      ...(unsaid !== undefined && { unsaid }),
      ...(json && {
        json: { driver: 'raw', ...Object.fromEntries(Object.entries(json).filter(([key]) => !NOT_RAW.test(key))) },
      }),
    };
    const size = this.#above(node)?.shownBytes;
    return size === undefined ? raw : withSize(raw, size);
  }
}

function withoutSize(node: OptionText, disk: RelocatedDisk): OptionText {
  if (!node.pairs.some((pair) => isToldAnew(pair, disk))) return node;
  const json = node.json && Object.fromEntries(Object.entries(node.json).filter(([key]) => key !== 'size'));
  return { ...node, pairs: node.pairs.filter(({ key }) => key !== 'size'), ...(json && { json }) };
}

function withSize(node: OptionText, size: number): OptionText {
  return {
    ...node,
    pairs: [...node.pairs.filter(({ key }) => key !== 'size'), { key: 'size', value: String(size) }],
    ...(node.json && { json: { ...node.json, size } }),
  };
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
