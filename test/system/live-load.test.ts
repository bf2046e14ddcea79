/**
 * Running guests that make it hard: one that cannot converge, one that goes back and forth twenty times, a real Linux whose
 * disk is written all the while and whose file system is looked at afterwards, and the standard transfer under faults.
 */
import { execFileSync } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { linuxGuestCommand, makeLinuxGuest, serialLine, ticksOf } from '../../src/cli/demo/linux-guest';
import { startGuestProcess } from '../../src/hypervisor/qemu/guest-process';
import { findListener } from '../../src/hypervisor/qemu/process-table';
import { runPlaces } from '../../src/hypervisor/qemu/run-places';
import { MIB } from '../../src/model/units';
import { VmRegistry } from '../../src/store/vm-registry';
import {
  AS_OWN,
  ask,
  expectCounting,
  isRunning,
  monitorPath,
  rememberFolder,
  startGuestOn,
} from '../helpers/guest-lab';
import { type Lab, type LabHost, sharedLab } from '../helpers/lab';
import { describeWhere, needsProgram } from '../helpers/needs';
import { buildCountingGuest, needsAssembler, needsQemu } from '../helpers/qemu';

const PAGES = 2048;
const LINUX = { memoryMiB: 192, diskMiB: 96, filesMiB: 24, randomMiB: 8, dirtyKiBPerTick: 128, diskKiBPerSecond: 512 };

const shared = sharedLab({ own: true });

describeWhere([needsQemu(), needsAssembler()])('a guest whose pause would be longer than allowed', () => {
  test('is parked with the figures and runs on undisturbed; a longer pause lets it move', async () => {
    const lab = await shared();
    await startGuestOn(lab, 'hard', buildCountingGuest(PAGES, { idleTurns: 200 }));
    const id = await lab.migrate('hard', { maxDowntimeMs: 20, autoConverge: false });
    const { progress } = await lab.until(id, 'parked', (status) => status.progress?.parked !== undefined);
    expect(progress?.parked).toMatchObject({
      step: 'transfer',
      error: { code: 'GUEST_NOT_CONVERGING', message: expect.stringContaining('pause expected') as unknown },
    });
    expect([await isRunning(lab.a, 'hard'), await isRunning(lab.b, 'hard')]).toEqual([true, false]);
    const before = await expectCounting(lab.a, 'hard', PAGES, 2);
    expect((await ask(lab.a, 'hard', (qmp) => qmp.execute('query-migrate')))['cpu-throttle-percentage'] ?? 0).toBe(0);
    await lab.orchestrator.retryMigration(id, 'tested', { maxDowntimeMs: 5_000 });
    expect((await lab.result(id)).guest?.responds).toBe(true);
    expect([await isRunning(lab.a, 'hard'), await isRunning(lab.b, 'hard')]).toEqual([false, true]);
    await expectCounting(lab.b, 'hard', PAGES, before);
  }, 60_000);
});

describeWhere([needsQemu(), needsAssembler()])('a guest that goes back and forth', () => {
  test('twenty times under load leaves nothing over: no file, no process, no socket, no descriptor, and counts on', async () => {
    const lab = await shared();
    await startGuestOn(lab, 'often', buildCountingGuest(PAGES, { idleTurns: 200 }));
    let counted = await expectCounting(lab.a, 'often', PAGES, 2);
    const left: Leftovers[] = [];
    for (let round = 0; round < 10; round += 1) {
      for (const [source, destination] of [
        [lab.a, lab.b],
        [lab.b, lab.a],
      ] as const) {
        await lab.result(await lab.orchestrator.migrateVm('often', source.hostId, destination.hostId));
        counted = await expectCounting(destination, 'often', PAGES, counted);
      }
      await lab.untilClean();
      left.push(await settledLeftovers(lab));
    }
    const [settled, last] = [left[2]!, left.at(-1)!];
    expect(last.files).toEqual(settled.files);
    expect(last.guests).toBe(1);
    for (const [index, count] of last.descriptors.entries())
      expect(count).toBeLessThanOrEqual(settled.descriptors[index]! + 8);
    for (const [index, bytes] of last.rssBytes.entries())
      expect(bytes).toBeLessThan(settled.rssBytes[index]! + 120 * MIB);
  }, 240_000);
});

