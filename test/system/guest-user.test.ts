/**
 * A guest whose QEMU runs as a user of its own, through the whole system: it runs, moves while it runs and back, and rests, also by
 * the standard transfer; its processes have that user's id, and nothing of the agent's in their environment.
 */
import { chmodSync, copyFileSync, mkdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { findListener } from '../../src/hypervisor/qemu/process-table';
import { VmRegistry } from '../../src/store/vm-registry';
import { until } from '../../src/system/wait';
import { temporaryFolder } from '../helpers/data';
import { countingCommand, isRunning, monitorPath, rememberFolder } from '../helpers/guest-lab';
import { type Lab, type LabHost, sharedLab } from '../helpers/lab';
import { describeWhere, needsRoot } from '../helpers/needs';
import { buildCountingGuest, type CountingGuest, countOnDisk, needsAssembler, needsQemu } from '../helpers/qemu';

const NOBODY = 65_534;
const PAGES = 512;
const AS_NOBODY = ['--guest-user', 'nobody'];

describeWhere([needsRoot(), needsQemu(), needsAssembler()])('a guest with a user of its own', () => {
  let guest: CountingGuest;
  const folder = temporaryFolder();
  chmodSync(folder, 0o711);
  const shared = sharedLab({
    own: true,
    agentArgs: AS_NOBODY,
    aDataDir: join(folder, 'a'),
    bDataDir: join(folder, 'b'),
    vmsFolder: join(folder, 'vms'),
  });
  beforeAll(() => (guest = buildCountingGuest(PAGES, { idleTurns: 2000 }, undefined, true)));

  async function start(lab: Lab, vmId: string): Promise<void> {
    rememberFolder(lab.folder, folder);
    mkdirSync(lab.vmFolder(vmId), { recursive: true });
    const disk = join(lab.vmFolder(vmId), 'disk.img');
    copyFileSync(guest.image, disk);
    const command = countingCommand(disk, true);
    await dwcp(lab, ['vm', 'define', vmId, '--data-dir', lab.a.dataDir, '--', ...command]);
    await dwcp(lab, ['vm', 'start', vmId, '--data-dir', lab.a.dataDir, ...AS_NOBODY]);
  }

  /** Its process, once it has counted on on its disk. */
  async function runsOn(host: LabHost, vmId: string): Promise<number> {
    expect(await isRunning(host, vmId)).toBe(true);
    const [disk] = (await new VmRegistry(host.dataDir).get(vmId)).images;
    const before = countOnDisk(disk!.path);
    const countsOn = (): boolean => countOnDisk(disk!.path) > before + 1;
    expect(await until(countsOn, { everyMs: 100, withinMs: 120_000 })).toBe(true);
    expect(statSync(disk!.path).uid).toBe(NOBODY);
    return findListener(monitorPath(host, vmId))!.pid;
  }

  function expectOwn(pid: number): void {
    const status = readFileSync(`/proc/${pid}/status`, 'utf8');
    for (const ids of ['Uid', 'Gid']) expect(status).toMatch(new RegExp(`^${ids}:(\\s+${NOBODY}){4}$`, 'm'));
    expect(status).toMatch(/^Groups:\s*$/m);
    expect(status).toMatch(/^CapEff:\s+0+$/m);
    expect(readFileSync(`/proc/${pid}/environ`, 'utf8')).not.toMatch(/DWCP|TEMPORAL|HOME/);
  }

  test('runs, moves while it runs, and back', async () => {
    const lab = await shared();
    await start(lab, 'own');
    expectOwn(await runsOn(lab.a, 'own'));
    expect((await lab.result(await lab.migrate('own'))).guest).toMatchObject({ responds: true });
    expectOwn(await runsOn(lab.b, 'own'));
    await lab.result(await lab.orchestrator.migrateVm('own', lab.b.hostId, lab.a.hostId));
    expectOwn(await runsOn(lab.a, 'own'));
    expect(await isRunning(lab.b, 'own')).toBe(false);
    await lab.untilClean();
  }, 120_000);

  test('by the standard transfer too, and is stopped and started there', async () => {
    const lab = await shared();
    await start(lab, 'whole');
    await runsOn(lab.a, 'whole');
    const moved = await lab.result(await lab.migrate('whole', { enableDwcp: false }));
    expect(moved).toMatchObject({ path: 'standard', guest: { responds: true } });
    expectOwn(await runsOn(lab.b, 'whole'));
    await dwcp(lab, ['vm', 'stop', 'whole', '--now', '--data-dir', lab.b.dataDir]);
    await dwcp(lab, ['vm', 'start', 'whole', '--data-dir', lab.b.dataDir, ...AS_NOBODY]);
    expectOwn(await runsOn(lab.b, 'whole'));
  }, 120_000);
});

async function dwcp(lab: Lab, args: readonly string[]): Promise<void> {
  const child = lab.children.startDwcp(`vm-${args[1] ?? ''}`, args, {});
  if ((await child.ended) !== 0) throw new Error(`dwcp ${args.join(' ')}: ${readFileSync(child.logFile, 'utf8')}`);
}
