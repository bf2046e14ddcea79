/**
 * The commands for guests on this host: making one known by its QEMU command, starting and stopping it, and taking in one that
 * something else has started. They work on the host's own data folder, without a server.
 */
import { resolve } from 'node:path';
import type { Command } from 'commander';
import { OWN_HOST } from '../../hypervisor/qemu/allowance';
import { assertAllowed } from '../../hypervisor/qemu/allowed-options';
import { guestDiskOf } from '../../hypervisor/qemu/disk-export';
import { guestOwn } from '../../hypervisor/qemu/guest-command';
import { diskPathsOf, nameFormats } from '../../hypervisor/qemu/guest-disks';
import { drivesOf, formatsIn } from '../../hypervisor/qemu/guest-drives';
import { assertNamedOnce } from '../../hypervisor/qemu/guest-inspection';
import { foldersOf, guestPolicyOf } from '../../hypervisor/qemu/guest-policy';
import { quitGuest, startGuestProcess } from '../../hypervisor/qemu/guest-process';
import { nameTaps } from '../../hypervisor/qemu/guest-taps';
import { withHostPaths } from '../../hypervisor/qemu/host-paths';
import { ProcessPaths } from '../../hypervisor/qemu/process-paths';
import { findListener } from '../../hypervisor/qemu/process-table';
import { QmpClient } from '../../hypervisor/qemu/qmp-client';
import { runPlaces } from '../../hypervisor/qemu/run-places';
import { SourceGuest } from '../../hypervisor/qemu/source-guest';
import { DwcpError } from '../../model/errors';
import { type VmDefinition, type VmLooks, vmDefinitionSchema } from '../../model/image';
import { PROCESS_OPTIONS } from '../../model/options';
import { isOpenState } from '../../model/ownership-machine';
import { OwnershipJournal } from '../../store/ownership-journal';
import { type VmRecord, VmRegistry } from '../../store/vm-registry';
import type { Flags } from '../flags';
import { addOptions } from '../settings';
import { PLACE, type Place, placeOf } from './place';

const POWERDOWN_MS = 60_000;

export function addGuestCommands(vm: Command): void {
  addOptions(
    vm.command('start').description('Start a guest that was defined with its QEMU command').argument('<vm>', 'its id'),
    PROCESS_OPTIONS,
    [...PLACE, 'qemuFolder', 'guestUser', 'guestFolders', 'imageRoots'],
  ).action(async (vmId: string, flags: Flags, command: Command) => {
    const { dataDir, output, options } = placeOf(flags, command);
    const registry = new VmRegistry(dataDir, foldersOf(options.imageRoots));
    const record = await guestHere(registry, vmId);
    await assertNotInMigration(dataDir, vmId);
    if (SourceGuest.isUp(record.guest))
      throw new DwcpError('VM_RUNNING', `VM ${vmId} runs already`, { hint: 'Nothing to do' });
    const {
      places,
      qmp,
      process: { pid },
    } = await startGuestProcess(guestOwn(record.guest.command), registry.runFolder(vmId), {
      purpose: 'run',
      allowance: OWN_HOST,
      policy: guestPolicyOf(options, dataDir),
    });
    qmp.close();
    await registry.put({ ...record, guest: { ...record.guest, qmpPath: places.qmpPath } });
    output.emit(
      { event: 'started', vmId, pid, ...places },
      () => `${vmId} runs as process ${pid}; a QMP monitor for your own tools: ${places.monitorPath}`,
    );
  });

  addOptions(
    vm
      .command('stop')
      .description('Shut a guest down')
      .argument('<vm>', 'its id')
      .option('--now', 'end it at once, as pulling the plug does'),
    PROCESS_OPTIONS,
    PLACE,
  ).action(async (vmId: string, flags: Flags, command: Command) => {
    const { dataDir, output } = placeOf(flags, command);
    const { guest } = await guestHere(new VmRegistry(dataDir), vmId);
    await assertNotInMigration(dataDir, vmId);
    if (flags.now !== true) await powerDown(vmId, guest.qmpPath);
    await quitGuest(guest.qmpPath, 'even running');
    output.emit({ event: 'stopped', vmId }, () => `${vmId} is stopped`);
  });

  addOptions(
    vm
      .command('adopt')
      .description('Make a guest known that something else has started')
      .argument('<vm>', 'the id it gets')
      .requiredOption('--qmp <socket>', 'its QMP monitor, a UNIX socket that no other client holds'),
    PROCESS_OPTIONS,
    [...PLACE, 'imageRoots'],
  ).action((vmId: string, flags: Flags, command: Command) =>
    adoptGuest(placeOf(flags, command), vmId, resolve(String(flags.qmp))),
  );
}