describeWhere([needsQemu(), needsProgram('e2fsck', 'e2fsprogs')])(
  'a Linux guest whose disk is written all the while',
  () => {
    test('goes on with its checksums, and its file system is sound, moved by DWCP and back by QEMU itself', async () => {
      const lab = await shared();
      rememberFolder(lab.a.dataDir, lab.b.dataDir);
      const made = await makeLinuxGuest(join(lab.folder, 'linux'), LINUX, lab.children, () => undefined);
      const folder = join(lab.folder, 'vms', 'linux');
      mkdirSync(folder, { recursive: true });
      const disk = join(folder, 'disk.img');
      copyFileSync(made.disk, disk);
      const registry = new VmRegistry(lab.a.dataDir);
      const serial = (host: LabHost): string => join(new VmRegistry(host.dataDir).runFolder('linux'), 'serial.log');
      mkdirSync(registry.runFolder('linux'), { recursive: true });
      const command = linuxGuestCommand({ ...made, disk }, LINUX, serial(lab.a));
      const { qmp, places } = await startGuestProcess(command, registry.runFolder('linux'), AS_OWN);
      qmp.close();
      await registry.put({
        vmId: 'linux',
        images: [{ imageId: 'vda', kind: 'disk', path: disk }],
        presence: 'here',
        generation: 0,
        guest: { command, qmpPath: places.qmpPath },
      });
      await serialLine(serial(lab.a), /^tick 40$/, 120_000);

      const there = await lab.result(await lab.migrate('linux'));
      expect(there).toMatchObject({ path: 'dwcp', guest: { responds: true } });
      await ticksOn(serial(lab.b), ticksOf(serial(lab.a)).last + 60);
      await expectSound(lab.b, 'linux', lab.folder);

      const back = await lab.result(
        await lab.orchestrator.migrateVm('linux', lab.b.hostId, lab.a.hostId, { enableDwcp: false }),
      );
      expect(back).toMatchObject({ path: 'standard', guest: { responds: true } });
      await ticksOn(serial(lab.a), ticksOf(serial(lab.b)).last + 60);
      await expectSound(lab.a, 'linux', lab.folder);
    }, 300_000);
  },
);

describeWhere([needsQemu(), needsAssembler()])('the standard transfer of a running guest', () => {
  test.each(['source agent', 'destination agent', 'destination QEMU'] as const)(
    'begins anew after the %s was killed in its midst, and one of the two runs',
    async (victim) => {
      const lab = await shared();
      const vmId = `anew-${victim.replace(' ', '-')}`;
      await startGuestOn(lab, vmId, buildCountingGuest(PAGES, { idleTurns: 200 }, 16 * MIB));
      const before = await expectCounting(lab.a, vmId, PAGES, 2);
      const id = await lab.migrate(vmId, { enableDwcp: false, bandwidthLimit: 4e6, maxDowntimeMs: 10_000 });
      await lab.until(id, 'some of the disk there', ({ live }) =>
        live.some(({ imageId, linkBytes }) => imageId === 'vda' && linkBytes > 4e6),
      );
      if (victim === 'destination QEMU') process.kill(findListener(monitorPath(lab.b, vmId))!.pid, 'SIGKILL');
      else await lab.killAndRestart(victim);
      expect(await isRunning(lab.a, vmId)).toBe(true);
      expect(await lab.result(id)).toMatchObject({ path: 'standard', guest: { responds: true } });
      expect([await isRunning(lab.a, vmId), await isRunning(lab.b, vmId)]).toEqual([false, true]);
      await expectCounting(lab.b, vmId, PAGES, before);
      await lab.untilClean();
    },
    120_000,
  );
});

interface Leftovers {
  readonly files: readonly string[];
  readonly guests: number;
  readonly descriptors: readonly number[];
  readonly rssBytes: readonly number[];
}

/** Once no file is just being written: the source goes on writing what it keeps of the guest's memory after the migration's end. */
async function settledLeftovers(lab: Lab): Promise<Leftovers> {
  const deadline = Date.now() + 20_000;
  let left = leftOver(lab);
  for (; left.files.some((path) => path.endsWith('.tmp')) && Date.now() < deadline; left = leftOver(lab))
    await new Promise((resolve) => setTimeout(resolve, 200));
  return left;
}

function leftOver(lab: Lab): Leftovers {
  const hosts = [lab.a, lab.b];
  const files = hosts
    .flatMap(({ dataDir }) =>
      readdirSync(dataDir, { recursive: true, encoding: 'utf8' }).map((path) => `${dataDir.slice(-1)}/${path}`),
    )
    .filter((path) => !path.endsWith('.log'))
    .sort();
  const guests = hosts.filter(
    (host) =>
      existsSync(monitorPath(host, 'often')) &&
      findListener(runPlaces(new VmRegistry(host.dataDir).runFolder('often')).qmpPath) !== undefined,
  ).length;
  const pids = hosts.map(({ agent }) => agent?.process.pid ?? 0);
  return {
    files,
    guests,
    descriptors: pids.map((pid) => readdirSync(`/proc/${pid}/fd`).length),
    rssBytes: pids.map((pid) => Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) * 1024),
  };
}

async function ticksOn(serial: string, atLeast: number): Promise<void> {
  for (const deadline = Date.now() + 90_000; ; await new Promise((resolve) => setTimeout(resolve, 100))) {
    const { last, bad } = ticksOf(serial);
    expect(bad).toEqual([]);
    if (last >= atLeast) return;
    if (Date.now() > deadline) throw new Error(`the guest does not tick on: ${last} of ${atLeast}`);
  }
}

/** A copy of the disk as it is at one moment, its journal replayed, has no fault. */
async function expectSound(host: LabHost, vmId: string, folder: string): Promise<void> {
  const { path } = (await new VmRegistry(host.dataDir).get(vmId)).images.find(({ kind }) => kind === 'disk')!;
  const copy = join(folder, 'copy.img');
  await ask(host, vmId, async (qmp) => {
    await qmp.execute('stop');
    execFileSync('cp', ['--sparse=always', path, copy]);
    await qmp.execute('cont');
  });
  execFileSync('e2fsck', ['-y', '-E', 'journal_only', copy], { stdio: 'pipe' });
  execFileSync('e2fsck', ['-f', '-n', copy], { stdio: 'pipe' });
}
