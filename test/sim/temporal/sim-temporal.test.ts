/** The simulated Temporal by itself: the real workflow of a migration over stand-ins of its activities, failed in every way. */
import { Lab } from './lab';

const PLAIN = [
  'authorise-1',
  'prepare-source',
  'authorise-2',
  'prepare-destination',
  'establish-streams',
  'detect-tier',
  'check-baseline-disk',
  'compute-plan',
  'transfer-disk',
  'switchover',
  'record-outcome',
];

/** What no host is asked for. */
const OF_CONTROL = /^(authorise-\d+|record-outcome)$/;

const ids = (lab: Lab): string[] => lab.run.history.map(({ activityId }) => activityId);

test('a stopped VM moves, step by step', async () => {
  const lab = new Lab(1);
  lab.migrate();
  const run = await lab.closed();
  expect([run.status, run.error]).toEqual(['COMPLETED', undefined]);
  expect(run.result).toMatchObject({ outcome: 'completed', path: 'dwcp', migrationId: 'm1' });
  expect(ids(lab)).toEqual(PLAIN);
  expect(run.searchAttributes).toMatchObject({
    VmId: 'vm',
    MigrationPhase: 'closed',
    NeedsOperator: false,
    MigrationPriority: 5,
  });
  expect(run.details).toContain('vm');
  await lab.until(() => lab.temporal.find('keep-baselines:m1')?.status === 'COMPLETED');
  expect(lab.temporal.problems).toEqual([]);
});

test('a guest moves, its baselines checked beside the link', async () => {
  const lab = new Lab(2);
  lab.guest = true;
  lab.migrate();
  const run = await lab.closed();
  expect([run.status, run.error]).toEqual(['COMPLETED', undefined]);
  expect(ids(lab)).toEqual(expect.arrayContaining(['guest-rounds', 'guest-switchover']));
  expect(lab.most).toBeGreaterThan(1);
});

test('the same seed tells the same story, another one another', async () => {
  const story = async (seed: number): Promise<string> => {
    const lab = new Lab(seed);
    lab.temporal.faults.rate = 0.3;
    Object.assign(lab.temporal.faults.budget, { heartbeatsLost: 2, lateResults: 2, evictions: 2, resets: 1 });
    lab.migrate();
    await lab.pass(200_000);
    return lab.scheduler.story.join('\n');
  };
  expect(await story(7)).toBe(await story(7));
  expect(await story(7)).not.toBe(await story(8));
});

test('what may pass is tried again, with its back-off', async () => {
  const lab = new Lab(3);
  lab.behaviours.set('establishStreams', (attempt) => (attempt < 4 ? lab.failing('PEER_UNREACHABLE') : undefined));
  const startedAtMs = lab.scheduler.nowMs;
  lab.migrate();
  expect((await lab.closed()).status).toBe('COMPLETED');
  expect(lab.ran.filter((line) => line.includes('establishStreams'))).toEqual(
    [1, 2, 3, 4].map((attempt) => `a establishStreams establish-streams #${attempt}`),
  );
  expect(lab.scheduler.nowMs - startedAtMs).toBeGreaterThan(7_000);
});

test('what cannot pass rolls back', async () => {
  const lab = new Lab(4);
  lab.behaviours.set('computePlan', () => lab.failing('VM_UNKNOWN'));
  lab.migrate();
  const run = await lab.closed();
  expect(run.status).toBe('FAILED');
  expect(run.error).toMatchObject({ type: 'VM_UNKNOWN' });
  expect(ids(lab).slice(-3)).toEqual(['roll-back-source', 'abandon-destination', 'record-outcome']);
});

test('DWCP that has failed for good gives way to the standard transfer', async () => {
  const lab = new Lab(5);
  lab.behaviours.set('transferImage', () => lab.failing('ENCODER_FAILED'));
  lab.migrate();
  const run = await lab.closed();
  expect(run.result).toMatchObject({ path: 'fallback', fallbackReason: { code: 'ENCODER_FAILED' } });
  expect(ids(lab)).toEqual(expect.arrayContaining(['standard-disk', 'hand-over', 'take-over', 'release']));
});

