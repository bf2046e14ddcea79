/**
 * A running guest that writes to its disk several times as fast as the link carries it: it is slowed down as far as that is allowed, and
 * goes over with a pause that is short enough, or its migration parks with the figures; and nothing of the slowing down is left.
 */
import { findListener } from '../../src/hypervisor/qemu/process-table';
import { ask, isRunning, killGuests, monitorPath, startGuestOn } from '../helpers/guest-lab';
import { type LabHost, sharedLab } from '../helpers/lab';
import { describeWhere } from '../helpers/needs';
import { buildWritingGuest, needsAssembler, needsQemu } from '../helpers/qemu';
import { until } from '../helpers/waiting';

const shared = sharedLab({ own: true });
/** A guest that writes ten times what the link carries, and more than that also on a busy machine, over a range that no pause has room for. */
const LINK = { bandwidthLimit: 5e5, maxDowntimeMs: 2_000 };
const writer = (): ReturnType<typeof buildWritingGuest> => buildWritingGuest(4, 4);

describeWhere([needsQemu(), needsAssembler()])(
  'a guest that writes to its disk faster than the link carries it',
  () => {
    test('is slowed down, goes over in one pause, and writes there as it did', async () => {
      const lab = await shared();
      await startGuestOn(lab, 'slowed', writer(), false);
      const id = await lab.migrate('slowed', LINK);
      let limited = 0;
      await until(200_000, 'the end', async () => {
        if (isUp(lab.a, 'slowed')) limited = Math.max(limited, await writeLimit(lab.a, 'slowed').catch(() => 0));
        return (await lab.orchestrator.getMigrationStatus(id)).state !== 'running';
      });
      expect(await lab.result(id)).toMatchObject({ path: 'dwcp', guest: { responds: true, pauses: 1 } });
      expect(limited).toBeGreaterThan(0);
      expect([await isRunning(lab.a, 'slowed'), await isRunning(lab.b, 'slowed')]).toEqual([false, true]);
      expect(await writeLimit(lab.b, 'slowed')).toBe(0);
      await untilWrites(lab.b, 'slowed');
      await lab.untilClean();
      killGuests();
    }, 280_000);

    test('and may not be slowed down, parks with the figures before any pause, and is left as it was', async () => {
      const lab = await shared();
      await startGuestOn(lab, 'free', writer(), false);
      const id = await lab.migrate('free', { ...LINK, autoConverge: false });
      const { progress } = await lab.until(id, 'parked', (status) => status.progress?.parked !== undefined, 150_000);
      expect(progress?.parked?.error).toMatchObject({
        code: 'GUEST_NOT_CONVERGING',
        message: expect.stringMatching(/writes to its disks at .*, sent at .* left, pause expected/) as unknown,
      });
      expect(await writeLimit(lab.a, 'free')).toBe(0);
      await untilWrites(lab.a, 'free');
      await lab.orchestrator.cancelMigration(id);
      await expect(lab.result(id)).rejects.toThrow();
      expect([await isRunning(lab.a, 'free'), isUp(lab.b, 'free')]).toEqual([true, false]);
      killGuests();
    }, 240_000);

    test.each(['alive', 'killed'] as const)(
      'writes as before once its migration is cancelled, its agent %s meanwhile',
      async (agent) => {
        const lab = await shared();
        const vmId = `kept-${agent}`;
        await startGuestOn(lab, vmId, writer(), false);
        const id = await lab.migrate(vmId, LINK);
        await until(150_000, 'its being slowed down', async () => (await writeLimit(lab.a, vmId)) > 0);
        if (agent === 'killed') await lab.killAndRestart('source agent');
        await lab.orchestrator.cancelMigration(id);
        await expect(lab.result(id)).rejects.toThrow();
        expect(await writeLimit(lab.a, vmId)).toBe(0);
        await untilWrites(lab.a, vmId);
        killGuests();
      },
      240_000,
    );
  },
);

function isUp(host: LabHost, vmId: string): boolean {
  return findListener(monitorPath(host, vmId)) !== undefined;
}

/** Bytes a second; 0 where nothing holds it. */
async function writeLimit(host: LabHost, vmId: string): Promise<number> {
  const devices = await ask(host, vmId, (qmp) => qmp.execute('query-block'));
  return Math.max(...devices.map(({ inserted }) => inserted?.bps_wr ?? 0));
}

async function untilWrites(host: LabHost, vmId: string): Promise<void> {
  const written = (): Promise<number> =>
    ask(host, vmId, async (qmp) => {
      const stats = await qmp.execute('query-blockstats');
      return Math.max(...stats.map(({ stats: { wr_bytes } }) => wr_bytes));
    });
  const before = await written();
  await until(20_000, 'its writing on', async () => (await written()) > before + 4e6);
}
