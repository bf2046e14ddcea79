/**
 * Live migration of a guest's memory between two real QEMUs, one agent's worth of both sides in this process: the guest
 * runs until it is told to stop, goes on where it was, and no page of it is older than its pause.
 */
import { join } from 'node:path';
import { IncomingMigration } from '../../src/hypervisor/qemu/incoming-migration';
import type { MigrationStreamHandler } from '../../src/hypervisor/qemu/migration-stream-reader';
import { MigrationStreamReader } from '../../src/hypervisor/qemu/migration-stream-reader';
import { OutgoingMigration } from '../../src/hypervisor/qemu/outgoing-migration';
import { temporaryFolder } from '../helpers/data';
import { describeWhere } from '../helpers/needs';
import {
  buildCountingGuest,
  type CountingGuest,
  countsOf,
  expectOnePass,
  needsAssembler,
  needsQemu,
  type RunningGuest,
  startGuest,
} from '../helpers/qemu';
import { until } from '../helpers/waiting';

const PAGES = 2048;
const MEMORY_MIB = 64;
const SOON_MS = 10_000;

/** The newest version of every page, as a destination's RAM image would hold it. */
class RamImage implements MigrationStreamHandler {
  prefix: Buffer | undefined;
  sectionId = 0;
  rounds = 0;
  ended = false;
  readonly commands: Buffer[] = [];
  readonly device: Buffer[] = [];
  readonly pages = new Map<
    string,
    { readonly block: string; readonly offset: number; readonly content: Buffer | number }
  >();
  received = 0;

  setUp(prefix: Buffer, sectionId: number): void {
    this.prefix = Buffer.from(prefix);
    this.sectionId = sectionId;
  }

  page(block: string, offset: number, content: Buffer): void {
    this.received += 1;
    this.pages.set(`${block}/${offset}`, { block, offset, content: Buffer.from(content) });
  }

  filledPage(block: string, offset: number, fill: number): void {
    this.pages.set(`${block}/${offset}`, { block, offset, content: fill });
  }

  command(bytes: Buffer): void {
    this.commands.push(Buffer.from(bytes));
  }

  sectionEnded(kind: 'part' | 'end'): void {
    if (kind === 'end') this.ended = true;
    else this.rounds += 1;
  }

  deviceState(bytes: Buffer): void {
    this.device.push(Buffer.from(bytes));
  }

  /** All of it, into a fresh QEMU: what a destination does after a crash, and here at the end. */
  async replay(destination: RunningGuest, path: string): Promise<void> {
    const incoming = await IncomingMigration.open(
      { qmp: destination.qmp, said: () => '' },
      path,
      this.prefix!,
      this.sectionId,
    );
    let given = 0;
    for (const { block, offset, content } of this.pages.values()) {
      if (typeof content === 'number') incoming.filledPage(block, offset, content);
      else incoming.page(block, offset, content);
      given += 1;
      if (given % 500 === 0) await incoming.flush();
    }
    await incoming.finish(this.commands, this.device);
  }
}

const firstCount = async (guest: RunningGuest): Promise<number> => (await countsOf(guest, 1))[0]!;
const running = async ({ qmp }: RunningGuest): Promise<boolean> => (await qmp.execute('query-status')).running;

describeWhere([needsQemu(), needsAssembler()])('a running guest', () => {
  let guest: CountingGuest;
  beforeAll(() => (guest = buildCountingGuest(PAGES, { idleTurns: 20 })));

  async function startMoving(
    autoConverge = false,
  ): Promise<{ source: RunningGuest; ram: RamImage; outgoing: OutgoingMigration }> {
    const source = await startGuest(guest, MEMORY_MIB);
    await until(SOON_MS, 'the guest’s third pass', async () => (await firstCount(source)) >= 3);
    const ram = new RamImage();
    const outgoing = new OutgoingMigration(
      source.qmp,
      join(temporaryFolder(), 'outgoing'),
      new MigrationStreamReader(ram),
      { autoConverge },
    );
    await outgoing.start();
    await until(SOON_MS, 'the second round', () => ram.rounds >= 2);
    return { source, ram, outgoing };
  }

  it('runs on while nobody takes its stream, also where QEMU looks at its dirty log by itself', async () => {
    const { source, outgoing } = await startMoving(true);
    const before = await firstCount(source);
    outgoing.hold();
    let slowestMs = 0;
    for (
      const until = performance.now() + 12_000;
      performance.now() < until;
      await new Promise((resolve) => setTimeout(resolve, 200))
    ) {
      const askedAt = performance.now();
      expect(await running(source)).toBe(true);
      slowestMs = Math.max(slowestMs, performance.now() - askedAt);
    }
    expect(slowestMs).toBeLessThan(3_000);
    expect(await firstCount(source)).toBeGreaterThan(before);
    outgoing.release();
    await outgoing.cancel();
    expect(await running(source)).toBe(true);
  }, 60_000);

  test('runs through the rounds, stops when it is let, and goes on at the destination with every page', async () => {
    const { source, ram, outgoing } = await startMoving();
    expect(await running(source)).toBe(true);

    outgoing.hold();
    const before = await firstCount(source);
    await until(SOON_MS, 'passes while the stream is held', async () => (await firstCount(source)) >= before + 2);
    outgoing.release();

    let stoppedAtMs = 0;
    await outgoing.letSwitchOver((atMs) => (stoppedAtMs = atMs));
    expect(await source.qmp.execute('query-status')).toMatchObject({ running: false });
    expect(ram.ended).toBe(false);
    await outgoing.complete();
    await until(SOON_MS, 'the device state', () => ram.ended && ram.device.length > 0);

    const path = join(temporaryFolder(), 'incoming');
    const destination = await startGuest(guest, MEMORY_MIB, `unix:${path}`);
    await ram.replay(destination, path);
    expect([await running(source), await running(destination)]).toEqual([false, false]);
    const counts = await countsOf(destination, PAGES);
    expectOnePass(counts);
    expect(counts).toEqual(await countsOf(source, PAGES));

    const resumed = destination.qmp.event('RESUME', ({ name }) => name === 'RESUME', 5000);
    await destination.qmp.execute('cont');
    expect((await resumed).atMs).toBeGreaterThan(stoppedAtMs);
    await until(SOON_MS, 'passes at the destination', async () => (await firstCount(destination)) > counts[0]! + 1);
    expect(await running(source)).toBe(false);
  });

  test('runs on at the source when the migration is cancelled, also when it was stopped for the switchover already', async () => {
    const { source, outgoing } = await startMoving();
    await outgoing.letSwitchOver(() => undefined);
    expect(await running(source)).toBe(false);
    await outgoing.cancel();
    await until(SOON_MS, 'the guest running', () => running(source));
    const count = await firstCount(source);
    await until(SOON_MS, 'passes after the cancel', async () => (await firstCount(source)) > count + 1);
    expectOnePass(
      await (async () => {
        await source.qmp.execute('stop');
        return countsOf(source, PAGES);
      })(),
    );
  });

  test('runs on at the source when its stream breaks', async () => {
    const { source, ram, outgoing } = await startMoving();
    const failed = new Promise<string>((resolve) => outgoing.onFailure((error) => resolve(error.code)));
    ram.page = () => {
      throw new Error('the disk of the RAM image is full');
    };
    expect(await failed).toBe('INTERNAL');
    await until(SOON_MS, 'QEMU’s own end of it', async () => (await outgoing.info()).status === 'failed');
    expect(await running(source)).toBe(true);
  });
});
