/**
 * The disks that a guest's command names, and in what form each lies in its file. What QEMU would find out by itself from a disk's
 * first bytes is never found out here: a guest can write any to a raw disk.
 */
import { isDevicePath } from '../../system/block-device';
import { isWritable } from './allowed-disks';
import { type OptionText, parseOptionText, printOptionText, valueIn } from './option-text';
import { type OptionWord, optionWords, printWords } from './option-words';

const SHORT = /^-hd([a-d])$/;
const FIRMWARE = { key: 'if', value: 'pflash' } as const;

/** As what QEMU opens a disk's bytes: it takes each of the two for its own kind alone. */
export function bottomDriver(path: string): 'file' | 'host_device' {
  return isDevicePath(path) ? 'host_device' : 'file';
}

/** The node of a -blockdev, or undefined where it cannot be read. */
export function nodeOf({ flag, value }: OptionWord): OptionText | undefined {
  return flag === '-blockdev' && value !== undefined ? parseOptionText(value, 'driver') : undefined;
}

export function driveOf({ flag, value }: OptionWord): OptionText | undefined {
  return flag === '-drive' && value !== undefined ? parseOptionText(value) : undefined;
}

export function pathOfNode(node: OptionText): string | undefined {
  return valueIn(node, 'filename', 'file.filename');
}

export function pathOfDrive(drive: OptionText): string | undefined {
  return valueIn(drive, 'file', 'file.filename', 'filename');
}

/** -hda, -pflash and the like as a -drive, which has room for a format; any other option as it is. */
export function asDrive(option: OptionWord): OptionWord {
  const letter = SHORT.exec(option.flag)?.[1];
  if (option.flag === '-pflash' && option.value !== undefined)
    return { flag: '-drive', value: printOptionText({ pairs: [FIRMWARE, { key: 'file', value: option.value }] }) };
  if (option.value === undefined || (letter === undefined && option.flag !== '-cdrom')) return option;
  const pairs = [
    { key: 'file', value: option.value },
    // What is read from a disc is never anything but what it is.
    ...(letter === undefined ? [{ key: 'format', value: 'raw' }] : []),
    { key: 'index', value: String(letter === undefined ? 2 : 'abcd'.indexOf(letter)) },
    { key: 'media', value: letter === undefined ? 'cdrom' : 'disk' },
  ];
  return { flag: '-drive', value: printOptionText({ pairs }) };
}

/**
 * Paths of disks that a command names with -drive, -hda and the like, writable ones; behind them those of its firmware's variables, which
 * are small disks too.
 */
export function diskPathsOf(command: readonly string[]): string[] {
  const options = optionWords(command.slice(1));
  const ofFirmware = firmwareNodes(options);
  const found = options.flatMap((option) => {
    const drive = driveOf(asDrive(option));
    const node = nodeOf(option);
    const described = drive ?? node;
    if (!described || !isWritable(described)) return [];
    const path = drive ? pathOfDrive(drive) : node && pathOfNode(node);
    const firmware = valueIn(described, 'if') === 'pflash' || ofFirmware.has(valueIn(described, 'node-name') ?? '');
    return path?.startsWith('/') ? [{ path, firmware }] : [];
  });
  return [...found.filter(({ firmware }) => !firmware), ...found.filter(({ firmware }) => firmware)].map(
    ({ path }) => path,
  );
}

/** Nodes that the machine has as its flash, and the files below them. */
function firmwareNodes(options: readonly OptionWord[]): ReadonlySet<string> {
  const ofMachine = options.flatMap(({ flag, value }) => {
    const parsed = flag === '-M' || flag === '-machine' ? parseOptionText(value ?? '', 'type') : undefined;
    return (parsed?.pairs ?? []).flatMap((pair) => (/^pflash[01]$/.test(pair.key) ? [pair.value] : []));
  });
  const names = new Set(ofMachine);
  for (const node of options.flatMap((option) => nodeOf(option) ?? []))
    if (names.has(valueIn(node, 'node-name') ?? '')) names.add(valueIn(node, 'file') ?? '');
  return names;
}

