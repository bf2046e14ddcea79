/**
 * A running guest moves through the whole system, and back: real agents, a real Temporal server, real QEMUs, and the counting
 * guest, whose pages are looked at one by one.
 */
import { describeWhere } from '../helpers/needs';
import { expectCounting, isRunning, startGuestOn } from '../helpers/guest-lab';
import { Lab } from '../helpers/lab';
import { buildCountingGuest, type CountingGuest, needsAssembler, needsQemu } from '../helpers/qemu';

const PAGES = 2048;

describeWhere([needsQemu(), needsAssembler()])('a running guest', () => {
  let guest: CountingGuest;
  beforeAll(() => (guest = buildCountingGuest(PAGES, 200)));

  test('moves while it runs, and back onto its baseline, with every page', async () => {
    const lab = await Lab.start({ own: true });
    await startGuestOn(lab, 'live', guest);
    const before = await expectCounting(lab.a, 'live', PAGES, 2);
    const there = await lab.result(await lab.migrate('live'));
    expect(there).toMatchObject({ path: 'dwcp', guest: { responds: true }, images: [{ imageId: 'vda' }, { imageId: 'memory' }] });
    expect([await isRunning(lab.a, 'live'), await isRunning(lab.b, 'live')]).toEqual([false, true]);
    const counted = await expectCounting(lab.b, 'live', PAGES, before);
    const back = await lab.result(await lab.orchestrator.migrateVm('live', lab.b.hostId, lab.a.hostId));
    expect([await isRunning(lab.a, 'live'), await isRunning(lab.b, 'live')]).toEqual([true, false]);
    await expectCounting(lab.a, 'live', PAGES, counted);
    expect(back.linkBytes).toBeLessThan(there.linkBytes);
    await lab.untilClean();
  });
});
