/**
 * What the machine in a QEMU consists of at this moment, asked over its monitor: some thirty short questions, all of them at once, a few
 * milliseconds. A look changes nothing. What two looks have to do with one another is hardware-difference.ts's.
 */
import { z } from 'zod';
import { hasCode } from '../../model/errors';
import type { CpuidWord, GuestDevice, GuestHardware } from '../../model/guest-hardware';
import type { QmpClient } from './qmp-client';
import { listRamBlocks } from './ram-blocks';

/** Whatever has no place of its own is numbered as it was made: that says nothing. */
const NUMBERED = /device\[\d+\]/g;
const ANONYMOUS = /^device\[\d+\]$/;
const DEVICE = /^child<(.+)>$/;
const PROCESSOR = /-cpu$/;
/** A network card, by its type. */
export const CARD = /^(virtio-net|e1000|igb|rtl8139|pcnet|ne2k|vmxnet3|i825|tulip|usb-net)/;
const MAC = /^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/;

const featureWordsSchema = z.array(
  z.object({
    'cpuid-input-eax': z.number(),
    'cpuid-input-ecx': z.number().optional(),
    'cpuid-register': z.enum(['EAX', 'EBX', 'ECX', 'EDX', 'ESP', 'EBP', 'ESI', 'EDI']),
    features: z.number(),
  }),
);

/** @throws QEMU_UNREACHABLE, QEMU_TIMEOUT, QEMU_REFUSED, QEMU_PROTOCOL */
export async function hardwareOf(qmp: QmpClient): Promise<GuestHardware> {
  const [{ qemu }, { enabled: kvm }, named, unnamed, own, processors, blocks] = await Promise.all([
    qmp.execute('query-version'),
    qmp.execute('query-kvm'),
    childrenOf(qmp, '/machine/peripheral'),
    childrenOf(qmp, '/machine/peripheral-anon'),
    childrenOf(qmp, '/machine/unattached'),
    qmp.execute('query-cpus-fast'),
    listRamBlocks(qmp),
  ]);
  const first = processors[0]?.['qom-path'];
  const [devices, cards, features, addressBits] = await Promise.all([
    Promise.all([
      ...named.map((child) => deviceOf(qmp, child, child.name)),
      ...unnamed.map((child) => deviceOf(qmp, child, undefined)),
    ]),
    Promise.all(own.filter(({ type }) => CARD.test(type)).map((child) => deviceOf(qmp, child, undefined))),
    first === undefined ? [] : featuresOf(qmp, first),
    first === undefined ? undefined : property(qmp, first, 'phys-bits'),
  ]);
  return {
    qemuVersion: `${qemu.major}.${qemu.minor}`,
    kvm,
    devices,
    cards,
    parts: counted(own.filter(({ name }) => ANONYMOUS.test(name)).map(({ type }) => type)),
    processors: processors.map((processor) => placeOf(processor)).sort(),
    ramBlocks: blocks.flatMap(({ id }) => (id === '' ? [] : [id])).sort(),
    features,
    addressBits: typeof addressBits === 'number' ? addressBits : 0,
  };
}

interface Child {
  readonly path: string;
  readonly name: string;
  readonly type: string;
}

/** Processors aside: they are counted by themselves, however each has come. */
async function childrenOf(qmp: QmpClient, path: string): Promise<Child[]> {
  const found = await qmp.execute('qom-list', { path });
  return found.flatMap(({ name, type: kind }) => {
    const type = DEVICE.exec(kind)?.[1];
    return type === undefined || PROCESSOR.test(type) ? [] : [{ path: `${path}/${name}`, name, type }];
  });
}

async function deviceOf(qmp: QmpClient, { path, type }: Child, id: string | undefined): Promise<GuestDevice> {
  const [bus, ...places] = await Promise.all(
    ['parent_bus', ...placeKeysOf(type)].map((name) => property(qmp, path, name)),
  );
  const at = [bus, ...places].filter((part) => part !== undefined && part !== '').map(String);
  return {
    ...(id !== undefined && { id }),
    type,
    at: at.join(':').replaceAll(NUMBERED, 'device'),
    ...(CARD.test(type) && (await cardOf(qmp, path))),
  };
}

async function cardOf(qmp: QmpClient, path: string): Promise<Pick<GuestDevice, 'mac' | 'netdev'>> {
  const [mac, netdev] = await Promise.all([property(qmp, path, 'mac'), property(qmp, path, 'netdev')]);
  return {
    ...(typeof mac === 'string' && MAC.test(mac) && { mac }),
    ...(typeof netdev === 'string' && netdev !== '' && { netdev }),
  };
}

/** What says where on its bus it is. */
function placeKeysOf(type: string): readonly string[] {
  if (/^scsi-/.test(type)) return ['scsi-id', 'lun'];
  if (/^virt(serialport|console)$/.test(type)) return ['nr'];
  return /^usb-/.test(type) ? [] : ['addr'];
}

async function featuresOf(qmp: QmpClient, path: string): Promise<CpuidWord[]> {
  const words = featureWordsSchema.safeParse(await property(qmp, path, 'feature-words'));
  const some = (words.data ?? []).filter(({ features }) => features !== 0);
  return some.map((word) => ({
    leaf: word['cpuid-input-eax'],
    index: word['cpuid-input-ecx'] ?? 0,
    register: word['cpuid-register'],
    bits: word.features,
  }));
}

/** @returns undefined where there is none of that name */
export async function property(qmp: QmpClient, path: string, name: string): Promise<unknown> {
  try {
    return await qmp.execute('qom-get', { path, property: name });
  } catch (error) {
    if (hasCode(error, 'QEMU_REFUSED')) return undefined;
    throw error;
  }
}

function placeOf(processor: {
  readonly 'cpu-index': number;
  readonly props?: Readonly<Record<string, number>> | undefined;
}): string {
  const props = Object.entries(processor.props ?? { cpu: processor['cpu-index'] });
  return props
    .map(([key, value]) => `${key}=${value}`)
    .sort()
    .join(',');
}

function counted(types: readonly string[]): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const type of types.toSorted()) counts[type] = (counts[type] ?? 0) + 1;
  return counts;
}
