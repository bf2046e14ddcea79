/**
 * What lies in a guest's drives now. A command says what lay in them when it was started; discs are taken out and exchanged by the
 * monitor, and the destination opens what the command names. So it is made to say what QEMU says. Disks that the guest writes are
 * guest-inspection.ts's.
 */
import type { DwcpError } from '../../model/errors';
import { cannotBeMovedLive } from '../../model/guest-refusals';
import { isWritable } from './allowed-disks';
import { asDrive, driveOf, nodeOf, pathOfDrive, pathOfNode } from './guest-disks';
import { type OptionText, type Pair, parseOptionText, printOptionText, valueIn } from './option-text';
import { type OptionWord, optionWords, printWords } from './option-words';
import type { BlockDevice } from './qmp-schemas';

/** What is left of a drive without its medium. */
const OF_THE_DRIVE = new Set('if bus unit index id media werror rerror'.split(' '));
const TAKES_DISCS = /^(ide-cd|scsi-cd|floppy)$/;
/** The drive that a machine has by itself, where nothing is said of one. */
const BY_ITSELF = /^ide\d-cd0$/;

interface Medium {
  readonly path: string;
  readonly format: string;
}

/** The drives that a command gives: by -drive, or as a device of its own with a node in it. */
interface Drive {
  readonly at: number;
  /** As which QEMU knows it; undefined where it has named it itself. */
  readonly known: BlockDevice | undefined;
  readonly path: string | undefined;
}

/** @param devices by paths of this host @throws GUEST_REFUSED where a disc lies in a drive that the command does not give */
export function withMedia(command: readonly string[], devices: readonly BlockDevice[]): string[] {
  const [program = '', ...args] = command;
  const options = optionWords(args);
  const drives = drivesIn(options, devices);
  const changed = drives.filter(({ known, path }) => known && isPlain(known) && mediumOf(known)?.path !== path);
  const news = new Map(changed.map(({ at, known }) => [at, known && mediumOf(known)] as const));
  const inUse = new Set(devices.flatMap((device) => mediumOf(device)?.path ?? []));
  const unsure = devices.every(isPlain)
    ? drives.filter(({ known, path }) => !known && (path === undefined || !inUse.has(path)))
    : [];
  for (const { at, path } of unsure) if (path !== undefined) news.set(at, undefined);
  const further: OptionWord[] = [];
  const [stranger, ...others] = strangersIn(devices, options, changed);
  if (stranger) {
    const [place, ...more] = unsure;
    if (others.length === 0 && place && more.length === 0) news.set(place.at, stranger.medium);
    else if (others.length === 0 && !place && BY_ITSELF.test(stranger.device.device))
      further.push(disc(stranger.medium));
    else throw unnamed(stranger);
  }
  return [program, ...printWords([...applied(options, news), ...further])];
}

function unnamed({ device: { device, qdev = '' }, medium }: Stranger): DwcpError {
  return cannotBeMovedLive(
    `its drive ${device || qdev} holds ${medium.path}, which its command line does not name: eject it (eject on its monitor), or ` +
      'start it anew with it',
  );
}

function mediumOf({ inserted }: BlockDevice): Medium | undefined {
  return inserted && { path: inserted.image.filename, format: inserted.drv };
}

/** QEMU describes what it cannot say as a path (json:...), and a drive like that is left as the command has it. */
function isPlain(device: BlockDevice): boolean {
  return mediumOf(device)?.path.startsWith('/') ?? true;
}

interface Stranger {
  readonly device: BlockDevice;
  readonly medium: Medium;
}

/** Discs that neither the command names, nor a drive of it is known to hold. */
function strangersIn(
  devices: readonly BlockDevice[],
  options: readonly OptionWord[],
  changed: readonly Drive[],
): Stranger[] {
  const named = new Set(
    options.flatMap((option) => {
      const [drive, node] = [driveOf(asDrive(option)), nodeOf(option)];
      return (drive ? pathOfDrive(drive) : node && pathOfNode(node)) ?? [];
    }),
  );
  return devices.flatMap((device) => {
    const medium = mediumOf(device);
    const isDisc = device.removable === true && device.inserted?.ro === true;
    const isKnown = changed.some(({ known }) => known === device);
    return medium && isDisc && isPlain(device) && !isKnown && !named.has(medium.path) ? [{ device, medium }] : [];
  });
}

