/**
 * The hand-over, state by state: the table of docs/migration-protocol.md with a crash of either agent at each point. The
 * claim under all of them: never two sides that may run the VM, and never none for good.
 */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import type { SentImage } from '../../src/sync/source/image-sender';
import { UNLIMITED } from '../../src/sync/source/source-context';
import { sha256, temporaryFolder, writeImage } from '../helpers/data';
import { startHost, type TestHost } from '../helpers/hosts';
import { handOver, handOverTo, type Move, moveVm, prepareMove, sendImage, writeLine } from '../helpers/moves';

const SIZE = 10 * 65_536;

interface Lab {
  a: TestHost;
  b: TestHost;
  disk: string;
}

async function lab(): Promise<Lab> {
  const folder = temporaryFolder();
  mkdirSync(join(folder, 'vm'));
  const disk = join(folder, 'vm', 'disk.img');
  writeImage(disk, SIZE, 1);
  const a = await startHost('a', join(folder, 'a'));
  const b = await startHost('b', join(folder, 'b'));
  await a.registry.put({
    vmId: 'vm',
    images: [{ imageId: 'vda', kind: 'disk', path: disk }],
    presence: 'here',
    generation: 0,
  });
  return { a, b, disk };
}

async function restart(host: TestHost): Promise<TestHost> {
  await host.close();
  return startHost(host.hostId, host.dataDir);
}

const onB = (b: TestHost): string => join(b.dataDir, 'images', 'vm', 'vda.img');
const rootsOf = (sent: SentImage): Record<string, string> => ({ vda: sent.root });

async function ready(here: Lab): Promise<{ move: Move; sent: SentImage }> {
  const move = await prepareMove('m1', 'vm', here.a, here.b);
  return { move, sent: await sendImage(move, 'vda') };
}

/** Whether a side would let the VM run, by its own records alone. */
async function mayRun(host: TestHost): Promise<boolean> {
  const vm = await host.registry.find('vm');
  const last = await host.ownership.last('vm');
  if (last?.state === 'mine' || last?.state === 'installed') return true;
  return vm?.presence === 'here' && last?.state !== 'handed_over' && last?.state !== 'released';
}

describe('the source', () => {
  it('gives a claimed VM to no other migration, also after a crash, and to the same one again', async () => {
    const here = await lab();
    await here.a.sourceOwnership.claim('vm', 'm1');
    const a = await restart(here.a);
    await expect(a.sourceOwnership.claim('vm', 'm2')).rejects.toMatchObject({ code: 'VM_BUSY' });
    expect((await a.sourceOwnership.claim('vm', 'm1')).fence).toBe(1);
    await a.sourceOwnership.rollBack('vm', 'm1');
    expect((await a.sourceOwnership.claim('vm', 'm2')).fence).toBe(2);
  });

  it('does not take back a VM it has handed over, until the destination has promised to leave it', async () => {
    const here = await lab();
    const { move, sent } = await ready(here);
    await here.a.sourceOwnership.handOver('vm', 'm1', handOverTo(move));
    const a = await restart(here.a);
    await expect(a.sourceOwnership.rollBack('vm', 'm1')).rejects.toMatchObject({ code: 'HANDOVER_IN_DOUBT' });
    await here.b.hub.abandon('m1', 'vm', move.fence);
    const migration = a.sources.open('m1', here.b.destinationFor('m1'), UNLIMITED);
    await expect(migration.takeOver('vm', rootsOf(sent))).rejects.toMatchObject({ code: 'ABANDONED' });
    await a.sourceOwnership.rollBack('vm', 'm1', { destinationAbandoned: true });
    expect(await mayRun(a)).toBe(true);
    expect(await mayRun(here.b)).toBe(false);
  });

  it('never takes back a VM that it has released', async () => {
    const here = await lab();
    await moveVm('m1', 'vm', here.a, here.b);
    await expect(here.a.sourceOwnership.rollBack('vm', 'm1', { destinationAbandoned: true })).rejects.toMatchObject({
      code: 'ALREADY_PAST_RETURN',
    });
    await expect(here.a.sourceOwnership.claim('vm', 'm2')).rejects.toMatchObject({ code: 'VM_NOT_HERE' });
    expect((await here.a.sourceOwnership.claim('vm', 'm1')).alreadyMoved).toBe(true);
  });

  it('says in doubt when no answer comes, and finishes when it asks again', async () => {
    const here = await lab();
    const content = sha256(here.disk);
    const { move, sent } = await ready(here);
    await here.a.sourceOwnership.handOver('vm', 'm1', handOverTo(move));
    const reach = here.b.destinationFor('m1');
    await here.a.sources.close('m1');
    await here.b.close();
    const migration = here.a.sources.open('m1', reach, UNLIMITED);
    await expect(migration.takeOver('vm', rootsOf(sent))).rejects.toMatchObject({ code: 'HANDOVER_IN_DOUBT' });
    const b = await startHost('b', here.b.dataDir, { port: here.b.options.port });
    const { generation } = await migration.takeOver('vm', rootsOf(sent));
    expect(await migration.takeOver('vm', rootsOf(sent))).toEqual({ generation });
    await here.a.sourceOwnership.release('vm', 'm1', 'b', generation, new Map());
    expect(sha256(onB(b))).toBe(content);
    expect([await mayRun(here.a), await mayRun(b)]).toEqual([false, true]);
  });
});

