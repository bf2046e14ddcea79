/**
 * What a running guest consists of, and whether it can be moved: its disks, its machine, how its memory lies. A look lets nothing
 * run and stops nothing.
 */
import { statSync } from 'node:fs';
import { DwcpError, hasCode, messageOf } from '../../model/errors';
import type { DiskFormat, GuestSpec, SharedFile } from '../../model/guest';
import { cannotBeMovedLive } from '../../model/guest-refusals';
import type { VmImage } from '../../model/image';
import type { InspectedGuest } from '../contract';
import { assertNamedAsDevice } from '../image-files';
import { OWN_HOST } from './allowance';
import { assertAllowed } from './allowed-options';
import { asItRuns } from './as-it-runs';
import { guestDiskOf } from './disk-export';
import { guestOwn, pinMachine } from './guest-command';
import { nameFormats, timesNamed } from './guest-disks';
import { allocatedIn, basesOf, drivesOf, formatsIn } from './guest-drives';
import { withMedia } from './guest-media';
import { standsIn } from './guest-news';
import { bridgesOf } from './guest-taps';
import { assertTpmMoves } from './guest-tpm';
import type { GuestIds } from './guest-user';
import { MigrationStreamReader } from './migration-stream-reader';
import { filesHeld, filesLeftBehind } from './named-files';
import { assertNobodyAtWork } from './others-at-work';
import { OutgoingMigration } from './outgoing-migration';
import type { ProcessPaths } from './process-paths';
import type { QmpClient } from './qmp-client';
import type { BlockDevice } from './qmp-schemas';
import { assertStreams } from './ram-blocks';
import { hardwareOf } from './running-hardware';
import { assertNoSecrets } from './secret-words';

