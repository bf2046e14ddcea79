/**
 * What a device that was plugged in while its guest ran is set to, property by property: QEMU does not say what it was given, but what came
 * of it. What is not as usual is given to the one at the destination, and all of it is compared there.
 */
import type { GuestDevice } from '../../model/guest-hardware';
import { ownValue } from '../../model/own-value';
import type { Pair } from './option-text';
import type { QmpClient } from './qmp-client';
import { property } from './running-hardware';

/** Said by themselves, or where the device is; what its guest numbers; files and links of its host's. */
const APART =
  /^(netdev|mac|addr|bus|busnr|id|romfile|hotpluggable|hotplugged|realized|parent_bus|legacy-.*)$|^virtio-backend/;
/** Of properties of which QEMU does not say what they are by themselves. */
const USUAL: Readonly<Record<string, unknown>> = { bootindex: -1 };
const WORD = /^[\w.:+@% -]{1,200}$/;

/** @returns all, and those that are not what such a device has by itself */
export async function settingsOf(
  qmp: QmpClient,
  path: string,
  type: string,
): Promise<{ readonly all: Record<string, string>; readonly unusual: Pair[] }> {
  const known = (await qmp.execute('device-list-properties', { typename: type })).filter(
    ({ name }) => !APART.test(name),
  );
  const values = await Promise.all(known.map(({ name }) => property(qmp, path, name)));
  const all: Record<string, string> = {};
  const unusual: Pair[] = [];
  for (const [index, { name, 'default-value': usual }] of known.entries()) {
    const value = textOf(values[index]);
    if (value === undefined) continue;
    all[name] = value;
    const expected = usual ?? ownValue(USUAL, name);
    if (expected !== undefined && textOf(expected) !== value) unusual.push({ key: name, value });
  }
  // Without a program of its own for the firmware; any other is its host's.
  if ((await property(qmp, path, 'romfile')) === '') unusual.push({ key: 'romfile', value: '' });
  return { all, unusual };
}

/** @returns in words, the first setting of a device that is not what it is at its source */
export async function settingsDifference(qmp: QmpClient, devices: readonly GuestDevice[]): Promise<string | undefined> {
  for (const { id, type, settings } of devices) {
    if (id === undefined || !settings) continue;
    const names = Object.keys(settings);
    const values = await Promise.all(names.map((name) => property(qmp, `/machine/peripheral/${id}`, name)));
    for (const [index, name] of names.entries()) {
      const [there, here] = [settings[name], textOf(values[index])];
      // Another release of QEMU has other properties.
      if (here === undefined || here === there) continue;
      return (
        `its device ${id} (${type}), plugged in while it ran, has ${name}=${there ?? ''}, and would have ${here} here: ` +
        'unplug it, or start the guest anew with it in its command'
      );
    }
  }
  return undefined;
}

function textOf(value: unknown): string | undefined {
  const text = typeof value === 'boolean' ? (value ? 'on' : 'off') : typeof value === 'number' ? String(value) : value;
  return typeof text === 'string' && WORD.test(text) ? text : undefined;
}
