/**
 * Stories of the hand-over, each one a way to run a guest twice, to lose it, or to leave it standing: processes are held, killed
 * and starved at the worst moment, and a watch from outside says who ran when. What must hold in each is its test's name.
 */
import { join } from 'node:path';
import { MIB } from '../../src/model/units';
import { crashHost } from '../helpers/faults';
import { isCompleted, isResume, isStop } from '../helpers/guest-watch';
import { CrashDisk, SmallDisk } from '../helpers/host-disks';
import { endPlace, type HostDisks, type Place, startPlace } from '../helpers/moving-vm';
import { describeWhere, needsProgram, needsRoot } from '../helpers/needs';
import { buildCountingGuest, type CountingGuest, needsAssembler, needsQemu } from '../helpers/qemu';
import { Scene } from '../helpers/scene';
import { after, until, within } from '../helpers/waiting';

const PAGES = 2048;
const SOON_MS = 10_000;
const ARRIVES_MS = 60_000;
/** Longer than a host's agent is waited for. */
const PARKS_MS = 180_000;

describeWhere([
  needsQemu(),
  needsAssembler(),
  needsRoot(),
  needsProgram('mount', 'mount'),
  needsProgram('mkfs.ext4', 'e2fsprogs'),
])('the hand-over', () => {
  let guest: CountingGuest;
  let scenes = 0;
  beforeAll(() => (guest = buildCountingGuest(PAGES, { pagesPerTick: 160 }, 24 * MIB, true)));

  let shared: Place | undefined;
  afterAll(() => shared && endPlace(shared));

  /** Stories with the hosts' own disks have hosts of their own; the others play one behind the other in one place. */
  async function play(story: (scene: Scene) => Promise<void>, disks?: HostDisks): Promise<void> {
    scenes += 1;
    const place = disks ? await startPlace(disks) : (shared ??= await startPlace({}, true));
    const scene = await Scene.at(place, `story-${scenes}`, guest);
    let failed = true;
    try {
      await story(scene);
      failed = false;
    } catch (error) {
      process.stderr.write(scene.report());
      throw error;
    } finally {
      if (failed && !disks) shared = undefined;
      await (failed || disks ? scene.end() : scene.leave());
    }
  }

  test.each(['workflow reset', 'workflow terminate', 'second migrate'] as const)(
    '%s while a destination that stalls has not answered yet: never do both run',
    (what) =>
      play(async (scene) => {
        const { watch } = scene;
        const stopped = watch.next('source', isStop, () => watch.signal('destination', 'SIGSTOP'));
        const completed = watch.next('source', isCompleted);
        await scene.migrate({ maxDowntimeMs: 30_000 });
        await within(60_000, 'the pause', stopped);
        const resumed = watch.next('source', isResume, () => watch.signal('destination', 'SIGCONT'));
        await within(SOON_MS, 'the end of the source’s stream', completed);
        await after(700);
        if (what === 'workflow reset') await scene.resetWorkflow();
        else await scene.terminateWorkflow();
        if (what === 'second migrate') await scene.migrateAtOnce();
        await Promise.race([resumed, after(15_000)]);
        watch.signal('destination', 'SIGCONT');
        await scene.settled();
        expect(['moved', 'stayed']).toContain(await scene.outcome());
      }),
    180_000,
  );

  test(
    'two pauses, a destination that stalls over both: it runs the later moment, in memory and on disk',
    () =>
      play(async (scene) => {
        const { watch } = scene;
        const first = watch.next('source', isStop, () => watch.signal('destination', 'SIGSTOP'));
        await scene.migrate({ maxDowntimeMs: 1_000 });
        await within(60_000, 'the first pause', first);
        await within(SOON_MS, 'the way back', watch.next('source', isResume));
        const second = watch.next('source', isStop).then(() => true);
        if (await Promise.race([second, after(20_000).then(() => false)])) await after(300);
        watch.signal('destination', 'SIGCONT');
        await scene.settled();
        expect(['moved', 'stayed']).toContain(await scene.outcome());
      }),
    180_000,
  );

  test('a crash of the destination’s host behind `mine`: no torn memory runs, and the guest is not lost', async () => {
    for (let attempt = 1; attempt <= 8; attempt += 1) {
      let tooLate = false;
      await play(
        async (scene) => {
          const { watch } = scene;
          const mine = watch.reached('mine').then(() => scene.lab.b.agent?.process.kill('SIGSTOP'));
          await scene.migrate();
          await within(60_000, 'mine', mine);
          await after(50);
          tooLate = watch.spans.some(({ side }) => side === 'destination');
          await crashHost(scene, 'destination');
          await scene.settled();
          const outcome = await scene.outcome();
          expect(tooLate ? ['moved', 'stayed', 'lost'] : ['moved', 'stayed']).toContain(outcome);
        },
        { destination: new CrashDisk() },
      );
      if (!tooLate) return;
    }
    throw new Error('the destination was never caught between `mine` and the guest’s start');
  }, 400_000);

  test.each([
    ['what it hands over', 'outgoing'],
    ['its own journal', 'ownership'],
  ])(
    'the source’s disk is full when it writes %s: the guest runs on within seconds',
    (_, folder) => {
      const data = new SmallDisk('400m');
      const small = new SmallDisk('2m', join(data.folder, folder));
      return play(
        async (scene) => {
          await scene.migrate();
          await within(60_000, 'memory', scene.watch.reached('memory'));
          const makeRoom = small.fill();
          await within(60_000, 'the pause', scene.watch.reached('paused'));
          await after(SOON_MS);
          expect(scene.watch.running).toHaveLength(1);
          makeRoom();
          await scene.settled();
          expect(['moved', 'stayed']).toContain(await scene.outcome());
        },
        {
          source: {
            folder: data.folder,
            remove: async () => {
              await small.remove();
              await data.remove();
            },
          },
        },
      );
    },
    180_000,
  );

  test(
    'the source’s agent dies while the guest is paused and comes back without Temporal: the guest runs on at the source',
    () =>
      play(async (scene) => {
        const { watch, lab } = scene;
        const stopped = watch.next('source', isStop, () => lab.a.agent?.process.kill('SIGKILL'));
        await scene.migrate({ maxDowntimeMs: 30_000 });
        await within(60_000, 'the pause', stopped);
        await Promise.all([lab.kill('source agent'), lab.kill('Temporal server')]);
        lab.startAgent(lab.a);
        await until(SOON_MS, 'it runs on at the source', () => watch.running.includes('source'));
        await after(500);
        await lab.startServer();
        await scene.settled();
        expect(['moved', 'stayed']).toContain(await scene.outcome());
      }),
    180_000,
  );

  test(
    'cancelled between two rounds and migrated again at once: it arrives',
    () =>
      play(async (scene) => {
        const id = await scene.migrate({ bandwidthLimit: 6e6 });
        await within(
          60_000,
          'memory',
          scene.watch.reached('memory').then(() => scene.relay.holdBack()),
        );
        await scene.cancel();
        const again = await scene.migrateAtOnce();
        scene.relay.letGo();
        await within(SOON_MS, 'the cancel', expect(scene.lab.result(id)).rejects.toMatchObject({ code: 'CANCELLED' }));
        expect(await within(ARRIVES_MS, 'its end', scene.lab.result(again))).toMatchObject({
          outcome: 'completed',
          path: 'dwcp',
        });
        await scene.settled();
        expect(await scene.outcome()).toBe('moved');
      }),
    180_000,
  );

  test(
    'an operator stops the guest between two rounds: GUEST_PAUSED, it stays paused, goes on with `cont`, moves then',
    () =>
      play(async (scene) => {
        const { watch, lab } = scene;
        const id = await scene.migrate({ bandwidthLimit: 6e6 });
        await within(60_000, 'memory', watch.reached('memory'));
        await watch.monitor('source').execute('stop');
        await within(
          SOON_MS,
          'the end of the migration',
          expect(lab.result(id)).rejects.toMatchObject({ code: 'GUEST_PAUSED' }),
        );
        await scene.settled();
        await after(1_000);
        expect(await watch.monitor('source').execute('query-status')).toMatchObject({ status: 'paused' });
        const count = await watch.countAt('source');
        await watch.monitor('source').execute('cont');
        await after(1_500);
        expect(await watch.countAt('source')).toBeGreaterThan(count);
        expect(await within(ARRIVES_MS, 'its end', lab.result(await scene.migrate()))).toMatchObject({
          outcome: 'completed',
        });
        await scene.settled();
        expect(await scene.outcome()).toBe('moved');
      }),
    180_000,
  );

  test(
    'reset while nobody knows whether the destination has taken over: it parks, and goes on when the destination is back',
    () =>
      play(async (scene) => {
        const { watch, lab, relay } = scene;
        const loaded = watch.next('destination', isCompleted, () => relay.holdBack());
        await scene.migrate({ maxDowntimeMs: 30_000 });
        await within(60_000, 'what the destination has loaded', loaded);
        await within(SOON_MS, 'handed over', watch.reached('handedOver'));
        await lab.kill('destination agent');
        relay.letGo();
        expect(scene.statesOf('destination')).not.toContain('mine');
        await scene.resetWorkflow();
        await until(PARKS_MS, 'it parks', async () => (await scene.progress())?.parked !== undefined);
        expect(watch.running).toEqual([]);
        lab.startAgent(lab.b);
        await scene.settled();
        expect(['moved', 'stayed']).toContain(await scene.outcome());
      }),
    400_000,
  );
});
