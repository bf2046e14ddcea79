/** Answers of activities as workflows read them: those of earlier releases too, and with nothing but what the workflows' sandbox has. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { ACTIVITY_INPUTS, type ActivityName } from '../../src/model/activity-inputs';
import { ACTIVITY_RESULTS } from '../../src/model/activity-results';
import { NO_HARDWARE } from '../helpers/hardware';

const HISTORIES = join(__dirname, '..', '..', '..', 'test', 'fixtures', 'histories');

interface Event {
  readonly eventId: string;
  readonly activityTaskScheduledEventAttributes?: { readonly activityType: { readonly name: ActivityName } };
  readonly activityTaskCompletedEventAttributes?: {
    readonly scheduledEventId: string;
    readonly result?: { readonly payloads: readonly { readonly data?: string }[] };
  };
}

it('there is a schema for each activity', () => {
  expect(Object.keys(ACTIVITY_RESULTS).sort()).toEqual(Object.keys(ACTIVITY_INPUTS).sort());
});

it.each(readdirSync(HISTORIES))('every answer in the history %s is read', (file) => {
  const { events } = JSON.parse(readFileSync(join(HISTORIES, file), 'utf8')) as { events: readonly Event[] };
  const names = new Map(
    events.flatMap(({ eventId, activityTaskScheduledEventAttributes: scheduled }) =>
      scheduled ? [[eventId, scheduled.activityType.name] as const] : [],
    ),
  );
  const answers = events.flatMap(({ activityTaskCompletedEventAttributes: completed }) => completed ?? []);
  expect(answers.length).toBeGreaterThan(0);
  for (const { scheduledEventId, result } of answers) {
    const name = names.get(scheduledEventId)!;
    const data = result?.payloads[0]?.data;
    const answer: unknown = data ? JSON.parse(Buffer.from(data, 'base64').toString('utf8')) : undefined;
    expect([name, ACTIVITY_RESULTS[name].safeParse(answer).error?.issues]).toEqual([name, undefined]);
  }
});

it('the set-up of a guest is read where there is no atob: a workflow has none', () => {
  const { atob } = globalThis;
  Reflect.deleteProperty(globalThis, 'atob');
  try {
    const guest = {
      command: ['qemu'],
      qemuVersion: '10.0.0',
      hardware: NO_HARDWARE,
      machine: 'q35',
      needsFiles: [],
      ramBlocks: [{ id: 'pc.ram', usedBytes: 4096 }],
      setUp: { prefix: Buffer.from('a set-up').toString('base64'), sectionId: 2 },
      sharedFiles: [],
      diskPaths: {},
    };
    const prepared = { images: [], fence: 1, generation: 0, alreadyMoved: false, guest };
    expect(ACTIVITY_RESULTS.prepareSource.parse(prepared)).toEqual(prepared);
    const bad = { ...prepared, guest: { ...guest, setUp: { ...guest.setUp, prefix: '../../x' } } };
    expect(ACTIVITY_RESULTS.prepareSource.safeParse(bad).success).toBe(false);
  } finally {
    globalThis.atob = atob;
  }
});
