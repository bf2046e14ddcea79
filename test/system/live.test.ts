/**
 * A running guest moves through the whole system, and back: real agents, a real Temporal server, real QEMUs, and the counting
 * guest, whose pages are looked at one by one.
 */
import { execFileSync, spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { VmRegistry } from '../../src/store/vm-registry';
import { temporaryFolder } from '../helpers/data';
import { ask, expectCounting, isRunning, rememberFolder, startGuestOn } from '../helpers/guest-lab';
import { type Lab, sharedLab } from '../helpers/lab';
import { describeWhere } from '../helpers/needs';
import { buildCountingGuest, type CountingGuest, needsAssembler, needsQemu } from '../helpers/qemu';

const PAGES = 2048;

describeWhere([needsQemu(), needsAssembler()])('a running guest', () => {
  let guest: CountingGuest;
  const shared = sharedLab({ own: true });
  const withoutDwcp = sharedLab({ own: true, bArgs: ['--accept-dwcp', 'false'] });
  beforeAll(() => (guest = buildCountingGuest(PAGES, { idleTurns: 200 })));

  test('moves while it runs, and back onto its baseline, with every page', async () => {
    const lab = await shared();
    await startGuestOn(lab, 'live', guest);
    const before = await expectCounting(lab.a, 'live', PAGES, 2);
    const there = await lab.result(await lab.migrate('live'));
    expect(there).toMatchObject({
      path: 'dwcp',
      guest: { responds: true },
      images: [{ imageId: 'vda' }, { imageId: 'memory' }],
    });
    expect([await isRunning(lab.a, 'live'), await isRunning(lab.b, 'live')]).toEqual([false, true]);
    const counted = await expectCounting(lab.b, 'live', PAGES, before);
    const back = await lab.result(await lab.orchestrator.migrateVm('live', lab.b.hostId, lab.a.hostId));
    expect([await isRunning(lab.a, 'live'), await isRunning(lab.b, 'live')]).toEqual([true, false]);
    await expectCounting(lab.a, 'live', PAGES, counted);
    expect(back.linkBytes).toBeLessThan(there.linkBytes);
    // Its counters change in place: against the bytes that were there they are a few runs.
    expect(back.images.find(({ kind }) => kind === 'memory')!.blocks.runDelta).toBeGreaterThan(PAGES / 16 / 2);
    await lab.untilClean();
  });

  test('started by hand with a qcow2 disk: adopted, moved while it runs; stopped, it comes back and starts', async () => {
    const lab = await shared();
    const folder = temporaryFolder();
    const [disk, qmp] = [join(folder, 'disk.qcow2'), join(folder, 'by-hand.qmp')];
    execFileSync('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', guest.image, disk]);
    const args = [
      '-accel',
      'tcg',
      '-m',
      '64',
      '-display',
      'none',
      '-vga',
      'none',
      '-nic',
      'none',
      '-serial',
      `file:${join(folder, 'serial')}`,
      '-drive',
      `file=${disk},if=ide`,
      '-qmp',
      `unix:${qmp},server=on,wait=off`,
    ];
    const byHand = spawn('qemu-system-x86_64', args, { stdio: 'ignore' });
    const ended = new Promise((resolve) => byHand.once('close', resolve));
    await new Promise((resolve) => setTimeout(resolve, 3_000));
    rememberFolder(lab.a.dataDir, lab.b.dataDir, folder);
    await dwcp(lab, ['vm', 'adopt', 'by-hand', '--qmp', qmp, '--data-dir', lab.a.dataDir]);
    const result = await lab.result(await lab.migrate('by-hand'));
    expect(result.guest).toMatchObject({ responds: true });
    await ended;
    await expectCounting(lab.b, 'by-hand', PAGES, 1);
    const [arrived] = (await new VmRegistry(lab.b.dataDir).get('by-hand')).images;
    execFileSync('qemu-img', ['compare', '-U', '-f', 'raw', '-F', 'qcow2', arrived!.path, disk]);

    await dwcp(lab, ['vm', 'stop', 'by-hand', '--now', '--data-dir', lab.b.dataDir]);
    const back = await lab.result(await lab.orchestrator.migrateVm('by-hand', lab.b.hostId, lab.a.hostId));
    expect([back.guest, back.images.map(({ kind }) => kind)]).toEqual([undefined, ['disk']]);
    await dwcp(lab, ['vm', 'start', 'by-hand', '--data-dir', lab.a.dataDir]);
    await new Promise((resolve) => setTimeout(resolve, 3_000));
    await expectCounting(lab.a, 'by-hand', PAGES, 1);
  }, 90_000);

  test('not running, with a qcow2 disk on another: the content moves onto the raw baseline there, and starts', async () => {
    const lab = await shared();
    const folder = temporaryFolder();
    const [base, disk] = [join(folder, 'base.qcow2'), join(folder, 'disk.qcow2')];
    execFileSync('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', guest.image, base]);
    execFileSync('qemu-img', ['create', '-f', 'qcow2', '-b', base, '-F', 'qcow2', disk, '64M']);
    const write = (pattern: number, at: string): unknown =>
      execFileSync('qemu-io', ['-f', 'qcow2', '-c', `write -P ${pattern} ${at}`, disk]);
    const command = (id: string): string[] => [
      'vm',
      'define',
      id,
      '--data-dir',
      lab.a.dataDir,
      '--',
      'qemu-system-x86_64',
      '-accel',
      'tcg',
      '-m',
      '64',
      '-display',
      'none',
      '-vga',
      'none',
      '-nic',
      'none',
      '-drive',
      `file=${disk},if=ide,format=qcow2`,
    ];
    rememberFolder(lab.a.dataDir, lab.b.dataDir, folder);
    write(7, '16M 4M');
    await dwcp(lab, command('still'));
    await lab.result(await lab.orchestrator.warmBaseline('still', lab.a.hostId, lab.b.hostId));
    write(8, '18M 4k');
    const there = await lab.result(await lab.migrate('still'));
    expect(there.images).toMatchObject([
      { imageId: 'vda', totalBytes: 64 * 1024 * 1024, began: 'baseline', blocks: { full: 0, pages: 1 } },
    ]);
    const [arrived] = (await new VmRegistry(lab.b.dataDir).get('still')).images;
    execFileSync('qemu-img', ['compare', '-f', 'raw', '-F', 'qcow2', arrived!.path, disk]);
    await dwcp(lab, ['vm', 'start', 'still', '--data-dir', lab.b.dataDir]);
    await new Promise((resolve) => setTimeout(resolve, 3_000));
    await expectCounting(lab.b, 'still', PAGES, 1);

    await dwcp(lab, command('plain'));
    const plain = await lab.result(await lab.migrate('plain', { enableDwcp: false }));
    expect(plain).toMatchObject({
      path: 'standard',
      images: [{ imageId: 'vda', totalBytes: 64 * 1024 * 1024, verified: true }],
    });
    const [whole] = (await new VmRegistry(lab.b.dataDir).get('plain')).images;
    execFileSync('qemu-img', ['compare', '-f', 'raw', '-F', 'qcow2', whole!.path, disk]);
  }, 90_000);

  test('a cancel while its memory is on its way lets it run on where it is, and what has arrived stays as baseline', async () => {
    const lab = await shared();
    await startGuestOn(lab, 'cancelled', buildCountingGuest(PAGES, { idleTurns: 200 }, 24 * 1024 * 1024));
    const before = await expectCounting(lab.a, 'cancelled', PAGES, 2);
    const id = await lab.migrate('cancelled', { bandwidthLimit: 3e6 });
    await lab.until(id, 'some of it there', ({ live }) =>
      live.some(({ imageId, linkBytes }) => imageId === 'vda' && linkBytes > 3e6),
    );
    await lab.orchestrator.cancelMigration(id);
    await expect(lab.result(id)).rejects.toMatchObject({ code: 'CANCELLED' });
    expect([await isRunning(lab.a, 'cancelled'), await isRunning(lab.b, 'cancelled')]).toEqual([true, false]);
    await expectCounting(lab.a, 'cancelled', PAGES, before);
    await lab.untilClean();
  }, 60_000);

  test('moves by QEMU itself where DWCP is off here or there: disk and memory, nothing older than the pause', async () => {
    const lab = await withoutDwcp();
    await startGuestOn(lab, 'whole', guest);
    const before = await expectCounting(lab.a, 'whole', PAGES, 2);
    const there = await lab.result(await lab.migrate('whole', { maxDowntimeMs: 2_000 }));
    expect(there).toMatchObject({
      path: 'fallback',
      fallbackReason: { code: 'HELLO_REFUSED' },
      guest: { responds: true },
      images: [{ imageId: 'vda', verified: false }, { imageId: 'memory' }],
    });
    expect([await isRunning(lab.a, 'whole'), await isRunning(lab.b, 'whole')]).toEqual([false, true]);
    const counted = await expectCounting(lab.b, 'whole', PAGES, before);
    const [left, arrived] = await Promise.all(
      [new VmRegistry(lab.a.dataDir), new VmRegistry(lab.b.dataDir)].map(
        async (registry) => (await registry.get('whole')).images[0]!.path,
      ),
    );
    execFileSync('qemu-img', ['compare', '-U', '-f', 'raw', '-F', 'raw', arrived!, `${left!}.dwcp-baseline`]);
    const back = await lab.result(
      await lab.orchestrator.migrateVm('whole', lab.b.hostId, lab.a.hostId, {
        enableDwcp: false,
        maxDowntimeMs: 2_000,
      }),
    );
    expect(back).toMatchObject({ path: 'standard', guest: { responds: true } });
    await expectCounting(lab.a, 'whole', PAGES, counted);
    await lab.untilClean();
  }, 90_000);

  test('is refused with a reason where it is paused: nothing is moved', async () => {
    const lab = await shared();
    await startGuestOn(lab, 'refused', guest);
    await ask(lab.a, 'refused', (qmp) => qmp.execute('stop'));
    await expect(lab.result(await lab.migrate('refused'))).rejects.toMatchObject({ code: 'GUEST_PAUSED' });
    await ask(lab.a, 'refused', (qmp) => qmp.execute('cont'));
    expect([await isRunning(lab.a, 'refused'), await isRunning(lab.b, 'refused')]).toEqual([true, false]);
  }, 60_000);
});

async function dwcp(lab: Lab, args: readonly string[]): Promise<void> {
  const child = lab.children.startDwcp(`vm-${args[1] ?? ''}`, args, {});
  if ((await child.ended) !== 0) throw new Error(`dwcp ${args.join(' ')}: ${readFileSync(child.logFile, 'utf8')}`);
}
