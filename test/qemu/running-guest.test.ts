/**
 * The driver of real QEMUs under the contract of running guests, with the counting guest, which writes to its memory and its disk
 * for as long as it runs. What the fake guest of other tests promises is looked at with the same suite.
 */
import { copyFileSync, mkdirSync, readFileSync, rmSync, statSync, truncateSync } from 'node:fs';
import { join } from 'node:path';
import { HostDriver } from '../../src/hypervisor/host-driver';
import { startGuestProcess } from '../../src/hypervisor/qemu/guest-process';
import { findListener } from '../../src/hypervisor/qemu/process-table';
import { QmpClient } from '../../src/hypervisor/qemu/qmp-client';
import { runPlaces } from '../../src/hypervisor/qemu/run-places';
import { RamLayout } from '../../src/model/guest';
import { blockCount, PAGE_SIZE_BYTES } from '../../src/model/image';
import { MIB } from '../../src/model/units';
import { type GuestUnderTest, runningGuestSuite, type Side } from '../contract/running-guest.suite';
import { temporaryFolder } from '../helpers/data';
import { AS_OWN, countingCommand, rememberFolder } from '../helpers/guest-lab';
import { HEARS_NOTHING } from '../helpers/heard-memory';
import { describeWhere } from '../helpers/needs';
import { buildCountingGuest, type CountingGuest, needsAssembler, needsQemu } from '../helpers/qemu';
import { until } from '../helpers/waiting';

const PAGES = 512;
/** Where the counting guest's pages begin, and the sector that takes its count (test/guests/counter.S). */
const COUNTED_FROM = 2 * MIB;
const COUNT_AT = 1024 * 512;

describeWhere([needsQemu(), needsAssembler()])('a QEMU', () => {
  let image: CountingGuest;
  beforeAll(() => (image = buildCountingGuest(PAGES, { pagesPerTick: 160 }, MIB, true)));

  runningGuestSuite('QEMU', async () => (await started()).guest);

  it('that ends in its rounds leaves nobody listening for its stream, once its move is broken off', async () => {
    const { guest, outgoingPath } = await started();
    const port = await guest.connect();
    const failure = new Promise((resolve) => port.onFailure(resolve));
    const { sizeBytes } = new RamLayout(guest.ramBlocks);
    await port.startMemory({
      path: guest.memoryPath,
      ramBlocks: guest.ramBlocks,
      blankPages: () => new Uint8Array(sizeBytes / PAGE_SIZE_BYTES),
      settled: new Uint8Array(blockCount(sizeBytes)),
      autoConverge: false,
      events: HEARS_NOTHING,
    });
    expect(findListener(outgoingPath)).toBeDefined();
    await guest.kill();
    await failure;
    await expect(port.runOn()).rejects.toMatchObject({ code: 'QEMU_UNREACHABLE' });
    port.close();
    expect(findListener(outgoingPath)).toBeUndefined();
  });

  async function started(): Promise<{ readonly guest: GuestUnderTest; readonly outgoingPath: string }> {
    const folder = temporaryFolder();
    rememberFolder(folder);
    const place = (side: Side): { readonly run: string; readonly disk: string } => ({
      run: join(folder, side),
      disk: join(folder, `${side}.img`),
    });
    for (const side of ['source', 'destination'] as const) {
      mkdirSync(place(side).run);
      copyFileSync(image.image, place(side).disk);
      // With a hole at its end.
      truncateSync(place(side).disk, 4 * MIB);
    }
    const { run, disk: path } = place('source');
    const command = countingCommand(path, true);
    const { qmp, places, process: qemu } = await startGuestProcess(command, run, AS_OWN);
    qmp.close();
    const monitors = new Map<Side, QmpClient>();
    /** One connection to a QEMU: what it says to one that has gone may come to the next. */
    const ask = async <T>(side: Side, question: (monitor: QmpClient) => Promise<T>): Promise<T> => {
      let monitor = monitors.get(side);
      if (!monitor || monitor.ended) {
        monitor = await QmpClient.connect(runPlaces(place(side).run).monitorPath);
        monitors.set(side, monitor);
      }
      return question(monitor);
    };
    const memoryOf = (side: Side, pages = PAGES): Promise<Buffer> =>
      ask(side, async (monitor) => {
        const file = join(folder, 'memory');
        await monitor.execute('pmemsave', { val: COUNTED_FROM, size: pages * PAGE_SIZE_BYTES, filename: file });
        const memory = readFileSync(file);
        rmSync(file);
        return memory;
      });
    const countOf = async (side: Side): Promise<number> => (await memoryOf(side, 1)).readUInt32LE(0);
    const countsTo = (side: Side, count: number): Promise<void> =>
      until(30_000, `its count of ${count}`, async () => (await countOf(side)) >= count);
    await countsTo('source', 2);

    const [atSource, atDestination] = (['source', 'destination'] as const).map(
      (side) => new HostDriver(() => place(side).run, AS_OWN.policy),
    ) as [HostDriver, HostDriver];
    const definition = { command, qmpPath: places.qmpPath };
    const disk = { imageId: 'vda', kind: 'disk' as const, path, sizeBytes: statSync(path).size };
    const { spec } = await atSource.inspectGuest('vm', definition, [disk], false);
    const ramStart = new RamLayout(spec.ramBlocks).startOf('pc.ram');
    const limitsOf = async (): Promise<{ readonly bps_wr?: number | undefined }> =>
      (await ask('source', (monitor) => monitor.execute('query-block'))).find(({ inserted }) => inserted?.file === path)
        ?.inserted ?? {};
    const guest: GuestUnderTest = {
      ramBlocks: spec.ramBlocks,
      disk,
      memoryPath: join(folder, 'memory.img'),
      writes: { first: (ramStart + COUNTED_FROM) / PAGE_SIZE_BYTES, count: PAGES },
      writesDiskAt: COUNT_AT,
      connect: (mayRun = () => true) =>
        atSource.connectGuest('vm', definition, async (letRunOn) => {
          if (mayRun()) await letRunOn();
          return mayRun();
        }),
      receiver: () => {
        const there = place('destination').disk;
        return atDestination.receiveGuest('vm', countingCommand(there, true), spec.ramBlocks, [
          { ...disk, path: there },
        ]);
      },
      isRunning: async (side) =>
        findListener(runPlaces(place(side).run).monitorPath) !== undefined &&
        (await ask(side, (monitor) => monitor.execute('query-status'))).running,
      written: async (side) => countsTo(side, (await countOf(side)) + 2),
      memoryOf: (side) => memoryOf(side),
      writeLimit: async () => (await limitsOf()).bps_wr || undefined,
      stop: () => ask('source', (monitor) => monitor.execute('stop')).then(() => undefined),
      kill: () => Promise.resolve(void process.kill(qemu.pid, 'SIGKILL')),
    };
    return { guest, outgoingPath: places.outgoingPath };
  }
});