describe('the destination', () => {
  it('takes over only what it has verified itself, under the root that the source names', async () => {
    const here = await lab();
    const { sent } = await ready(here);
    const migration = here.a.sources.open('m1', here.b.destinationFor('m1'), UNLIMITED);
    await expect(migration.takeOver('vm', { vda: 'f'.repeat(64) })).rejects.toMatchObject({ code: 'ABANDONED' });
    await expect(migration.takeOver('vm', {})).rejects.toMatchObject({ code: 'ABANDONED' });
    expect(await mayRun(here.b)).toBe(false);
    await migration.takeOver('vm', rootsOf(sent));
    expect(await mayRun(here.b)).toBe(true);
  });

  it('still knows after a crash what it had verified, and takes over', async () => {
    const here = await lab();
    const content = sha256(here.disk);
    const { move, sent } = await ready(here);
    await here.a.sources.close('m1');
    const b = await restart(here.b);
    await handOver({ ...move, destination: b }, [sent]);
    expect(sha256(onB(b))).toBe(content);
  });

  it('completes an installation that a crash right behind the point of no return has cut off', async () => {
    const here = await lab();
    const content = sha256(here.disk);
    const { move, sent } = await ready(here);
    await writeLine(here.b, 'vm', 'mine', 'm1', move.fence);
    await here.a.sources.close('m1');
    const b = await restart(here.b);
    await expect(b.hub.abandon('m1', 'vm', move.fence)).rejects.toMatchObject({ code: 'ALREADY_PAST_RETURN' });
    await handOver({ ...move, destination: b }, [sent]);
    expect(sha256(onB(b))).toBe(content);
    expect((await b.registry.get('vm')).presence).toBe('here');
  });

  it('refuses an older migration once it has seen a newer one', async () => {
    const here = await lab();
    const { sent } = await ready(here);
    await writeLine(here.b, 'vm', 'promised', 'm9', 9);
    const migration = here.a.sources.open('m1', here.b.destinationFor('m1'), UNLIMITED);
    await expect(migration.takeOver('vm', rootsOf(sent))).rejects.toMatchObject({ code: 'FENCED' });
    expect(await mayRun(here.b)).toBe(false);
  });

  it('keeps what had arrived as baseline when it gives up, and the next attempt builds on it', async () => {
    const here = await lab();
    const { move } = await ready(here);
    await here.b.hub.abandon('m1', 'vm', move.fence);
    await here.a.sources.close('m1');
    await here.a.sourceOwnership.rollBack('vm', 'm1');
    const next = await prepareMove('m2', 'vm', here.a, here.b);
    const sent = await sendImage(next, 'vda');
    expect(sent.began).toBe('baseline');
    expect(sent.counts.verifiedBlocks).toBe(0);
  });
});

it('never lets both sides run the VM, whatever happens in whatever order', async () => {
  const step = fc.constantFrom(
    'handOver',
    'takeOver',
    'release',
    'abandon',
    'rollBack',
    'rollBackPromised',
    'crashSource',
    'crashDestination',
  );
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 3, maxLength: 9 }), async (steps) => {
      const here = await lab();
      const { move, sent } = await ready(here);
      let { a, b } = here;
      let promised = false;
      let taken: number | undefined;
      for (const action of steps) {
        const migration = a.sources.open('m1', b.destinationFor('m1'), UNLIMITED);
        // As the flow does it: each step only on the strength of what the one before it has answered.
        const run: Record<typeof action, () => Promise<unknown>> = {
          handOver: () => a.sourceOwnership.handOver('vm', 'm1', handOverTo(move)),
          takeOver: async () => {
            if ((await a.ownership.last('vm', 'm1'))?.state === 'handed_over')
              taken = (await migration.takeOver('vm', rootsOf(sent))).generation;
          },
          release: async () => {
            if (taken !== undefined) await a.sourceOwnership.release('vm', 'm1', 'b', taken, new Map());
          },
          abandon: () => b.hub.abandon('m1', 'vm', move.fence).then(() => (promised = true)),
          rollBack: () => a.sourceOwnership.rollBack('vm', 'm1'),
          rollBackPromised: () => a.sourceOwnership.rollBack('vm', 'm1', { destinationAbandoned: promised }),
          crashSource: async () => (a = await restart(a)),
          crashDestination: async () => (b = await restart(b)),
        };
        await run[action]().catch(() => undefined);
        expect([await mayRun(a), await mayRun(b)]).not.toEqual([true, true]);
      }
      await a.close();
      await b.close();
    }),
    { numRuns: 12 },
  );
});