/** `dwcp vm adopt NAME --qmp SOCKET`. What it names is named from here on by its path on this host. */
export async function adoptGuest({ dataDir, options, output }: Place, vmId: string, qmpPath: string): Promise<void> {
  const registry = new VmRegistry(dataDir, foldersOf(options.imageRoots));
  const found = findListener(qmpPath);
  if (!found)
    throw new DwcpError('QEMU_UNREACHABLE', `No process that can be seen from here listens at ${qmpPath}`, {
      hint: 'Name the socket of the guest’s -qmp option, as a user who may see that process',
    });
  const qmp = await QmpClient.connect(qmpPath);
  let paths: string[];
  let own: string[];
  try {
    const files = new ProcessPaths(found.pid);
    const drives = await drivesOf(qmp, files);
    const command = withHostPaths(guestOwn(found.command), (path) => files.onHost(path));
    own = nameTaps(nameFormats(command, formatsIn(drives)), found.pid);
    assertAllowed(own, OWN_HOST);
    const disks = drives.flatMap((device) => guestDiskOf(device) ?? []);
    assertNamedOnce(own, disks);
    const order = diskPathsOf(own);
    paths = disks.map(({ path }) => path).sort((a, b) => order.indexOf(a) - order.indexOf(b));
  } finally {
    qmp.close();
  }
  await putGuest(dataDir, registry, { vmId, command: own, paths, qmpPath, looks: {} });
  output.emit(
    { event: 'vm', vmId, pid: found.pid, disks: paths, qmpPath },
    () => `${vmId}: process ${found.pid}, ${disksText(paths)}; it can be moved while it runs`,
  );
}

/** `dwcp vm define NAME -- COMMAND...`. */
export async function defineGuest(
  { dataDir, options, output }: Place,
  vmId: string,
  command: readonly string[],
  looks: VmLooks,
): Promise<void> {
  const own = nameFormats(guestOwn(command), () => undefined);
  assertAllowed(own, OWN_HOST);
  const paths = diskPathsOf(own);
  const registry = new VmRegistry(dataDir, foldersOf(options.imageRoots));
  const { qmpPath } = runPlaces(registry.runFolder(vmId));
  await putGuest(dataDir, registry, { vmId, command: own, paths, qmpPath, looks });
  output.emit(
    { event: 'vm', vmId, disks: paths },
    () => `${vmId}: ${disksText(paths)}; \`dwcp vm start ${vmId}\` runs it`,
  );
}

interface NewGuest {
  readonly vmId: string;
  readonly command: readonly string[];
  /** Of its disks. */
  readonly paths: readonly string[];
  readonly qmpPath: string;
  readonly looks: VmLooks;
}

async function putGuest(
  dataDir: string,
  registry: VmRegistry,
  { vmId, command, paths, qmpPath, looks }: NewGuest,
): Promise<void> {
  await assertNotInMigration(dataDir, vmId);
  const known = await registry.find(vmId);
  if (known?.presence === 'away')
    throw new DwcpError('VM_NOT_HERE', `VM ${vmId} has moved to ${known.movedTo ?? 'another host'}`);
  const images = paths.map((path, index) => ({
    imageId: `vd${String.fromCharCode('a'.charCodeAt(0) + index)}`,
    kind: 'disk' as const,
    path,
  }));
  const parsed = vmDefinitionSchema.safeParse({ vmId, images, ...looks });
  if (!parsed.success) throw new DwcpError('INVALID_INPUT', `VM ${vmId}: ${parsed.error.issues[0]?.message ?? ''}`);
  const definition: VmDefinition = parsed.data;
  registry.assertPlaces(definition.images);
  await registry.put({
    ...definition,
    presence: 'here',
    generation: known?.generation ?? 0,
    guest: { command: [...command], qmpPath },
  });
}

async function guestHere(
  registry: VmRegistry,
  vmId: string,
): Promise<VmRecord & { guest: NonNullable<VmRecord['guest']> }> {
  const record = await registry.getHere(vmId);
  if (!record.guest)
    throw new DwcpError('INVALID_INPUT', `VM ${vmId} is a set of image files; it has no QEMU command`, {
      hint: 'Define it with its command: dwcp vm define NAME -- qemu-system-x86_64 ...',
    });
  return { ...record, guest: record.guest };
}

/** Asks the guest to shut down and waits for its QEMU to end. */
async function powerDown(vmId: string, qmpPath: string): Promise<void> {
  const qmp = await QmpClient.connect(qmpPath);
  const ended = new Promise<void>((resolve) => qmp.onEnd(() => resolve()));
  const shutDown = qmp.event('its shutdown', ({ name }) => name === 'SHUTDOWN', POWERDOWN_MS);
  shutDown.catch(() => undefined);
  await qmp.execute('system_powerdown');
  await Promise.race([ended, shutDown]).catch(() => {
    qmp.close();
    throw new DwcpError('QEMU_TIMEOUT', `${vmId} did not shut down within ${POWERDOWN_MS / 1000} s`, {
      hint: 'End it at once with --now',
    });
  });
  qmp.close();
}

function disksText(paths: readonly string[]): string {
  return paths.length === 0 ? 'no disks' : paths.join(', ');
}

export async function assertNotInMigration(dataDir: string, vmId: string): Promise<void> {
  const last = await new OwnershipJournal(dataDir).last(vmId);
  if (last && isOpenState(last.state))
    throw new DwcpError('VM_BUSY', `VM ${vmId} belongs to migration ${last.migrationId} (${last.state})`);
}