const OLDEST_QEMU = [7, 2] as const;
const MAX_SHARED_FILES = 16;
const MAX_LAYERS = 64;
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
  {
    images,
    force,
    paths,
  }: { readonly images: readonly VmImage[]; readonly force: boolean; readonly paths: ProcessPaths },
): Promise<InspectedGuest> {
  const { qemu } = await qmp.execute('query-version');
  const tooOld = qemu.major < OLDEST_QEMU[0] || (qemu.major === OLDEST_QEMU[0] && qemu.minor < OLDEST_QEMU[1]);
  if (tooOld && !force)
    throw cannotBeMovedLive(
      `QEMU ${qemu.major}.${qemu.minor} is older than ${OLDEST_QEMU.join('.')}; --force tries all the same`,
    );
  await assertRunning(qmp);
  await assertNobodyAtWork(qmp, places.nbdPath, { withDisks: images.some(({ kind }) => kind === 'disk'), force });
  const drives = await drivesOf(qmp, paths);
  const named = withMedia(nameFormats(guestOwn(guestCommand), formatsIn(drives)), drives);
  assertNoSecrets(named);
  assertAllowed(named, OWN_HOST, { side: 'source' });
  assertTpmMoves(named);
  const found = findDisks(drives, images, force ? 'leave them' : 'refuse');
  assertNamedOnce(named, found);
  assertStillThere(found, paths);
  for (const { path } of found) assertNamedAsDevice(path);
  const machine = String(await qmp.execute('qom-get', { path: '/machine', property: 'type' })).replace(/-machine$/, '');
  await assertStreams(qmp);
  const seen = await hardwareOf(qmp);
  const { command, devices } = await asItRuns(qmp, pinMachine(named, machine), seen.devices);
  assertAllowed(command, OWN_HOST, { side: 'source' });
  const hardware = { ...seen, devices };
  const left = filesLeftBehind(
    command,
    found.map(({ path }) => ({ path, raw: true })),
  );
  const known = new Set(left.map(({ path }) => path));
  const bases = basesOf(drives, paths).filter((path) => !known.has(path) && known.add(path));
  const files = filesHeld([...left, ...bases.map((path) => ({ path, use: 'drive' as const }))], paths, { force });
  const memory = await probeMemory(qmp, places).catch((error: unknown) => {
    if (!hasCode(error, 'STREAM_NOT_UNDERSTOOD')) throw error;
    return { ramBlocks: [], notUnderstood: messageOf(error) };
  });
  const disks = found.map(({ imageId, sizeBytes, allocatedBytes }) => ({
    imageId,
    sizeBytes,
    ...(allocatedBytes !== undefined && { allocatedBytes: Math.min(sizeBytes, allocatedBytes) }),
  }));
  const formats = Object.fromEntries(
    found.flatMap(({ imageId, format }) => (format === 'raw' ? [] : [[imageId, format]])),
  );
  const diskPaths = Object.fromEntries(found.map(({ imageId, path }) => [imageId, path]));
  return {
    disks,
    files,
    spec: {
      command,
      formats,
      qemuVersion: `${qemu.major}.${qemu.minor}.${qemu.micro}`,
      machine,
      diskPaths,
      bridges: bridgesOf(command),
      sharedFiles: sharedFilesIn(drives),
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

export interface FoundDisk {
  readonly imageId: string;
  readonly node: string;
  readonly sizeBytes: number;
  readonly path: string;
  readonly format: DiskFormat;
  /** Where it lies in layers: a file's own holes are looked for in that. */
  readonly allocatedBytes?: number | undefined;
}

/** @param devices by paths of this host */
export function findDisks(
  devices: readonly BlockDevice[],
  images: readonly VmImage[],
  internalSnapshots: 'refuse' | 'leave them',
): FoundDisk[] {
  const disks = images.filter(({ kind }) => kind === 'disk');
  const found: FoundDisk[] = [];
  for (const device of devices) {
    const disk = guestDiskOf(device);
    if (!disk) continue;
    const image = disks.find(({ path }) => path === disk.path);
    if (!image) throw noImageOfTheVm(device, disk, disks);
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
      ...(disk.format === 'qcow2' && { allocatedBytes: allocatedIn(device) }),
    });
  }
  const missing = disks.find(({ imageId }) => !found.some((disk) => disk.imageId === imageId));
  if (missing)
    throw cannotBeMovedLive(
      `its disk ${missing.imageId} (${missing.path}) is not among the guest’s drives: plug it in again, or define the VM anew without it`,
    );
  return found;
}

/** Somebody has put a layer on one of its disks, or plugged another disk in. */
function noImageOfTheVm(
  { device, inserted }: BlockDevice,
  { path, node }: { readonly path: string; readonly node: string },
  images: readonly VmImage[],
): DwcpError {
  for (
    let layer: unknown = inserted?.image['backing-image'], below = 0;
    isLayer(layer) && below < MAX_LAYERS;
    below += 1
  ) {
    const { filename } = layer;
    const image = images.find((each) => each.path === filename);
    if (image)
      return onALayer(
        path,
        node,
        `a layer that an external snapshot has put on its disk ${image.imageId} (${image.path})`,
      );
    layer = layer['backing-image'];
  }
  return cannotBeMovedLive(
    `its disk ${path} (${device || node}) is none of the VM’s images: unplug it where it was plugged in while the ` +
      'guest ran, else adopt or define the VM anew',
  );
}

function onALayer(path: string, node: string, what: string): DwcpError {
  return cannotBeMovedLive(
    `it writes to ${path} (${node}), ${what}: merge the layers (block-commit), or start it anew on that file`,
  );
}

function isLayer(layer: unknown): layer is Readonly<Record<string, unknown>> {
  return typeof layer === 'object' && layer !== null;
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
    if (times === 0) throw onALayer(path, node, 'which its command line does not name, as behind an external snapshot');
    if (times > 1) throw cannotBeMovedLive(`its command line names ${path} ${times} times: name each disk once`);
  }
}

/** What lies at a disk's path when it has moved becomes a baseline: it may be nothing by then, but nothing else. @throws GUEST_REFUSED */
function assertStillThere(disks: readonly Pick<FoundDisk, 'imageId' | 'path'>[], paths: ProcessPaths): void {
  for (const { imageId, path } of disks)
    if (paths.heldAs(path).now === 'another')
      throw cannotBeMovedLive(
        `disk ${imageId} was ${path} when the guest was started, and another file lies there now: put that elsewhere, or the ` +
          'former one back',
      );
}

/** Read-only drives that lie in files: what the guest has read of them is in its memory, and in the file on both hosts. */
function sharedFilesIn(devices: readonly BlockDevice[]): SharedFile[] {
  const paths = devices.flatMap(({ inserted }) => (inserted?.ro ? [inserted.image.filename] : []));
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
