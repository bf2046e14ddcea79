/**
 * A guest's command made the machine that runs now: without the devices that were unplugged while it ran, with the network cards and
 * processors that were plugged in, each at its place. A destination starts that, and compares (hardware-difference.ts); what cannot be
 * written into a command is left out here, and refused there by its name.
 */
import type { GuestDevice } from '../../model/guest-hardware';
import { type OptionText, type Pair, parseOptionText, printOptionText, valueIn } from './option-text';
import { type OptionWord, optionWords, printWords } from './option-words';
import { backendsIn } from './plugged-backends';
import type { QmpClient } from './qmp-client';
import { CARD, property } from './running-hardware';
import { settingsOf } from './settings';

const PROCESSOR_PATH = /^\/machine\/peripheral\/([^/]+)$/;
/** A device's bus, and its slot and function on it, where that is PCI. */
const PCI_PLACE = /\/([^/:]+):(\d+)$/;
/** Their places are numbers of another kind. */
const NOT_PCI = /^(scsi-|usb-|ide-|virt(serialport|console)$|pc-dimm|nvdimm|isa-)/;

interface Plugged {
  readonly options: readonly OptionWord[];
  readonly devices: readonly GuestDevice[];
}

/** @returns the command, and the devices: those that were plugged in with what they are set to */
export async function asItRuns(
  qmp: QmpClient,
  command: readonly string[],
  devices: readonly GuestDevice[],
): Promise<{ readonly command: string[]; readonly devices: GuestDevice[] }> {
  const options = optionWords(command.slice(1));
  const own = new Set(options.flatMap((option) => idOf(option) ?? []));
  const cards = await pluggedCards(
    qmp,
    options,
    devices.filter(({ id, type }) => id !== undefined && !own.has(id) && CARD.test(type)),
  );
  const { processors, ids } = await pluggedProcessors(qmp, own);
  const there = new Set([...devices.flatMap(({ id }) => id ?? []), ...ids]);
  const left = options.filter((option) => there.has(idOf(option) ?? '') || idOf(option) === undefined);
  if (left.length === options.length && cards.options.length + processors.length === 0)
    return { command: [...command], devices: [...devices] };
  const byId = new Map(devices.map((device) => [device.id, device]));
  const pinned = left.map((option) => pinnedTo(option, byId.get(idOf(option))));
  return {
    command: [command[0] ?? '', ...printWords([...pinned, ...cards.options, ...processors])],
    devices: devices.map((device) => cards.devices.find(({ id }) => id !== undefined && id === device.id) ?? device),
  };
}

function deviceOf({ flag, value }: OptionWord): OptionText | undefined {
  return flag === '-device' && value !== undefined ? parseOptionText(value, 'driver') : undefined;
}

function idOf(option: OptionWord): string | undefined {
  const parsed = deviceOf(option);
  return parsed && valueIn(parsed, 'id');
}

/** What begins without one of the others would else move up to its place. */
function pinnedTo(option: OptionWord, device: GuestDevice | undefined): OptionWord {
  const parsed = deviceOf(option);
  const place = device && placeOf(device);
  if (!parsed || !place || valueIn(parsed, 'addr') !== undefined) return option;
  const more = valueIn(parsed, 'bus') === undefined ? place : place.filter(({ key }) => key === 'addr');
  return { flag: option.flag, value: printOptionText(withPairs(parsed, more)) };
}

function withPairs({ pairs, json, ...rest }: OptionText, more: readonly Pair[]): OptionText {
  const inside = json && { ...json, ...Object.fromEntries(more.map(({ key, value }) => [key, value])) };
  return { ...rest, pairs: [...pairs, ...more], ...(inside && { json: inside }) };
}

function placeOf({ type, at }: GuestDevice): Pair[] | undefined {
  const [, bus, place] = PCI_PLACE.exec(at) ?? [];
  if (bus === undefined || NOT_PCI.test(type)) return undefined;
  const number = Number(place);
  const addr = `0x${(number >> 3).toString(16)}.0x${(number & 7).toString(16)}`;
  return [
    { key: 'bus', value: bus },
    { key: 'addr', value: addr },
  ];
}

async function pluggedCards(
  qmp: QmpClient,
  options: readonly OptionWord[],
  cards: readonly GuestDevice[],
): Promise<Plugged> {
  if (cards.length === 0) return { options: [], devices: [] };
  const backends = await backendsIn(qmp);
  const known = new Set(
    options.flatMap(({ flag, value }) => {
      const parsed = flag === '-netdev' && value !== undefined ? parseOptionText(value, 'type') : undefined;
      return (parsed && valueIn(parsed, 'id')) ?? [];
    }),
  );
  const [added, whole]: [OptionWord[], GuestDevice[]] = [[], []];
  for (const card of cards) {
    const { id = '', type, mac, netdev } = card;
    const place = placeOf(card);
    const backend = netdev === undefined ? undefined : backends.get(netdev);
    if (!place || mac === undefined || netdev === undefined || (!known.has(netdev) && backend === undefined)) continue;
    if (!known.has(netdev) && backend !== undefined) added.push({ flag: '-netdev', value: backend });
    const { all, unusual } = await settingsOf(qmp, `/machine/peripheral/${id}`, type);
    const said = [
      { key: 'id', value: id },
      { key: 'netdev', value: netdev },
      { key: 'mac', value: mac },
      ...place,
      ...unusual,
    ];
    added.push({
      flag: '-device',
      value: printOptionText({ pairs: [{ key: 'driver', value: type }, ...said], unsaid: 'driver' }),
    });
    whole.push({ ...card, settings: all });
  }
  return { options: added, devices: whole };
}

async function pluggedProcessors(
  qmp: QmpClient,
  own: ReadonlySet<string>,
): Promise<{ readonly processors: OptionWord[]; readonly ids: readonly string[] }> {
  const named = (await qmp.execute('query-cpus-fast')).flatMap(({ 'qom-path': path, props }) => {
    const id = PROCESSOR_PATH.exec(path)?.[1];
    return id === undefined ? [] : [{ id, path, props: props ?? {} }];
  });
  const processors: OptionWord[] = [];
  for (const { id, path, props } of named.filter((each) => !own.has(each.id))) {
    const pairs = [
      { key: 'driver', value: String(await property(qmp, path, 'type')) },
      { key: 'id', value: id },
      ...Object.entries(props).map(([key, value]) => ({ key, value: String(value) })),
    ];
    processors.push({ flag: '-device', value: printOptionText({ pairs, unsaid: 'driver' }) });
  }
  return { processors, ids: named.map(({ id }) => id) };
}
