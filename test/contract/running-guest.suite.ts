/**
 * What every driver's running guest promises by src/hypervisor/contract.ts: at its source the order of what its memory says, its
 * rounds, its pause, its way back, its disk; at its destination being given, loaded and let run. A driver hands over a guest that
 * writes to its memory and its disk all the while. Moving by the hypervisor's own means is not looked at here.
 */
import { closeSync, copyFileSync, openSync, readFileSync } from 'node:fs';
import type { GuestPort, GuestReceiver } from '../../src/hypervisor/contract';
import type { DwcpError } from '../../src/model/errors';
import { type RamBlock, RamLayout } from '../../src/model/guest';
import { BLOCK_SIZE_BYTES, blockCount, PAGE_SIZE_BYTES, type VmImage } from '../../src/model/image';
import { Heard } from '../helpers/heard-memory';
import { until, within } from '../helpers/waiting';

export type Side = 'source' | 'destination';

export interface GuestUnderTest {
  readonly ramBlocks: readonly RamBlock[];
  readonly disk: VmImage & { readonly sizeBytes: number };
  /** Where its RAM image may lie; nothing is there. */
  readonly memoryPath: string;
  /** Pages of the RAM image that it writes, again and again. */
  readonly writes: { readonly first: number; readonly count: number };
  /** A byte of its disk that it writes again and again. */
  readonly writesDiskAt: number;
  /** @param mayRun whether it is this host's to let run */
  connect(mayRun?: () => boolean): Promise<GuestPort>;
  receiver(): GuestReceiver;
  isRunning(side: Side): Promise<boolean>;
  /** Waits until it has written all of that once more. */
  written(side: Side): Promise<void>;
  /** What those pages hold, of a guest that stands still. */
  memoryOf(side: Side): Promise<Buffer>;
  /** What it may write to its disk a second; undefined where nothing holds it. */
  writeLimit(): Promise<number | undefined>;
  /** As its operator does, by another way than the port. */
  stop(): Promise<void>;
  kill(): Promise<void>;
}

const EACH_MS = 30_000;

