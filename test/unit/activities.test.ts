/**
 * Every activity that a workflow calls with a heartbeat timeout beats, or Temporal would take its work away in the midst of it.
 * Which ones these are is read from the workflows themselves; each is run for real, on a host of which everything asked is
 * nothing. What a beat says, and that it goes on: not-waited-for.test.ts.
 */
import { readdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { MockActivityEnvironment } from '@temporalio/testing';
import { DefaultLogger } from '@temporalio/worker';
import {
  createControlActivities,
  createDestinationActivities,
  createDictionaryActivities,
  createSourceActivities,
} from '../../activities';
import type { ActivityName } from '../../src/model/activity-inputs';
import { PRESETS, type Preset } from '../../workflows/activity-proxies';
import { GOOD } from '../helpers/activity-inputs';
import { temporaryFolder } from '../helpers/data';

const WORKFLOWS = join(__dirname, '..', '..', '..', 'workflows');

type Queue = 'onSource' | 'onDestination' | 'onDictionaries' | 'onControl';
type Activity = (input: unknown) => Promise<unknown>;

interface Call {
  readonly queue: Queue;
  readonly preset: Preset | undefined;
  readonly activity: string;
}

/** Anything at all: it is called, asked and gone through, and there is nothing in it. */
const nothing: unknown = new Proxy(() => undefined, {
  get: (_, name) => {
    if (name === 'then') return undefined;
    if (name === Symbol.iterator) return () => [][Symbol.iterator]();
    return name === Symbol.toPrimitive ? () => Number.NaN : nothing;
  },
  apply: () => nothing,
});

const SOURCE_PARTS = ['hub', 'ownership', 'connectGuest', 'serveStopped', 'report', 'observe', 'settle'];
const disk = join(temporaryFolder(), 'disk');
writeFileSync(disk, '');
truncateSync(disk, 65_536);
const vm = { vmId: 'vm', presence: 'here', generation: 0, images: [{ imageId: 'vda', kind: 'disk', path: disk }] };
/** A VM with a disk, of which the migration has a claim: all else is nothing. */
const source = {
  ...Object.fromEntries(SOURCE_PARTS.map((part) => [part, nothing])),
  hub: new Proxy(
    {},
    { get: (_, name) => (name === 'found' ? () => undefined : (nothing as Record<string, unknown>)[String(name)]) },
  ),
  registry: { find: () => Promise.resolve(vm), getHere: () => Promise.resolve(vm) },
  journal: { last: () => Promise.resolve({ state: 'claimed', migrationId: 'm1' }) },
};

const IMPLEMENTED: Readonly<Record<Queue, Readonly<Record<string, Activity>>>> = {
  onSource: createSourceActivities(source as never) as unknown as Record<string, Activity>,
  onDestination: createDestinationActivities(nothing as never) as unknown as Record<string, Activity>,
  onDictionaries: createDictionaryActivities(nothing as never) as unknown as Record<string, Activity>,
  onControl: createControlActivities(
    () => undefined,
    () => Promise.resolve([]),
    () => Promise.resolve({ expiresAtMs: 0 }),
  ) as unknown as Record<string, Activity>,
};

/** Every `onQueue(host, 'preset', call).activity(...)` of a file. @throws where one is written otherwise: it could not be found */
function callsIn(file: string): Call[] {
  const text = readFileSync(join(WORKFLOWS, file), 'utf8');
  return [...text.matchAll(/\b(onSource|onDestination|onDictionaries|onControl)\(/g)].map((found) => {
    const queue = found[1] as Queue;
    const begins = found.index + found[0].length;
    const ends = closingOf(text, begins);
    const activity = /^\s*\.(\w+)\(/.exec(text.slice(ends + 1))?.[1];
    if (activity === undefined)
      throw new Error(`${file}: ${text.slice(found.index, ends + 1)} is not called where it is made`);
    const preset = /^[^']*'(\w+)'/.exec(text.slice(begins, ends))?.[1];
    const isOfPreset = queue === 'onSource' || queue === 'onDestination';
    if (isOfPreset && !(preset !== undefined && preset in PRESETS))
      throw new Error(`${file}: ${text.slice(found.index, ends + 1)} names no preset`);
    return { queue, activity, preset: isOfPreset ? (preset as Preset) : undefined };
  });
}

/** Where the bracket closes behind which `begins` is. */
function closingOf(text: string, begins: number): number {
  let at = begins;
  for (let depth = 1; ; at += 1) {
    if (text[at] === '(') depth += 1;
    if (text[at] === ')') depth -= 1;
    if (depth === 0) return at;
    if (at >= text.length) throw new Error(`a bracket does not close: ${text.slice(begins, begins + 80)}`);
  }
}

const calls = readdirSync(WORKFLOWS)
  .filter((file) => file.endsWith('.ts') && file !== 'activity-proxies.ts')
  .flatMap(callsIn);

/** Dictionaries have a preset of their own, made of `courtesy`; the control queue has no heartbeats. */
const hasHeartbeatTimeout = ({ queue, preset }: Call): boolean =>
  queue === 'onDictionaries' || (preset !== undefined && PRESETS[preset].heartbeatTimeout !== undefined);

/** @returns whether it beat before it ended, however it ended */
async function beats(activity: Activity, input: unknown): Promise<boolean> {
  const env = new MockActivityEnvironment({}, { logger: new DefaultLogger('ERROR') });
  const beat = new Promise<boolean>((resolve) => env.on('heartbeat', () => resolve(true)));
  const ended = env.run(activity, input).then(
    () => false,
    () => false,
  );
  const first = await Promise.race([beat, ended]);
  env.cancel();
  await ended;
  return first;
}

test('every activity there is has a workflow that calls it, and every call an activity', () => {
  const called = new Set(calls.map(({ queue, activity }) => `${queue} ${activity}`));
  const there = Object.entries(IMPLEMENTED).flatMap(([queue, all]) =>
    Object.keys(all).map((name) => `${queue} ${name}`),
  );
  expect([...called].sort()).toEqual(there.sort());
});

const beating = [...new Set(calls.filter(hasHeartbeatTimeout).map(({ queue, activity }) => `${queue} ${activity}`))];

test.each(beating)('%s is called with a heartbeat timeout, and beats', async (name) => {
  const [queue, activity] = name.split(' ') as [Queue, string];
  expect(await beats(IMPLEMENTED[queue][activity]!, GOOD[activity as ActivityName])).toBe(true);
});

test('one that does not beat is seen not to', async () => {
  expect(await beats(() => Promise.resolve(), {})).toBe(false);
  expect(await beats(IMPLEMENTED.onSource.setBandwidthLimit!, GOOD.setBandwidthLimit)).toBe(false);
});
