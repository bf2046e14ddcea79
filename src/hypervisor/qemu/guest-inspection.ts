/**
 * What a running guest consists of, and whether it can be moved: its disks, its machine, how its memory lies. A look lets nothing
 * run and stops nothing.
 */
import { existsSync, statSync } from 'node:fs';
import { DwcpError, hasCode, messageOf } from '../../model/errors';
import type { DiskFormat, GuestSpec, SharedFile } from '../../model/guest';
import { cannotBeMovedLive } from '../../model/guest-refusals';
import { SECTOR_BYTES, type VmImage } from '../../model/image';
import type { InspectedGuest } from '../contract';
import { OWN_HOST } from './allowance';
import { assertAllowed, filesOf } from './allowed-options';
import { asItRuns } from './as-it-runs';
import { guestDiskOf } from './disk-export';
import { guestOwn, pinMachine } from './guest-command';
import { nameFormats, timesNamed } from './guest-disks';
import { standsIn } from './guest-news';
import { assertTpmMoves } from './guest-tpm';
import type { GuestIds } from './guest-user';
import { MigrationStreamReader } from './migration-stream-reader';
import { assertNobodyAtWork } from './others-at-work';
import { OutgoingMigration } from './outgoing-migration';
import type { QmpClient } from './qmp-client';
import { assertStreams } from './ram-blocks';
import { hardwareOf } from './running-hardware';
import { assertNoSecrets } from './secret-words';

const OLDEST_QEMU = [7, 2] as const;
const MAX_SHARED_FILES = 16;
const PROBE_TIMEOUT_MS = 10_000;

export interface OutgoingPlace {
  readonly outgoingPath: string;
  /** Where its QEMU serves its disks. */
  readonly nbdPath: string;
  /** As whom the guest's QEMU runs, where that is another than the agent. */
  readonly peer: GuestIds | undefined;
}

/**
 * What the guest consists of. Looks at the beginning of its migration stream, which is cancelled at once.
 * @throws GUEST_PAUSED, GUEST_REFUSED, QEMU_REFUSED; a stream that is not understood is noted, QEMU itself can move that
 */
export async function inspectRunningGuest(
  qmp: QmpClient,
  guestCommand: readonly string[],
  places: OutgoingPlace,
  { images, force }: { readonly images: readonly VmImage[]; readonly force: boolean },
): Promise<InspectedGuest> {
  const { qemu } = await qmp.execute('query-version');
  const tooOld = qemu.major < OLDEST_QEMU[0] || (qemu.major === OLDEST_QEMU[0] && qemu.minor < OLDEST_QEMU[1]);
  if (tooOld && !force)
    throw cannotBeMovedLive(
      `QEMU ${qemu.major}.${qemu.minor} is older than ${OLDEST_QEMU.join('.')}; --force tries all the same`,
    );
  await assertRunning(qmp);
  await assertNobodyAtWork(qmp, places.nbdPath, { withDisks: images.some(({ kind }) => kind === 'disk'), force });
  const named = nameFormats(guestOwn(guestCommand), await formatsIn(qmp));
  assertNoSecrets(named);
  assertAllowed(named, OWN_HOST, { side: 'source' });
  assertTpmMoves(named);
  const found = await findDisks(qmp, images, force ? 'leave them' : 'refuse');
  assertNamedOnce(named, found);
  assertWholeSectors(found);
  const machine = String(await qmp.execute('qom-get', { path: '/machine', property: 'type' })).replace(/-machine$/, '');
  await assertStreams(qmp);
  const seen = await hardwareOf(qmp);
  const { command, devices } = await asItRuns(qmp, pinMachine(named, machine), seen.devices);
  assertAllowed(command, OWN_HOST, { side: 'source' });
  const hardware = { ...seen, devices };
  const memory = await probeMemory(qmp, places).catch((error: unknown) => {
    if (!hasCode(error, 'STREAM_NOT_UNDERSTOOD')) throw error;
    return { ramBlocks: [], notUnderstood: messageOf(error) };
  });
  const disks = found.map(({ imageId, sizeBytes }) => ({ imageId, sizeBytes }));
  const formats = Object.fromEntries(
    found.flatMap(({ imageId, format }) => (format === 'raw' ? [] : [[imageId, format]])),
  );
  const diskPaths = Object.fromEntries(found.map(({ imageId, path }) => [imageId, path]));
  const needsFiles = filesOf(command).read.filter((path) => existsSync(path));
  return {
    disks,
    spec: {
      command,
      formats,
      qemuVersion: `${qemu.major}.${qemu.minor}.${qemu.micro}`,
      machine,
      needsFiles,
      diskPaths,
      sharedFiles: await sharedFilesOf(qmp),
      hardware,
      ...memory,
    },
  };
}

/** @throws GUEST_PAUSED, GUEST_POWERED_OFF; GUEST_REFUSED where QEMU is in the midst of another migration, or says that it cannot */
export async function assertRunning(qmp: QmpClient): Promise<void> {
  const { status, running } = await qmp.execute('query-status');
  if (!running) throw standsIn(status);
  const migration = await qmp.execute('query-migrate');
  if (migration.status !== undefined && !['none', 'cancelled', 'failed', 'completed'].includes(migration.status))
    throw cannotBeMovedLive(`another migration of it is ${migration.status} in QEMU; cancel that first`);
  const blocked = migration['blocked-reasons'];
  if (blocked && blocked.length > 0) throw cannotBeMovedLive(`QEMU says: ${blocked.join('; ')}`);
}

