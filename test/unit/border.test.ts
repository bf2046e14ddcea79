/** Each activity of both workers stands behind the border: a schema by its name, asked before any code of the activity runs. */
import { ApplicationFailure } from '@temporalio/common';
import {
  createControlActivities,
  createDestinationActivities,
  createDictionaryActivities,
  createSourceActivities,
} from '../../activities';
import { parseInput } from '../../activities/border';
import { ACTIVITY_INPUTS, type ActivityName } from '../../src/model/activity-inputs';
import { destination, GOOD, guest, image, link } from '../helpers/activity-inputs';

type Registered = Readonly<Record<string, (...input: unknown[]) => Promise<unknown>>>;

/** What was touched of an agent's parts: nothing, where a call was refused. */
const touched: string[] = [];
function untouchable(name: string): never {
  return new Proxy(() => undefined, {
    get: (_, key) => untouchable(`${name}.${String(key)}`),
    apply: () => {
      touched.push(name);
      return undefined;
    },
  }) as never;
}

const REGISTERED = {
  ...createSourceActivities(untouchable('source')),
  ...createDictionaryActivities(untouchable('dictionaries')),
  ...createDestinationActivities(untouchable('destination')),
  ...createControlActivities(untouchable('record'), untouchable('hosts'), untouchable('authorise')),
} as unknown as Registered;

async function refusal(name: string, ...input: unknown[]): Promise<ApplicationFailure> {
  touched.length = 0;
  const error = await REGISTERED[name]!(...input).then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(ApplicationFailure);
  // That it was asked for is written down.
  expect(touched.filter((name) => !name.endsWith('.judge.misfits'))).toEqual([]);
  return error as ApplicationFailure;
}

it('has a schema for each activity that a worker registers, and for no other', () => {
  expect(Object.keys(REGISTERED).sort()).toEqual(Object.keys(ACTIVITY_INPUTS).sort());
});

it('refuses a name that has none', () => {
  for (const name of ['runAnything', 'constructor', '__proto__', 'toString'])
    expect(() => parseInput(name, [{}])).toThrow(/no schema/);
});

describe.each(Object.keys(GOOD) as ActivityName[])('%s', (name) => {
  it('takes what workflows ask', () => {
    expect(parseInput(name, GOOD[name] === undefined ? [] : [GOOD[name]])).toEqual(GOOD[name]);
  });

  const input = GOOD[name];
  const given = typeof input === 'object' && input !== null ? input : {};
  const bad: unknown[] = [null, 7, 'x', [], { ...given, unknown: 1 }, { ...given, __proto__: { a: 1 }, more: {} }];
  for (const key of Object.keys(given))
    bad.push(
      { ...given, [key]: { $: 1 } },
      // A note is text.
      ...(key === 'note' ? [] : [{ ...given, [key]: '../../x' }]),
      { ...given, [key]: -100 },
      { ...given, [key]: 1e300 },
      { ...given, [key]: Array.from({ length: 2000 }, () => '/etc/passwd') },
      { ...given, [key]: 'x'.repeat(70_000) },
    );

  it('refuses all else with one coded failure that is not tried again, before it does anything', async () => {
    for (const each of bad) {
      const failure = await refusal(name, each);
      expect([failure.type, failure.nonRetryable, JSON.stringify(each).length > 0]).toEqual([
        'INVALID_INPUT',
        true,
        true,
      ]);
      expect(failure.message.length).toBeLessThan(600);
    }
    expect((await refusal(name, input ?? {}, {})).type).toBe('INVALID_INPUT');
  });

  it('names its side', async () => {
    const { details } = await refusal(name, null);
    expect(details?.[0]).toMatchObject({
      code: 'INVALID_INPUT',
      side: expect.stringMatching(/source|destination|control/) as string,
    });
  });
});

it.each(['computePlan', 'guestRounds', 'transferImage', 'standardTransferImage', 'keepWarm'] as const)(
  '%s takes in no path and no guest that an earlier release named',
  (name) => {
    const good = GOOD[name] as object;
    const was = JSON.parse(
      JSON.stringify(good, (_, value: unknown) =>
        typeof value === 'object' && value !== null && 'sizeBytes' in value ? { ...value, path: '/etc/shadow' } : value,
      ),
    ) as object;
    const formerly = name === 'computePlan' || name === 'guestRounds' ? { ...was, guest } : was;
    expect(JSON.stringify(formerly)).toContain('/etc/shadow');
    expect(parseInput(name, [formerly])).toEqual(good);
  },
);

describe('refused is', () => {
  it.each(['/run/docker.sock', '1.2.3.4:80', 'http://x', 'a b', '', '-x', 'a..b', '\0'])(
    'the address %j',
    async (address) => {
      await refusal('connectPeer', { destination: { ...destination, address }, streams: 1 });
      await refusal('detectTier', { ...link, destination: { ...destination, furtherPaths: [{ address, port: 1 }] } });
    },
  );

  it.each(['10.0.0.a', '::1', 'fe80::1%eth0', '2001:db8::7', '192.168.1.4', 'host_1', 'a.example.'])(
    'not the address %s',
    (address) => {
      expect(() => parseInput('connectPeer', [{ destination: { ...destination, address }, streams: 1 }])).not.toThrow();
    },
  );

  it('a label of metrics that is none of the words', async () => {
    const good = GOOD.recordOutcome as object;
    for (const bad of [
      { outcome: 'x' },
      { path: 'y' },
      { fallbackReason: 'NO_SUCH_CODE' },
      { fallbackReason: 'toString' },
    ])
      await refusal('recordOutcome', { ...good, ...bad });
  });

  it('a grant or a measurement for the session of a migration', async () => {
    await refusal('grantLink', { sessionId: 'm1' });
    await refusal('surveyLink', { sessionId: 'm1', destination, streams: 1, seconds: 5 });
  });

  it('more images, roots or paths than there can be', async () => {
    await refusal('keepWarm', { ...link, images: Array.from({ length: 66 }, () => image) });
    const roots = Object.fromEntries(Array.from({ length: 66 }, (_, index) => [`vd${index}`, 'ab']));
    await refusal('takeOver', { migrationId: 'm1', vmId: 'vm', roots });
    const furtherPaths = Array.from({ length: 16 }, () => ({ address: 'b', port: 1 }));
    await refusal('detectTier', { ...link, destination: { ...destination, furtherPaths } });
  });
});