describe('what a host answers is read before anything is done with it:', () => {
  const prepared = { images: [], fence: 1, generation: 0, alreadyMoved: false };

  test.each<[string, string, unknown]>([
    [
      'an image’s id that is a path',
      'prepareSource',
      { ...prepared, images: [{ imageId: '../x', kind: 'disk', sizeBytes: 1 }] },
    ],
    [
      'a size without end',
      'prepareSource',
      { ...prepared, images: [{ imageId: 'x', kind: 'disk', sizeBytes: 1e300 }] },
    ],
    ['a fence without end', 'prepareSource', { ...prepared, fence: 1e15 }],
    ['a guest that is none', 'prepareSource', { ...prepared, guest: { command: ['qemu'] } }],
    ['a tenant that is none', 'prepareSource', { ...prepared, tenant: '../other' }],
    ['an address that is none', 'prepareDestination', { address: '/run/x.sock', port: 1, grant: {} }],
    ['no measurement', 'detectTier', { rttMs: 'x' }],
    ['no state', 'checkBaseline', { imageId: 'disk', state: 'full', heldBytes: 1 }],
    ['no plan', 'computePlan', {}],
    ['no root', 'transferImage', { imageId: 'disk', root: { $: 1 } }],
    ['nothing', 'prepareSource', undefined],
  ])('%s ends the migration with a code (%s)', async (_, activity, answer) => {
    const lab = new Lab(11);
    lab.behaviours.set(activity, () => answer ?? null);
    if (answer === undefined) lab.behaviours.set(activity, () => 'nothing');
    lab.migrate();
    const run = await lab.closed();
    expect([run.status, run.error]).toEqual(['FAILED', expect.objectContaining({ type: 'INVALID_INPUT' })]);
    expect(lab.temporal.problems).toEqual([]);
    if (activity === 'prepareSource') expect(lab.ran.filter((line) => line.startsWith('b '))).toEqual([]);
  });

  test('what goes on to the destination is what was read, and no more', async () => {
    const lab = new Lab(12);
    lab.behaviours.set('prepareSource', () => ({
      ...prepared,
      images: [{ imageId: 'disk', kind: 'disk', sizeBytes: 1, path: '/disk', more: 1 }],
      more: { command: ['sh'] },
    }));
    let asked: unknown;
    lab.behaviours.set('prepareDestination', (_, input) => void (asked = input));
    lab.migrate();
    await lab.closed();
    expect(asked).toMatchObject({ images: [{ imageId: 'disk', kind: 'disk', sizeBytes: 1 }] });
    expect(JSON.stringify(asked)).not.toMatch(/more|\/disk/);
  });

  test.each(['switchover', 'guestSwitchover'])(
    'behind the hand-over it leaves open what has happened, and the destination is asked (%s)',
    async (activity) => {
      const lab = new Lab(13);
      lab.guest = activity === 'guestSwitchover';
      lab.behaviours.set(activity, () => ({ generation: '../x', guest: 1 }));
      lab.behaviours.set('handedOverRoots', () => ({ disk: 'abc' }));
      lab.behaviours.set('releaseGuest', () => ({
        guest: { rounds: 2, reason: '', responds: true, throttle: 0 },
        images: [],
      }));
      lab.migrate();
      const run = await lab.closed();
      expect([run.status, run.error]).toEqual(['COMPLETED', undefined]);
      expect(ids(lab)).toContain('take-over');
    },
  );
});