export async function findDisks(
  qmp: QmpClient,
  images: readonly VmImage[],
  internalSnapshots: 'refuse' | 'leave them',
): Promise<{ imageId: string; node: string; sizeBytes: number; path: string; format: DiskFormat }[]> {
  const disks = images.filter(({ kind }) => kind === 'disk');
  const found: { imageId: string; node: string; sizeBytes: number; path: string; format: DiskFormat }[] = [];
  for (const device of await qmp.execute('query-block')) {
    const disk = guestDiskOf(device);
    if (!disk) continue;
    const image = disks.find(({ path }) => path === disk.path);
    if (!image)
      throw cannotBeMovedLive(
        `its disk ${disk.path} (${device.device || disk.node}) is none of the VM’s images: unplug it where it was plugged in while the ` +
          'guest ran, else adopt or define the VM anew',
      );
    if (disk.format !== 'raw' && disk.format !== 'qcow2')
      throw cannotBeMovedLive(`disk ${image.imageId} is ${disk.format}; raw and qcow2 can be moved`);
    if (device.inserted?.encrypted) throw cannotBeMovedLive(`disk ${image.imageId} is encrypted`);
    if ((device.inserted?.image.snapshots?.length ?? 0) > 0 && internalSnapshots === 'refuse')
      throw cannotBeMovedLive(
        `disk ${image.imageId} has internal snapshots, which would stay behind; --force leaves them`,
      );
    found.push({
      imageId: image.imageId,
      node: disk.node,
      sizeBytes: disk.sizeBytes,
      path: disk.path,
      format: disk.format,
    });
  }
  const missing = disks.find(({ imageId }) => !found.some((disk) => disk.imageId === imageId));
  if (missing)
    throw cannotBeMovedLive(
      `its disk ${missing.imageId} (${missing.path}) is not among the guest’s drives: plug it in again, or define the VM anew without it`,
    );
  return found;
}

/**
 * The destination's command is made of this one, each disk's path exchanged for its place there: where a disk goes by another, the
 * guest would go on with what lies there. @throws GUEST_REFUSED
 */
export function assertNamedOnce(
  command: readonly string[],
  disks: readonly { readonly node: string; readonly path: string }[],
): void {
  for (const { node, path } of disks) {
    const times = timesNamed(command, path);
    if (times === 0)
      throw cannotBeMovedLive(
        `it writes to ${path} (${node}), which its command line does not name, as behind an external snapshot: merge the ` +
          'layers (block-commit), or start it anew on that file',
      );
    if (times > 1) throw cannotBeMovedLive(`its command line names ${path} ${times} times: name each disk once`);
  }
}

/** QEMU rounds a raw file's size up, and the file and the disk would never be equal. @throws GUEST_REFUSED with the mend */
function assertWholeSectors(
  disks: readonly { readonly imageId: string; readonly path: string; readonly format: DiskFormat }[],
): void {
  for (const { imageId, path, format } of disks) {
    const size = statSync(path, { throwIfNoEntry: false })?.size ?? 0;
    if (format === 'raw' && size % SECTOR_BYTES !== 0)
      throw cannotBeMovedLive(
        `disk ${imageId} (${path}) has ${size} bytes, which is no multiple of ${SECTOR_BYTES}; ` +
          `\`truncate -s %${SECTOR_BYTES}\` pads it with zeros, also while the guest runs`,
      );
  }
}

/** As what a running QEMU reads the files of its drives: what a command leaves unsaid, it has decided. */
export async function formatsIn(qmp: QmpClient): Promise<(path: string) => string | undefined> {
  const formats = new Map(
    (await qmp.execute('query-block')).flatMap(({ inserted }) =>
      inserted ? [[inserted.image.filename, inserted.drv] as const] : [],
    ),
  );
  return (path) => formats.get(path);
}

/** Read-only drives that lie in files: what the guest has read of them is in its memory, and in the file on both hosts. */
async function sharedFilesOf(qmp: QmpClient): Promise<SharedFile[]> {
  const paths = (await qmp.execute('query-block')).flatMap(({ inserted }) =>
    inserted?.ro ? [inserted.image.filename] : [],
  );
  const sized = [...new Set(paths)].map((path) => ({
    path,
    sizeBytes: statSync(path, { throwIfNoEntry: false })?.size ?? 0,
  }));
  return sized.filter(({ sizeBytes }) => sizeBytes > 0).slice(0, MAX_SHARED_FILES);
}

/** How the stream begins, and the RAM blocks that it names there. */
async function probeMemory(
  qmp: QmpClient,
  { outgoingPath, peer }: OutgoingPlace,
): Promise<Pick<GuestSpec, 'ramBlocks' | 'setUp'>> {
  let seen: (memory: Pick<GuestSpec, 'ramBlocks' | 'setUp'>) => void = () => undefined;
  let failed: (error: DwcpError) => void = () => undefined;
  const memory = new Promise<Pick<GuestSpec, 'ramBlocks' | 'setUp'>>((resolve, reject) => {
    seen = resolve;
    failed = reject;
  });
  memory.catch(() => undefined);
  const nothing = (): void => undefined;
  const reader = new MigrationStreamReader({
    setUp: (prefix, sectionId, ram) => {
      seen({ ramBlocks: [...ram], setUp: { prefix: prefix.toString('base64'), sectionId } });
      probe.hold();
    },
    page: nothing,
    filledPage: nothing,
    command: nothing,
    sectionEnded: nothing,
    deviceState: nothing,
  });
  const probe = new OutgoingMigration(qmp, outgoingPath, reader, { peer });
  probe.onFailure(failed);
  const timer = setTimeout(
    () => failed(new DwcpError('QEMU_TIMEOUT', 'QEMU did not begin its migration stream in time', { side: 'source' })),
    PROBE_TIMEOUT_MS,
  );
  try {
    await probe.start();
    return await memory;
  } finally {
    clearTimeout(timer);
    await probe.cancel();
  }
}
