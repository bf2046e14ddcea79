/**
 * A lab with a running guest: the counting guest on host a, moved between two agents, and a monitor that watches who runs.
 * What it watches through is the second QMP socket that DWCP gives every guest.
 */
import { copyFileSync, existsSync, mkdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { OWN_HOST } from '../../src/hypervisor/qemu/allowance';
import { type StartRules, startGuestProcess } from '../../src/hypervisor/qemu/guest-process';
import { findListener, killGuestsNaming } from '../../src/hypervisor/qemu/process-table';
import { QmpClient } from '../../src/hypervisor/qemu/qmp-client';
import { runPlaces } from '../../src/hypervisor/qemu/run-places';
import { VmRegistry } from '../../src/store/vm-registry';
import { temporaryFolder } from './data';
import type { Lab, LabHost } from './lab';
import { type CountingGuest, countOnDisk, expectOnePass } from './qemu';

export const GUEST_MEMORY_MIB = 64;

/** As `dwcp vm start` starts a guest. */
export const AS_OWN: StartRules = {
  purpose: 'run',
  allowance: OWN_HOST,
  policy: { qemuFolder: '', folders: [], networks: [] },
};

export function countingCommand(image: string, writesDisk = false): string[] {
  return [
    'qemu-system-x86_64',
    '-accel',
    'tcg',
    '-M',
    writesDisk ? 'pc' : 'q35',
    '-m',
    String(GUEST_MEMORY_MIB),
    '-display',
    'none',
    '-vga',
    'none',
    '-nic',
    'none',
    '-serial',
    'null',
    '-drive',
    `file=${image},format=raw,if=ide`,
  ];
}

export function monitorPath(host: LabHost, vmId: string): string {
  return runPlaces(new VmRegistry(host.dataDir).runFolder(vmId)).monitorPath;
}

const folders = new Set<string>();

/** QEMUs whose command names one of these are the test's. */
export function rememberFolder(...paths: readonly string[]): void {
  for (const path of paths) folders.add(path);
}

/** Ends every QEMU that a test has left on either host: they outlive agents, and would outlive the test. */
export function killGuests(): void {
  killGuestsNaming([...folders]);
  folders.clear();
}

afterEach(killGuests);

/**
 * Starts a command on host a, on a disk of its own, under the lab's registry.
 * @param image what its disk holds @param prepared has its monitor before anybody else
 */
export async function startCommandOn(
  lab: Lab,
  vmId: string,
  image: string,
  commandOf: (disk: string) => string[],
  prepared: (qmp: QmpClient) => Promise<void> = () => Promise.resolve(),
): Promise<void> {
  rememberFolder(lab.folder, lab.a.dataDir, lab.b.dataDir);
  const folder = lab.vmFolder(vmId);
  mkdirSync(folder, { recursive: true });
  const disk = join(folder, 'disk.img');
  copyFileSync(image, disk);
  const registry = new VmRegistry(lab.a.dataDir);
  const command = commandOf(disk);
  const { qmp, places } = await startGuestProcess(command, registry.runFolder(vmId), AS_OWN);
  await prepared(qmp);
  qmp.close();
  await registry.put({
    vmId,
    images: [{ imageId: 'vda', kind: 'disk', path: disk }],
    presence: 'here',
    generation: 0,
    guest: { command, qmpPath: places.qmpPath },
  });
}

/** Starts a guest on host a, under the lab's registry. */
export async function startGuestOn(lab: Lab, vmId: string, guest: CountingGuest, look = true): Promise<void> {
  await startCommandOn(lab, vmId, guest.image, (disk) => countingCommand(disk, guest.writesDisk));
  // A look takes the second monitor; where a watch holds that, the guest is given a moment instead.
  if (!look) return new Promise((resolve) => setTimeout(resolve, 1_500));
  for (
    const deadline = Date.now() + 20_000;
    (await lookAt(lab.a, vmId, { pages: 1, writesDisk: false })).counts[0]! < 3;
    await new Promise((resolve) => setTimeout(resolve, 50))
  ) {
    if (Date.now() > deadline) throw new Error('the guest does not count');
  }
}

/** Opens a guest's second monitor for one question. */
export async function ask<T>(host: LabHost, vmId: string, question: (qmp: QmpClient) => Promise<T>): Promise<T> {
  const qmp = await QmpClient.connect(monitorPath(host, vmId));
  try {
    return await question(qmp);
  } finally {
    qmp.close();
  }
}

export async function isRunning(host: LabHost, vmId: string): Promise<boolean> {
  const path = monitorPath(host, vmId);
  if (!existsSync(path) || !findListener(path)) return false;
  return ask(host, vmId, async (qmp) => (await qmp.execute('query-status')).running);
}

/** The counts of all pages, and the one on its disk where it writes that, of one moment. A guest that runs is stopped for the look. */
export async function lookAt(
  host: LabHost,
  vmId: string,
  { pages, writesDisk }: Pick<CountingGuest, 'pages' | 'writesDisk'>,
): Promise<{ readonly counts: number[]; readonly onDisk: number | undefined }> {
  const file = join(temporaryFolder(), 'memory');
  const disk = (await new VmRegistry(host.dataDir).get(vmId)).images.find(({ kind }) => kind === 'disk');
  const onDisk = await ask(host, vmId, async (qmp) => {
    await qmp.execute('stop');
    await qmp.execute('pmemsave', { val: 0x20_0000, size: pages * 4096, filename: file });
    const count = writesDisk && disk ? countOnDisk(disk.path) : undefined;
    await qmp.execute('cont');
    return count;
  });
  const memory = readFileSync(file);
  rmSync(file);
  return { counts: Array.from({ length: pages }, (_, page) => memory.readUInt32LE(page * 4096)), onDisk };
}

/** The guest counts on there, and no page of it is older than its pause. */
export async function expectCounting(host: LabHost, vmId: string, pages: number, atLeast: number): Promise<number> {
  const look = async (): Promise<number[]> => (await lookAt(host, vmId, { pages, writesDisk: false })).counts;
  const first = await look();
  expectOnePass(first);
  expect(first[0]).toBeGreaterThanOrEqual(atLeast);
  for (const deadline = Date.now() + 20_000; ; await new Promise((resolve) => setTimeout(resolve, 50))) {
    const counts = await look();
    expectOnePass(counts);
    if (counts[0]! > first[0]! + 1) return counts[0]!;
    if (Date.now() > deadline)
      throw new Error(`the guest does not count on: ${first[0] ?? '?'} to ${counts[0] ?? '?'}`);
  }
}