describe('parked', () => {
  const parked = async (seed: number): Promise<Lab> => {
    const lab = new Lab(seed);
    lab.behaviours.set('transferImage', () => lab.failing('DISK_FULL'));
    lab.migrate();
    await lab.until(() => lab.run.parked, 'parked');
    return lab;
  };

  test('the operator retries', async () => {
    const lab = await parked(6);
    expect(lab.run.query('progress')).toMatchObject({ parked: { error: { code: 'DISK_FULL' } } });
    lab.behaviours.clear();
    const answer = lab.run.update('retry_step', { note: 'freed' });
    expect((await lab.closed()).status).toBe('COMPLETED');
    await expect(answer).resolves.toBe('retry: freed');
  });

  test('the operator aborts', async () => {
    const lab = await parked(7);
    const answer = lab.run.update('abort_migration', { reason: 'enough' });
    const run = await lab.closed();
    await expect(answer).resolves.toBe('abort: enough');
    expect(run.error).toMatchObject({ type: 'CANCELLED', message: 'enough' });
    expect(ids(lab)).toContain('roll-back-source');
  });

  test('malformed, or asked for of a run that is not parked, an update is refused and leaves nothing in the history', async () => {
    const lab = await parked(8);
    const malformed = lab.run.update('retry_step', { maxDowntimeMs: -1 });
    await lab.pass(1_000);
    await expect(malformed).rejects.toMatchObject({ type: 'INVALID_INPUT' });
    lab.behaviours.clear();
    void lab.run.update('retry_step');
    await lab.until(() => !lab.run.parked, 'not parked');
    const late = lab.run.update('retry_step');
    lab.run.evict();
    await lab.closed();
    await expect(late).rejects.toMatchObject({ type: 'NOT_PARKED' });
  });
});

test.each(['signal', 'cancel'] as const)('a %s before the switchover stops what runs and rolls back', async (how) => {
  const lab = new Lab(9);
  lab.behaviours.set('transferImage', () => lab.wait('a', 100_000));
  lab.migrate();
  await lab.until(() => lab.ran.some((line) => line.includes('transferImage')));
  await lab.pass(3_000);
  if (how === 'signal') lab.run.signal('request_cancel');
  else lab.run.cancel();
  const askedAtMs = lab.scheduler.nowMs;
  const run = await lab.closed();
  expect(run.history.find(({ activityId }) => activityId === 'transfer-disk')?.outcome).toBe('cancelled');
  expect(run.error).toMatchObject({ type: 'CANCELLED' });
  expect(ids(lab)).toContain('roll-back-source');
  expect(lab.scheduler.nowMs - askedAtMs).toBeLessThan(5_000);
});

test('a cancel in the switchover completes forward', async () => {
  const lab = new Lab(10);
  lab.behaviours.set('switchover', () => lab.wait('a', 3_000));
  lab.migrate();
  await lab.until(() => lab.ran.some((line) => line.includes(' switchover ')));
  lab.run.signal('request_cancel');
  expect((await lab.closed()).status).toBe('COMPLETED');
});

test('a terminated run cleans nothing up; its attempt hears of it with a heartbeat; another may start', async () => {
  const lab = new Lab(11);
  lab.behaviours.set('transferImage', () => lab.wait('a', 100_000));
  const first = lab.migrate();
  await lab.until(() => lab.ran.some((line) => line.includes('transferImage')));
  expect(() => lab.migrate()).toThrow('already started');
  first.terminate();
  expect(lab.temporal.running).toHaveLength(1);
  await lab.pass(2_500);
  expect(lab.temporal.running).toEqual([]);
  expect(lab.ran.some((line) => line.includes('rollBack'))).toBe(false);
  expect(() => first.signal('request_cancel')).toThrow('already completed');
  lab.behaviours.clear();
  const second = lab.migrate();
  expect((await lab.closed()).runId).toBe(second.runId);
});

test.each(PLAIN.map((_, k) => k).concat(PLAIN.length))(
  'a closed migration is reset to its result %d and goes on from there',
  async (k) => {
    const lab = new Lab(20 + k);
    lab.migrate();
    const first = await lab.closed();
    lab.ran.length = 0;
    const second = first.reset(k);
    expect(lab.run).toBe(second);
    expect((await lab.closed()).status).toBe('COMPLETED');
    expect(ids(lab)).toEqual(PLAIN);
    expect(lab.ran.map((line) => line.split(' ')[2]).filter((id) => id !== 'keep-copies')).toEqual(
      PLAIN.slice(k).filter((id) => !OF_CONTROL.test(id)),
    );
  },
);

