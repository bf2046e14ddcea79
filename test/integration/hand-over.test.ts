/**
 * The hand-over of a stopped VM, state by state: the tables of src/model/ownership-machine.ts with a crash of either agent at
 * each point. The claim under all of them: never two sides that may run the VM, and, once what is open has been settled as a
 * sweep settles it, one, with the content that was sent.
 */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import type { ErrorCode } from '../../src/model/error-codes';
import { DwcpError } from '../../src/model/errors';
import {
  DESTINATION_TABLE,
  type DestinationState,
  destinationState,
  isRefused,
  SOURCE_TABLE,
  type SourceState,
  sourceState,
} from '../../src/model/ownership-machine';
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
  return startHost(host.hostId, host.dataDir, { port: host.options.port });
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
    const migration = a.sources.open('m1', here.b.destinationFor('m1', a.hostId), UNLIMITED);
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
    const reach = here.b.destinationFor('m1', 'a');
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
    const migration = here.a.sources.open('m1', here.b.destinationFor('m1', here.a.hostId), UNLIMITED);
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
    const migration = here.a.sources.open('m1', here.b.destinationFor('m1', here.a.hostId), UNLIMITED);
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

type Action =
  | 'handOver'
  | 'takeOver'
  | 'release'
  | 'abandon'
  | 'rollBack'
  | 'rollBackPromised'
  | 'crashSource'
  | 'crashDestination';

/** What the tables say to an action. @returns the code that refuses it */
function refusalOf(action: Action, source: SourceState, destination: DestinationState): ErrorCode | undefined {
  const { on: ofSource } = SOURCE_TABLE[source];
  const { on: ofDestination } = DESTINATION_TABLE[destination];
  const steps = {
    handOver: ofSource.hand_over,
    takeOver: ofDestination.take_over,
    release: ofSource.taken_over,
    abandon: ofDestination.abandon,
    rollBack: ofSource.roll_back,
    rollBackPromised: ofSource.roll_back_promised,
  };
  const step = action in steps ? steps[action as keyof typeof steps] : undefined;
  return step && isRefused(step) ? step.refused : undefined;
}

class Story {
  readonly #here: Lab;
  readonly #move: Move;
  readonly #sent: SentImage;
  a: TestHost;
  b: TestHost;
  #promised = false;
  #taken: number | undefined;

  constructor(here: Lab, { move, sent }: { move: Move; sent: SentImage }) {
    this.#here = here;
    this.#move = move;
    this.#sent = sent;
    ({ a: this.a, b: this.b } = here);
  }

  async states(): Promise<[SourceState, DestinationState]> {
    return [
      sourceState((await this.a.ownership.last('vm', 'm1'))?.state),
      destinationState((await this.b.ownership.last('vm', 'm1'))?.state),
    ];
  }

  /** Whether the flow would take an action: each only on the strength of what the one before it has answered. */
  async isTaken(action: Action): Promise<boolean> {
    if (action === 'takeOver') return (await this.states())[0] === 'handed_over';
    if (action === 'release') return this.#taken !== undefined;
    return action !== 'rollBackPromised' || this.#promised;
  }

  async act(action: Action): Promise<void> {
    const { a, b } = this;
    const ownership = a.sourceOwnership;
    const migration = a.sources.open('m1', b.destinationFor('m1', a.hostId), UNLIMITED);
    if (action === 'handOver') await ownership.handOver('vm', 'm1', handOverTo({ ...this.#move, destination: b }));
    else if (action === 'takeOver') this.#taken = (await migration.takeOver('vm', rootsOf(this.#sent))).generation;
    else if (action === 'release') await ownership.release('vm', 'm1', 'b', this.#taken ?? 0, new Map());
    else if (action === 'abandon')
      await b.hub.abandon('m1', 'vm', this.#move.fence).then(() => (this.#promised = true));
    else if (action === 'crashSource') this.a = await restart(a);
    else if (action === 'crashDestination') this.b = await restart(b);
    else await ownership.rollBack('vm', 'm1', { destinationAbandoned: action === 'rollBackPromised' });
  }

  /** Acts, and is answered what the tables say: the one code that refuses it, or nothing. */
  async expectByTables(action: Action): Promise<void> {
    const refusal = refusalOf(action, ...(await this.states()));
    const answer: unknown = await this.act(action).then(
      () => undefined,
      (error: unknown) => error,
    );
    expect([action, answer instanceof DwcpError ? answer.code : answer]).toEqual([action, refusal]);
  }

  /** As a sweep does where the migration's workflow is closed: the destination is asked first. */
  async settle(): Promise<void> {
    const [, destination] = await this.states();
    if (DESTINATION_TABLE[destination].whenClosed === 'abandon') {
      await this.act('abandon');
      await this.act('rollBackPromised');
    } else {
      await this.act('takeOver');
      await this.act('release');
    }
  }

  async whoMayRun(): Promise<[source: boolean, destination: boolean]> {
    return [await mayRun(this.a), await mayRun(this.b)];
  }

  get diskOnA(): string {
    return this.#here.disk;
  }
}

it('whatever happens in whatever order, each step is answered by the tables, never do both sides run the VM, and in the end one does', async () => {
  const action = fc.constantFrom<Action>(
    'handOver',
    'takeOver',
    'release',
    'abandon',
    'rollBack',
    'rollBackPromised',
    'crashSource',
    'crashDestination',
  );
  const ends = new Set<string>();
  await fc.assert(
    fc.asyncProperty(fc.array(action, { minLength: 3, maxLength: 9 }), async (actions) => {
      const here = await lab();
      const content = sha256(here.disk);
      const story = new Story(here, await ready(here));
      for (const each of actions) {
        if (!(await story.isTaken(each))) continue;
        await story.expectByTables(each);
        expect(await story.whoMayRun()).not.toEqual([true, true]);
      }
      await story.settle();
      const [atSource, atDestination] = await story.whoMayRun();
      expect([atSource, atDestination].filter(Boolean)).toHaveLength(1);
      expect(sha256(atSource ? story.diskOnA : onB(story.b))).toBe(content);
      ends.add(atSource ? 'stayed' : 'moved');
      await story.a.close();
      await story.b.close();
    }),
    {
      numRuns: 12,
      examples: [
        [['handOver', 'abandon', 'takeOver', 'rollBack', 'rollBackPromised', 'handOver', 'release']],
        [['handOver', 'rollBack', 'takeOver', 'abandon', 'crashDestination', 'release', 'rollBack', 'crashSource']],
      ],
    },
  );
  expect([...ends].sort()).toEqual(['moved', 'stayed']);
});
