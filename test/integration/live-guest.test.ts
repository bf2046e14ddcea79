/**
 * A running guest on its way between two hosts, without a hypervisor: the fake guest, which keeps the contract that the real
 * driver keeps, writes exactly when it hurts. What is held against it is every byte of its memory and its disk.
 */
import { MAX_IMAGES, PAGE_SIZE_BYTES } from '../../src/model/image';
import { randomBlock, sha256 } from '../helpers/data';
import { FakeMove } from '../helpers/fake-move';
import { until } from '../helpers/waiting';

/** On a machine that has much else to do. */
const PATIENCE_MS = 100_000;

const never = new AbortController().signal;
const content = (seed: number, page: number): Buffer => randomBlock(seed, page, PAGE_SIZE_BYTES);

afterEach(() => jest.restoreAllMocks());

function pageOf(ram: Buffer | undefined, page: number): Buffer {
  return (ram ?? Buffer.alloc(0)).subarray(page * PAGE_SIZE_BYTES, (page + 1) * PAGE_SIZE_BYTES);
}

/** It runs at the destination alone, and is what it was at its pause to the last byte. */
function expectArrived({ guest, receiver, disks }: FakeMove): void {
  expect([guest.state, receiver?.guest?.state]).toEqual(['moved', 'running']);
  expect(receiver?.guest?.ram.equals(guest.ram)).toBe(true);
  expect(receiver?.guest?.writes).toBe(guest.writes);
  expect(disks.map(({ onB }) => sha256(onB))).toEqual(disks.map(({ path }) => sha256(path)));
}

async function arrive(move: FakeMove): Promise<void> {
  const { live } = await move.attempt();
  await live.rounds(never);
  const { roots } = await live.pauseGuest(never);
  await move.takeOver(live, roots);
  expectArrived(move);
}

it('arrives as it was at its pause, whatever it writes in every round, to memory and to disk', async () => {
  const move = await FakeMove.begin();
  const { live, port } = await move.attempt();
  let writes = 0;
  port.beforePiece = (round, gone) => {
    writes += 1;
    // In what has gone, in what has not, and across the border of two blocks.
    for (const page of [gone - 1, gone + 20, 15 + 16 * (writes % 90), 16 + 16 * (writes % 90)])
      if (page >= 0 && page < move.pages) move.guest.write(page, content(round, writes + page));
    if (writes % 5 === 0) move.guest.writeDisk((writes % 39) * 65_536 + 65_000, content(writes, round));
  };
  await live.rounds(never);
  const { roots, guest } = await live.pauseGuest(never);
  await move.takeOver(live, roots);
  expect(writes).toBeGreaterThan(move.pages / 16);
  expect(guest.rounds).toBeGreaterThan(0);
  expectArrived(move);
});

it('arrives with as many disks as a VM may have', async () => {
  const move = await FakeMove.begin({}, MAX_IMAGES - 1);
  expect(move.disks).toHaveLength(MAX_IMAGES);
  await arrive(move);
});

it('a page that changes behind its arrival is sent again in a later round, and so is a page that becomes zeros', async () => {
  const move = await FakeMove.begin();
  const { live, port } = await move.attempt();
  const [changes, empties] = [10, 700];
  const first = pageOf(move.guest.ram, changes);
  const before = Buffer.from(first);
  let changedIn: number | undefined;
  port.beforePiece = (round) => {
    if (changedIn !== undefined || !pageOf(move.receiver?.guest?.ram, changes).equals(before)) return;
    changedIn = round;
    move.guest.write(changes, content(9, 9));
    move.guest.write(empties, Buffer.alloc(PAGE_SIZE_BYTES));
  };
  await live.rounds(never);
  // Rounds go on until the pause.
  await until(PATIENCE_MS, 'the page has arrived and changed', () => changedIn !== undefined);
  const { roots } = await live.pauseGuest(never);
  await move.takeOver(live, roots);
  expect(pageOf(move.receiver?.guest?.ram, changes).equals(content(9, 9))).toBe(true);
  expectArrived(move);
});