test.each(Array.from({ length: 12 }, (_, k) => k))(
  'an open migration of a guest is reset to its result %d',
  async (k) => {
    const lab = new Lab(40 + k);
    lab.guest = true;
    lab.migrate();
    await lab.until(() => lab.run.history.length >= Math.min(k + 1, 9) || lab.run.status !== 'RUNNING');
    lab.run.reset(Math.min(k, lab.run.history.length));
    expect((await lab.closed()).status).toBe('COMPLETED');
  },
);

test('a reset gives later messages to the new run, unless it is told not to', async () => {
  const lab = new Lab(60);
  lab.behaviours.set('transferImage', () => lab.failing('DISK_FULL'));
  lab.migrate();
  await lab.until(() => lab.run.parked, 'parked');
  lab.run.signal('request_cancel');
  const first = await lab.closed();
  first.reset(2, { reapply: false });
  await lab.until(() => lab.run.parked, 'parked again');
  first.reset(2);
  const again = await lab.closed();
  expect(again.error).toMatchObject({ type: 'CANCELLED' });
});

test('lost heartbeats: the next attempt begins while the first runs on, which hears of it later and is refused', async () => {
  const lab = new Lab(70);
  lab.behaviours.set('transferImage', (attempt) =>
    attempt === 1 ? lab.wait('a', 200_000) : lab.wait('a', 20_000).then(() => undefined),
  );
  lab.temporal.onAttempt((attempt) => {
    if (attempt.label === 'transfer-disk #1') attempt.loseHeartbeats(15_000);
  });
  lab.migrate();
  await lab.until(() => lab.ran.includes('a transferImage transfer-disk #2'));
  await lab.pass(100);
  expect(lab.temporal.running.map(({ label }) => label)).toEqual(['transfer-disk #1', 'transfer-disk #2']);
  await lab.pass(6_000);
  expect(lab.temporal.running.map(({ label }) => label)).toEqual(['transfer-disk #2']);
  expect((await lab.closed()).status).toBe('COMPLETED');
});

test('a result that arrives after its attempt was given up is refused', async () => {
  const lab = new Lab(71);
  lab.temporal.onAttempt((attempt) => {
    if (attempt.label === 'switchover #1') attempt.delayResult(11_500);
  });
  lab.migrate();
  expect((await lab.closed()).status).toBe('COMPLETED');
  expect(lab.ran.filter((line) => line.includes(' switchover '))).toHaveLength(2);
  await lab.pass(30_000);
  expect(lab.scheduler.story.join('\n')).toContain('switchover #1 is not wanted any more');
});

test('an agent that dies is noticed by its silence, and its successor goes on', async () => {
  const lab = new Lab(72);
  lab.behaviours.set('transferImage', (attempt) => lab.wait('a', attempt === 1 ? 200_000 : 10).then(() => undefined));
  lab.migrate();
  await lab.until(() => lab.ran.some((line) => line.includes('transferImage')));
  lab.kill('a');
  const diedAtMs = lab.scheduler.nowMs;
  await lab.pass(30_000);
  lab.startHost('a');
  expect((await lab.closed()).status).toBe('COMPLETED');
  expect(lab.ran).toContain('a transferImage transfer-disk #2');
  expect(lab.scheduler.nowMs - diedAtMs).toBeLessThan(40_000);
});

test('a host that is away parks the migration, which asks again by itself', async () => {
  const lab = new Lab(73);
  lab.kill('b');
  lab.migrate();
  await lab.until(() => lab.run.parked, 'parked');
  expect(lab.run.history.at(-1)).toMatchObject({ activityId: 'prepare-destination', outcome: 'failed' });
  expect(lab.run.query('progress')).toMatchObject({ parked: { error: { code: 'HOST_UNAVAILABLE' } } });
  lab.startHost('b');
  const askedAtMs = lab.scheduler.nowMs;
  expect((await lab.closed()).status).toBe('COMPLETED');
  expect(lab.scheduler.nowMs - askedAtMs).toBeGreaterThan(50_000);
});