function drivesIn(options: readonly OptionWord[], devices: readonly BlockDevice[]): Drive[] {
  const nodes = new Map(
    options.flatMap((option) => nodeOf(option) ?? []).map((node) => [valueIn(node, 'node-name'), node]),
  );
  return options.flatMap((option, at): Drive[] => {
    const drive = driveOf(asDrive(option));
    if (drive) {
      const [id, path] = [valueIn(drive, 'id'), pathOfDrive(drive) || undefined];
      const known = id === undefined ? undefined : devices.find(({ device }) => device === id);
      const takesDiscs = valueIn(drive, 'media') === 'cdrom' || valueIn(drive, 'if') === 'floppy';
      if (path !== undefined && isWritable(drive)) return [];
      return (known ? known.removable === true : takesDiscs) ? [{ at, known, path }] : [];
    }
    const device = deviceOf(option);
    const [id, name] = [device && valueIn(device, 'id'), device && valueIn(device, 'drive')];
    const node = name === undefined ? undefined : nodes.get(name);
    if (!device || !TAKES_DISCS.test(valueIn(device, 'driver') ?? '') || (name !== undefined && !node)) return [];
    const known = id === undefined ? undefined : devices.find(({ qdev }) => qdev === id);
    return [{ at, known, path: node && fileUnder(node, nodes) }];
  });
}

function deviceOf({ flag, value }: OptionWord): OptionText | undefined {
  return flag === '-device' && value !== undefined ? parseOptionText(value, 'driver') : undefined;
}

type Nodes = ReadonlyMap<string | undefined, OptionText>;

function fileUnder(node: OptionText, nodes: Nodes): string | undefined {
  return chainOf(node, nodes)
    .map(pathOfNode)
    .find((path) => path !== undefined);
}

function chainOf(node: OptionText, nodes: Nodes): OptionText[] {
  const chain = [node];
  for (
    let next = nodes.get(valueIn(node, 'file') ?? '');
    next && !chain.includes(next);
    next = nodes.get(valueIn(next, 'file') ?? '')
  )
    chain.push(next);
  return chain;
}

/** @param news what lies in the drive of that option now; undefined: nothing */
function applied(options: readonly OptionWord[], news: ReadonlyMap<number, Medium | undefined>): OptionWord[] {
  const nodes = new Map(
    options.flatMap((option) => nodeOf(option) ?? []).map((node) => [valueIn(node, 'node-name'), node]),
  );
  const left = new Set(
    [...news.keys()].flatMap((at) => {
      const device = options[at] && deviceOf(options[at]);
      const node = device && nodes.get(valueIn(device, 'drive') ?? '');
      return node ? chainOf(node, nodes).map((each) => valueIn(each, 'node-name')) : [];
    }),
  );
  return options.flatMap((option, at) => {
    const node = nodeOf(option);
    if (node && left.has(valueIn(node, 'node-name'))) return [];
    if (!news.has(at)) return [option];
    const medium = news.get(at);
    const device = deviceOf(option);
    return device ? deviceWith(device, medium, `medium-${at}`) : [driveWith(option, medium)];
  });
}

function driveWith(option: OptionWord, medium: Medium | undefined): OptionWord {
  const drive = driveOf(asDrive(option));
  const kept = (drive?.pairs ?? []).filter(({ key }) => OF_THE_DRIVE.has(key));
  return { flag: '-drive', value: printOptionText({ pairs: [...kept, ...(medium ? inDrive(medium) : [])] }) };
}

function inDrive({ path, format }: Medium): Pair[] {
  return [
    { key: 'file', value: path },
    { key: 'format', value: format },
    { key: 'readonly', value: 'on' },
  ];
}

function disc(medium: Medium): OptionWord {
  const place = [
    { key: 'index', value: '2' },
    { key: 'media', value: 'cdrom' },
  ];
  return { flag: '-drive', value: printOptionText({ pairs: [...place, ...inDrive(medium)] }) };
}

function deviceWith(device: OptionText, medium: Medium | undefined, nodeName: string): OptionWord[] {
  const pairs = device.pairs.filter(({ key }) => key !== 'drive');
  const { drive: _, ...json } = device.json ?? {};
  const bare: OptionText = { ...device, pairs, ...(device.json && { json }) };
  if (!medium) return [{ flag: '-device', value: printOptionText(bare) }];
  const node = [
    { key: 'driver', value: medium.format },
    { key: 'node-name', value: nodeName },
    { key: 'read-only', value: 'on' },
    { key: 'file.driver', value: 'file' },
    { key: 'file.filename', value: medium.path },
  ];
  const filled: OptionText = {
    ...bare,
    pairs: [...pairs, { key: 'drive', value: nodeName }],
    ...(device.json && { json: { ...json, drive: nodeName } }),
  };
  return [
    { flag: '-blockdev', value: printOptionText({ pairs: node }) },
    { flag: '-device', value: printOptionText(filled) },
  ];
}