it.each(['cancelled', 'ended by its host'])(
  'a move that is %s in a round leaves it running where it is, and nothing at the destination; the next one arrives, from what had',
  async (how) => {
    const move = await FakeMove.begin();
    const { live, port } = await move.attempt();
    const abort = new AbortController();
    let ended: Promise<void> | undefined;
    let pieces = 0;
    port.beforePiece = (round) => {
      pieces += 1;
      if (pieces <= 30) move.guest.write((pieces * 7) % move.pages, content(round, pieces));
      if (pieces === 30) {
        if (how === 'cancelled') abort.abort(new Error('not wanted any more'));
        else ended = move.a.sources.endLive('m1');
      }
    };
    await expect(live.rounds(abort.signal)).rejects.toThrow();
    await (ended ?? live.breakOff());
    expect([move.guest.state, move.receiver?.guest?.state]).not.toContain('moved');
    expect(move.guest.state).toBe('running');
    expect(move.receiver?.guest?.state).not.toBe('running');
    move.guest.write(3, content(77, 3));
    move.guest.writeDisk(5 * 65_536, content(77, 5));
    await arrive(move);
  },
);

it('goes on over a link that is cut in its rounds, and arrives as it was at its pause', async () => {
  const move = await FakeMove.begin();
  const { live, port } = await move.attempt();
  let [pieces, cuts] = [0, 0];
  port.beforePiece = (round) => {
    pieces += 1;
    if (pieces < 300) move.guest.write((pieces * 31) % move.pages, content(round, pieces));
    if (pieces === 20 || pieces === 45) {
      cuts += 1;
      move.b.dropConnections();
    }
  };
  await live.rounds(never);
  const { roots } = await live.pauseGuest(never);
  await move.takeOver(live, roots);
  expect(cuts).toBe(2);
  expectArrived(move);
});

it.each([
  ['ends', 'GUEST_LOST', 'end'],
  ['is stopped by somebody else', 'GUEST_PAUSED', 'operatorStops'],
] as const)(
  'a guest that %s in a round ends its move by that code, and nothing runs at the destination',
  async (_, code, act) => {
    const move = await FakeMove.begin();
    const { live, port } = await move.attempt();
    let pieces = 0;
    port.beforePiece = () => {
      pieces += 1;
      if (pieces === 30) move.guest[act]();
    };
    await expect(live.rounds(never)).rejects.toMatchObject({ code });
    await live.breakOff().catch(() => undefined);
    expect(move.guest.state).toBe(act === 'end' ? 'ended' : 'stopped by its operator');
    expect(move.receiver?.guest?.state).not.toBe('running');
  },
);

it('a destination that never loads it costs a pause of what is allowed at most: it runs on, arrives at the next try, and both are counted', async () => {
  const move = await FakeMove.begin();
  // The next try may take its time: a pause is as long as this machine lets it be.
  const { live } = await move.attempt({ maxDowntimeMs: 1_000 });
  await live.rounds(never);
  await until(PATIENCE_MS, 'its receiver', () => move.receiver !== undefined);
  move.receiver!.stalls = true;
  await expect(live.pauseGuest(never)).rejects.toMatchObject({ code: 'GUEST_RUNS_ON' });
  expect(move.guest.state).toBe('running');
  move.a.sources.setLive('m1', live);
  await move.a.sources.endLive('m1');
  move.receiver!.stalls = false;
  move.guest.write(8, content(55, 8));
  const spent = move.a.sources.spent.of('m1');
  const [sent, paused] = [sumOf(spent), spent.at(-1)!.guest!];
  expect(sent).toBeGreaterThan(0);
  expect(paused).toMatchObject({ pauses: 1 });
  expect(paused.pausedMs).toBeGreaterThan(0);
  const next = (await move.attempt()).live;
  await next.rounds(never);
  const { roots, guest, images } = await next.pauseGuest(never, spent);
  expect(guest).toMatchObject({ pauses: 2, pausedMs: paused.pausedMs });
  expect(sumOf(images)).toBeGreaterThan(sent);
  expect(sumOf(next.progress([]).images) + sent).toBe(sumOf(images));
  await move.takeOver(next, roots);
  expectArrived(move);
});

function sumOf(images: readonly { readonly linkBytes: number }[]): number {
  return images.reduce((sum, { linkBytes }) => sum + linkBytes, 0);
}