test('an agent without Temporal works on: its result is handed in late, or lost', async () => {
  const lab = new Lab(74);
  lab.behaviours.set('transferImage', () => lab.wait('a', 3_000));
  lab.migrate();
  await lab.until(() => lab.ran.some((line) => line.includes('transferImage')));
  const host = lab.hosts.get('a')!;
  lab.temporal.setReachable(host, false);
  await lab.pass(8_000);
  lab.temporal.setReachable(host, true);
  await lab.until(() => lab.ran.some((line) => line.includes(' switchover ')));
  expect(lab.ran.filter((line) => line.includes('transferImage'))).toHaveLength(1);
  lab.temporal.setReachable(host, false);
  await lab.pass(60_000);
  lab.temporal.setReachable(host, true);
  expect((await lab.closed()).status).toBe('COMPLETED');
  expect(lab.ran.filter((line) => line.includes(' switchover ')).length).toBeGreaterThan(1);
});

test('an activity is paused, and its attempts are counted from 1 again where it is reset', async () => {
  const lab = new Lab(77);
  lab.behaviours.set('transferImage', () => lab.wait('a', 30_000).then(() => undefined));
  lab.migrate();
  await lab.until(() => lab.ran.some((line) => line.includes('transferImage')));
  lab.run.activities[0]!.pause();
  await lab.pass(60_000);
  expect(lab.temporal.running).toEqual([]);
  lab.run.activities[0]!.unpause();
  await lab.pass(3_000);
  lab.run.activities[0]!.reset();
  expect((await lab.closed()).status).toBe('COMPLETED');
  expect(lab.ran.filter((line) => line.includes('transferImage')).map((line) => line.slice(-2))).toEqual([
    '#1',
    '#2',
    '#1',
  ]);
});

test('a task that gets lost on its way, and a worker that shuts down', async () => {
  const lab = new Lab(78);
  lab.behaviours.set('transferImage', (attempt) => lab.wait('a', attempt === 1 ? 30_000 : 10).then(() => undefined));
  lab.migrate();
  await lab.until(() => ids(lab).includes('authorise-1'));
  Object.assign(lab.temporal.faults, { rate: 1 });
  lab.temporal.faults.budget.lostTasks = 1;
  await lab.until(() => lab.ran.some((line) => line.includes('transferImage')));
  expect(lab.ran[0]).toBe('a prepareSource prepare-source #2');
  lab.temporal.shutDown(lab.hosts.get('a')!);
  await lab.pass(2_000);
  expect(lab.temporal.running).toEqual([]);
  lab.startHost('a');
  expect((await lab.closed()).status).toBe('COMPLETED');
  expect(lab.scheduler.story.join('\n')).toContain('failed WorkerShutdown');
});

test('code that replays otherwise is told of', async () => {
  const lab = new Lab(79);
  lab.migrate();
  await lab.until(() => lab.run.history.length >= 3 && lab.run.activities.length > 0);
  lab.run.evict();
  Object.assign(lab.run.activities[0]!.command, { activityId: 'another' });
  await expect(lab.closed()).rejects.toThrow('does not replay');
});

test('a control worker that dies is replaced, and the workflow replayed', async () => {
  const lab = new Lab(75);
  lab.migrate();
  for (let results = 1; results < PLAIN.length - 1; results += 1) {
    await lab.until(() => lab.run.history.length >= results || lab.run.status !== 'RUNNING');
    lab.control.alive = false;
    await lab.pass(500);
    lab.startControl();
  }
  expect((await lab.closed()).status).toBe('COMPLETED');
  expect(ids(lab)).toEqual(PLAIN);
});