export function runningGuestSuite(name: string, create: () => Promise<GuestUnderTest>): void {
  describe(`running guest contract: ${name}`, () => {
    let guest: GuestUnderTest;
    let layout: RamLayout;
    let heard: Heard;
    let failed: DwcpError | undefined;
    const ports: GuestPort[] = [];
    const receivers: GuestReceiver[] = [];

    beforeEach(async () => {
      guest = await create();
      failed = undefined;
      layout = new RamLayout(guest.ramBlocks);
      heard = new Heard(layout.sizeBytes);
    });

    afterEach(async () => {
      for (const receiver of receivers.splice(0)) await receiver.discard().catch(() => receiver.release());
      for (const port of ports.splice(0)) {
        // What is broken off by its end leaves no stream behind.
        await port.runOn().catch(() => undefined);
        port.close();
      }
    });

    async function connected(mayRun?: () => boolean): Promise<GuestPort> {
      const port = await guest.connect(mayRun);
      ports.push(port);
      return port;
    }

    async function streaming(mayRun?: () => boolean): Promise<{ port: GuestPort; failure: Promise<DwcpError> }> {
      const port = await connected(mayRun);
      failed = undefined;
      const failure = new Promise<DwcpError>((resolve) => port.onFailure((error) => resolve((failed = error))));
      const blocks = blockCount(layout.sizeBytes);
      await port.startMemory({
        path: guest.memoryPath,
        ramBlocks: guest.ramBlocks,
        blankPages: () => new Uint8Array(layout.sizeBytes / PAGE_SIZE_BYTES),
        settled: new Uint8Array(blocks),
        autoConverge: false,
        events: heard,
      });
      return { port, failure };
    }

    const writtenPages = (): number[] => Array.from({ length: guest.writes.count }, (_, at) => guest.writes.first + at);
    const untilSo = (what: string, holds: () => boolean | Promise<boolean>): Promise<void> =>
      until(EACH_MS, what, () => {
        if (failed) throw failed;
        return holds();
      });
    /** All there is has been read once. */
    const untilSecondRound = (port: GuestPort): Promise<void> =>
      untilSo('the second round', async () => (await port.info()).rounds >= 2);
    const untilNamed = (): Promise<void> =>
      untilSo('every page that it writes is named', () => writtenPages().every((page) => heard.named.has(page)));
    const written = (image: Buffer): Buffer =>
      image.subarray(guest.writes.first * PAGE_SIZE_BYTES).subarray(0, guest.writes.count * PAGE_SIZE_BYTES);

    /** Through its rounds to where it stands still for good. */
    async function moved(): Promise<{ port: GuestPort; state: Awaited<ReturnType<GuestPort['complete']>> }> {
      const { port } = await streaming();
      await untilSecondRound(port);
      await within(
        EACH_MS,
        'the pause',
        port.pause(() => undefined),
      );
      return { port, state: await within(EACH_MS, 'the end of its stream', port.complete()) };
    }

    it('says its set-up before any page, each page that changes with its bytes, and that they have ended behind the last', async () => {
      const { port, state } = await moved();
      expect(heard.order[0]).toBe('setUp');
      expect(heard.order.filter((what) => what === 'setUp')).toHaveLength(1);
      expect(heard.order.filter((what) => what === 'end')).toHaveLength(1);
      expect(heard.order.at(-1)).toBe('end');
      expect(heard.set?.prefix.length).toBeGreaterThan(0);
      expect(state.devices.length).toBeGreaterThan(0);
      expect(port.memoryFd).toBeGreaterThan(0);
      const file = readFileSync(guest.memoryPath);
      expect(file.equals(heard.image)).toBe(true);
      expect(written(file).equals(await guest.memoryOf('source'))).toBe(true);
      expect(Math.max(...heard.named)).toBeLessThan(layout.sizeBytes / PAGE_SIZE_BYTES);
    });

    it('goes through rounds while it runs: what has changed since is named again', async () => {
      const { port } = await streaming();
      await untilSecondRound(port);
      const { rounds } = await port.info();
      expect(rounds).toBeGreaterThan(0);
      heard.named = new Set();
      await guest.written('source');
      await untilNamed();
      expect(await guest.isRunning('source')).toBe(true);
      expect((await port.info()).rounds).toBeGreaterThan(rounds);
    });

    it('runs on while nobody reads it, and is read on', async () => {
      const { port } = await streaming();
      await untilSecondRound(port);
      port.hold();
      await guest.written('source');
      expect(await guest.isRunning('source')).toBe(true);
      port.release();
      heard.named = new Set();
      await untilNamed();
    });

    it('stands still from its pause on, and for good once it has been completed', async () => {
      const { port } = await streaming();
      await untilSecondRound(port);
      let stoppedAtMs: number | undefined;
      const before = Date.now();
      await within(
        EACH_MS,
        'the pause',
        port.pause((atMs) => (stoppedAtMs = atMs)),
      );
      expect(Math.abs((stoppedAtMs ?? 0) - before)).toBeLessThan(EACH_MS);
      expect([await guest.isRunning('source'), await port.standsStill(), heard.order.includes('end')]).toEqual([
        false,
        false,
        false,
      ]);
      await within(EACH_MS, 'the end of its stream', port.complete());
      expect([await guest.isRunning('source'), await port.standsStill()]).toEqual([false, true]);
    });

    it.each(['in its rounds', 'in its pause'])(
      'runs on as before where it is broken off %s, and can be moved again',
      async (when) => {
        const { port } = await streaming();
        await untilSecondRound(port);
        if (when === 'in its pause')
          await within(
            EACH_MS,
            'the pause',
            port.pause(() => undefined),
          );
        await within(EACH_MS, 'its way back', port.runOn());
        await port.runOn();
        port.close();
        expect(await guest.isRunning('source')).toBe(true);
        await guest.written('source');
        heard = new Heard(layout.sizeBytes);
        readFileSync(guest.memoryPath).copy(heard.image);
        await moved();
        expect(written(readFileSync(guest.memoryPath)).equals(await guest.memoryOf('source'))).toBe(true);
      },
    );

    it('is not let run where it is another host’s, and says so by its code', async () => {
      let mayRun = true;
      const { port } = await streaming(() => mayRun);
      await untilSecondRound(port);
      await within(
        EACH_MS,
        'the pause',
        port.pause(() => undefined),
      );
      mayRun = false;
      await expect(port.runOn()).rejects.toMatchObject({ code: 'ABANDONED' });
      expect(await guest.isRunning('source')).toBe(false);
      mayRun = true;
      await port.runOn();
      expect(await guest.isRunning('source')).toBe(true);
    });

    it.each([
      ['is stopped by somebody else', 'GUEST_PAUSED', 'stop'],
      ['ends', 'GUEST_LOST', 'kill'],
    ] as const)('tells once where it %s in its rounds, and is not let run by what follows', async (_, code, act) => {
      const { port, failure } = await streaming();
      await untilSecondRound(port);
      await guest[act]();
      expect(await within(EACH_MS, 'its failure', failure)).toMatchObject({ code });
      await port.runOn().catch(() => undefined);
      expect(await guest.isRunning('source')).toBe(false);
    });

    it('answers nothing any more once it was let go of', async () => {
      const { port } = await streaming();
      await untilSecondRound(port);
      await port.runOn();
      port.close();
      await expect(port.info()).rejects.toMatchObject({ code: 'QEMU_UNREACHABLE' });
    });

    it('has a disk that is read as it is, with holes that are zeros, and rounds of what was written since', async () => {
      const { disk, writesDiskAt } = guest;
      const port = await connected();
      const reader = (await port.watchDisks([disk])).get(disk.imageId)!;
      await guest.written('source');
      const covers = (extents: readonly { offset: number; length: number }[]): boolean =>
        extents.some(({ offset, length }) => offset <= writesDiskAt && writesDiskAt < offset + length);
      expect(covers(await reader.nextRound())).toBe(true);
      await guest.written('source');
      expect(covers(await reader.nextRound())).toBe(true);
      await guest.stop();
      await reader.nextRound();
      expect(await reader.nextRound()).toEqual([]);
      const file = readFileSync(disk.path);
      const read = Buffer.alloc(disk.sizeBytes, 1);
      for (let at = 0; at < read.length; at += BLOCK_SIZE_BYTES)
        await reader.read(at, read.subarray(at, Math.min(read.length, at + BLOCK_SIZE_BYTES)));
      expect(read.equals(file)).toBe(true);
      const holes = await reader.holes();
      expect(holes).not.toEqual([]);
      for (const { offset, length } of holes)
        expect(file.subarray(offset, offset + length).every((byte) => byte === 0)).toBe(true);
    });

    it('says how much of its disk is of no round yet: what it writes, and nothing behind a round of one that stands still', async () => {
      const port = await connected();
      const reader = (await port.watchDisks([guest.disk])).get(guest.disk.imageId)!;
      await guest.written('source');
      const dirtyBytes = await reader.dirtyBytes();
      expect(dirtyBytes).toBeGreaterThanOrEqual(BLOCK_SIZE_BYTES);
      expect(dirtyBytes).toBeLessThanOrEqual(guest.disk.sizeBytes);
      await guest.stop();
      await reader.nextRound();
      expect(await reader.dirtyBytes()).toBe(0);
    });

    it('is held to so many bytes a second to its disk, lower and lower, until it runs on as before', async () => {
      const port = await connected();
      const reader = (await port.watchDisks([guest.disk])).get(guest.disk.imageId)!;
      expect(await guest.writeLimit()).toBeUndefined();
      for (const limit of [1_000_000, 200_000]) {
        expect(await reader.limitWrites(limit)).toBe(true);
        expect(await guest.writeLimit()).toBe(limit);
      }
      await guest.written('source');
      await port.runOn();
      expect(await guest.writeLimit()).toBeUndefined();
      await guest.written('source');
    });

    describe('at its destination', () => {
      let image = -1;

      afterEach(() => {
        if (image >= 0) closeSync(image);
        image = -1;
      });

      /** All of it has arrived in a file, and is given to a receiver. */
      async function arrived(): Promise<{
        receiver: GuestReceiver;
        state: Awaited<ReturnType<GuestPort['complete']>>;
      }> {
        const { state } = await moved();
        const path = `${guest.memoryPath}.arrived`;
        copyFileSync(guest.memoryPath, path);
        image = openSync(path, 'r');
        const receiver = guest.receiver();
        receivers.push(receiver);
        begin(receiver);
        return { receiver, state };
      }

      function begin(receiver: GuestReceiver): void {
        receiver.begin(heard.set!, image, () => false);
        receiver.changed(Array.from({ length: blockCount(layout.sizeBytes) }, (_, block) => block));
      }

      it('is loaded paused, twice as well as once, and runs when it is told to, from where it stood', async () => {
        const { receiver, state } = await arrived();
        await within(EACH_MS, 'loading', receiver.load(state));
        await receiver.load(state);
        expect([receiver.leftBytes, await guest.isRunning('destination')]).toEqual([0, false]);
        expect((await guest.memoryOf('destination')).equals(await guest.memoryOf('source'))).toBe(true);
        const process = receiver.process!;
        expect(await receiver.adopt(process)).toBe('loaded');
        const { resumedAtMs, responds } = await receiver.run();
        expect([responds, await guest.isRunning('destination'), resumedAtMs > 0]).toEqual([true, true, true]);
        expect((await receiver.run()).responds).toBe(true);
        expect(await receiver.adopt(process)).toBe('running');
        await guest.written('destination');
        expect(await guest.isRunning('source')).toBe(false);
      });

      it('takes what is loaded for the past where it is begun anew, and is found no more once it is given up', async () => {
        const { receiver, state } = await arrived();
        await within(EACH_MS, 'loading', receiver.load(state));
        const first = receiver.process!;
        begin(receiver);
        await within(EACH_MS, 'loading again', receiver.load(state));
        expect(await receiver.adopt(first)).toBeUndefined();
        const second = receiver.process!;
        expect(second).not.toEqual(first);
        await receiver.discard();
        expect(await receiver.adopt(second)).toBeUndefined();
      });

      it('is not run where nothing of it was loaded, and says so by its code; who waits for what is given up hears of it', async () => {
        const { receiver, state } = await arrived();
        await expect(receiver.run()).rejects.toMatchObject({ code: 'QEMU_REFUSED' });
        const loading = receiver.load(state);
        receiver.breakOff();
        await expect(within(EACH_MS, 'its end', loading)).rejects.toMatchObject({ code: 'SUPERSEDED' });
      });
    });
  });
}