/**
 * Files that a command opens for writing only by leaving it unsaid, below nodes that are all read-only: what is read is said to be. Else
 * firmware and bases that many guests read would be taken for this one's disks.
 */
export function sayReadOnly(options: readonly OptionWord[]): OptionWord[] {
  const nodes = options.flatMap((option) => nodeOf(option) ?? []);
  const isRead = (node: OptionText): boolean => {
    if (!isWritable(node)) return true;
    if (node.pairs.some(({ key }) => key === 'read-only')) return false;
    const name = valueIn(node, 'node-name');
    const above = nodes.filter((each) => each !== node && name !== undefined && valueIn(each, 'file') === name);
    return above.length > 0 && above.every(isRead);
  };
  const read = new Set(
    nodes.filter((node) => isWritable(node) && isRead(node)).map((node) => valueIn(node, 'node-name')),
  );
  return options.map((option) => {
    const node = nodeOf(option);
    if (!node || !isWritable(node) || !read.has(valueIn(node, 'node-name') ?? '')) return option;
    const pairs = [...node.pairs, { key: 'read-only', value: 'on' }];
    const json = node.json && { ...node.json, 'read-only': true };
    return { flag: option.flag, value: printOptionText({ ...node, pairs, ...(json && { json }) }) };
  });
}

/** How often a command names a file as a drive or a node. */
export function timesNamed(command: readonly string[], path: string): number {
  const named = optionWords(command.slice(1)).map((option) => {
    const [drive, node] = [driveOf(asDrive(option)), nodeOf(option)];
    return drive ? pathOfDrive(drive) : node && pathOfNode(node);
  });
  return named.filter((each) => each === path).length;
}

/** Whether there is a word for how much of its bytes a guest is shown: a drive has it, and a node above the one that opens them. */
export function hasRoomForSize(command: readonly string[], path: string): boolean {
  const nodes = optionWords(command.slice(1)).flatMap((option) => nodeOf(option) ?? []);
  const node = nodes.find((each) => pathOfNode(each) === path);
  if (!node || valueIn(node, 'filename') === undefined) return true;
  return nodes.some((each) => valueIn(each, 'file') === valueIn(node, 'node-name'));
}

/** The format that a command names for the file at `path`; undefined where QEMU is left to find out. */
export function namedFormat(command: readonly string[], path: string): string | undefined {
  const options = optionWords(command.slice(1));
  const nodes = options.flatMap((option) => nodeOf(option) ?? []);
  const node = nodes.find((each) => pathOfNode(each) === path);
  if (node) {
    if (valueIn(node, 'filename') === undefined) return valueIn(node, 'driver');
    const above = nodes.find((each) => valueIn(each, 'file') === valueIn(node, 'node-name'));
    return (above && valueIn(above, 'driver')) ?? 'raw';
  }
  const drive = options.flatMap((option) => driveOf(option) ?? []).find((each) => pathOfDrive(each) === path);
  return drive && valueIn(drive, 'format', 'driver');
}

/** The command with a format for each disk that names none, where one is known. */
export function nameFormats(command: readonly string[], formatOf: (path: string) => string | undefined): string[] {
  const [program = '', ...args] = command;
  return [
    program,
    ...printWords(
      optionWords(args).map((option) => {
        const asked = asDrive(option);
        const drive = driveOf(asked);
        const path = drive && pathOfDrive(drive);
        if (!drive || path === undefined || path === '' || valueIn(drive, 'format', 'driver') !== undefined)
          return option;
        const format = formatOf(path) ?? (valueIn(drive, 'media') === 'cdrom' ? 'raw' : undefined);
        return format === undefined
          ? option
          : { flag: '-drive', value: printOptionText({ pairs: [...drive.pairs, { key: 'format', value: format }] }) };
      }),
    ),
  ];
}
