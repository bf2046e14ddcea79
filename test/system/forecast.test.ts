/**
 * The plan of a running guest, through the whole system: it looks at the guest and says what its move will take; the guest runs on, is
 * free to be moved at once, and its move is remembered for the next plan.
 */
import { randomUUID } from 'node:crypto';
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { signRequest } from '../../src/control/issuer';
import { runPlaces } from '../../src/hypervisor/qemu/run-places';
import { CONTROL_QUEUE, OWN_WORKFLOWS, planWorkflowId } from '../../src/model/names';
import type { PlanResult } from '../../src/model/plan';
import { MoveHistory } from '../../src/store/move-history';
import { VmRegistry } from '../../src/store/vm-registry';
import { expectCounting, isRunning, startGuestOn } from '../helpers/guest-lab';
import { type Lab, type LabHost, sharedLab } from '../helpers/lab';
import { describeWhere } from '../helpers/needs';
import { buildCountingGuest, needsAssembler, needsQemu } from '../helpers/qemu';

const PAGES = 2048;

describeWhere([needsQemu(), needsAssembler()])('the plan of a running guest', () => {
  const shared = sharedLab({ own: true });

  test('says how long its move and its pause will take, by what it has looked at, and leaves the guest as it was', async () => {
    const lab = await shared();
    await startGuestOn(lab, 'planned', buildCountingGuest(PAGES, { idleTurns: 200 }));
    const before = await expectCounting(lab.a, 'planned', PAGES, 1);
    const { plan } = await planOf(lab, 'planned', lab.a, lab.b);
    expect(plan.forecast).toMatchObject({ converges: true });
    const { forecast } = plan;
    expect(forecast!.downtimeMs).toBeGreaterThan(0);
    expect(plan.expectedDowntimeSeconds).toBe(forecast!.downtimeMs / 1000);
    expect(forecast!.secondsLow).toBeLessThanOrEqual(forecast!.seconds);
    expect(forecast!.secondsHigh).toBeGreaterThanOrEqual(forecast!.seconds);
    // It writes 8 MiB again and again: no more than that, and not nothing.
    expect(forecast!.dirtyBytesPerSecond).toBeGreaterThan(100_000);
    expect(forecast!.basis.join('\n')).toMatch(/looked at[^]*link: [^]*writing: /);
    // All but those pages is zeros.
    const memory = plan.images.find(({ imageId }) => imageId === 'memory')!;
    expect(memory.zeroShare).toBeGreaterThan(0.7);
    await expectCounting(lab.a, 'planned', PAGES, before);
    const { agentFolder } = runPlaces(new VmRegistry(lab.a.dataDir).runFolder('planned'));
    expect(readdirSync(agentFolder).filter((name) => name.startsWith('look'))).toEqual([]);

    const moved = await lab.result(await lab.migrate('planned'));
    expect([await isRunning(lab.a, 'planned'), await isRunning(lab.b, 'planned')]).toEqual([false, true]);
    expect(moved.images.every(({ began }) => began === 'empty')).toBe(true);
    const rows = await new MoveHistory(lab.a.dataDir).to(lab.b.hostId, 'planned');
    expect(rows).toMatchObject([{ downtimeMs: moved.guest!.downtimeMs, memory: { began: 'empty' } }]);

    // The way back builds on what is there: less has to travel, and the plan says so.
    const back = (await planOf(lab, 'planned', lab.b, lab.a)).plan;
    expect(back.images.map(({ kind }) => kind)).toEqual(['delta', 'delta']);
    expect(back.forecast!.linkBytes).toBeLessThan(forecast!.linkBytes);
    expect(existsSync(join(lab.b.dataDir, 'move-history.json'))).toBe(false);
  }, 300_000);
});

async function planOf(lab: Lab, vmId: string, from: LabHost, to: LabHost): Promise<PlanResult> {
  const identity = { vmId, sourceHost: from.hostId, destinationHost: to.hostId, migrationId: randomUUID() };
  const authorisation = signRequest(lab.trust, { mode: 'plan', ...identity });
  return (await lab.client.workflow.execute(OWN_WORKFLOWS.planMigration, {
    workflowId: planWorkflowId(vmId, randomUUID()),
    taskQueue: CONTROL_QUEUE,
    args: [{ schemaVersion: 1, ...identity, ...(authorisation !== undefined && { authorisation }) }],
  })) as PlanResult;
}
