/**
 * A running guest at its source: what it consists of and whether it can be moved (preflight), its disks and its memory as
 * they change, its pause, and its way back to running. What is done with the bytes is the sync's business.
 *
 *   inspect   watchDisks -> startMemory -> (rounds) -> pause -> complete        runOn: from anywhere
 */
import { existsSync, statSync } from 'node:fs';
import { DwcpError, hasCode, messageOf, toDwcpError } from '../../model/errors';
import {
  type DiskFormat,
  type GuestDefinition,
  type GuestSpec,
  type RamBlock,
  RamLayout,
  type SharedFile,
} from '../../model/guest';
import type { VmImage } from '../../model/image';
import type { GuestMemoryEvents, GuestPort, InspectedGuest, MemoryInfo } from '../contract';
import { clearExports, DiskExports, type DiskReader, guestDiskOf } from './disk-export';
import { clearMirrors, DiskMirrors } from './disk-mirror';
import { guestOwn, namedFiles, pinMachine } from './guest-command';
import { GuestMemory } from './guest-memory';
import { MigrationStreamReader } from './migration-stream-reader';
import { OutgoingMigration } from './outgoing-migration';
import { findListener } from './process-table';
import { QmpClient } from './qmp-client';

const OLDEST_QEMU = [7, 2] as const;
/** States in which a guest stands still because a migration had stopped it. */
const STOPPED_BY_MIGRATION: ReadonlySet<string> = new Set(['postmigrate', 'finish-migrate']);
const MAX_SHARED_FILES = 16;
const PROBE_TIMEOUT_MS = 10_000;
const LOOK_TIMEOUT_MS = 5_000;

/** Runs what it is given where the guest may run here, and nobody can change that meanwhile. @returns whether it was run */
export type MayRun = (letRunOn: () => Promise<void>) => Promise<boolean>;

export interface GuestPlaces {
  readonly nbdPath: string;
  readonly outgoingPath: string;
  readonly mirrorPath: string;
}

export class SourceGuest implements GuestPort {
  readonly #definition: GuestDefinition;
  readonly #places: GuestPlaces;
  readonly #qmp: QmpClient;
  #exports: DiskExports | undefined;
  #memory: GuestMemory | undefined;
  #outgoing: OutgoingMigration | undefined;
  #mirrors: DiskMirrors | undefined;
  readonly #ifMayRun: MayRun;
  #failed: (error: DwcpError) => void = () => undefined;

  /** @param ifMayRun lets the guest go on only where the journal says that it is this host's @throws QEMU_UNREACHABLE */
  static async connect(definition: GuestDefinition, places: GuestPlaces, ifMayRun: MayRun): Promise<SourceGuest> {
    return new SourceGuest(definition, places, await QmpClient.connect(definition.qmpPath), ifMayRun);
  }

  /** Whether the guest's QEMU is there, in whatever state. */
  static isUp(definition: GuestDefinition): boolean {
    return existsSync(definition.qmpPath) && findListener(definition.qmpPath) !== undefined;
  }

  private constructor(definition: GuestDefinition, places: GuestPlaces, qmp: QmpClient, ifMayRun: MayRun) {
    this.#ifMayRun = ifMayRun;
    this.#definition = definition;
    this.#places = places;
    this.#qmp = qmp;
  }

  get mirrorPath(): string {
    return this.#places.mirrorPath;
  }

  get memoryFd(): number {
    return this.#memory?.fd ?? -1;
  }

  /** Called once where the guest's QEMU ends or its stream breaks. */
  onFailure(handler: (error: DwcpError) => void): void {
    this.#failed = handler;
    this.#qmp.onEnd((cause) =>
      handler(new DwcpError('GUEST_LOST', `The guest’s QEMU has ended: ${cause.message}`, { side: 'source', cause })),
    );
    this.#outgoing?.onFailure(handler);
  }

  /**
   * What the guest consists of. Looks at the beginning of its migration stream, which is cancelled at once.
   * @throws GUEST_PAUSED, GUEST_REFUSED, QEMU_REFUSED; a stream that is not understood is noted, QEMU itself can move that
   */
  async inspect(images: readonly VmImage[], force: boolean): Promise<InspectedGuest> {
    const { qemu } = await this.#qmp.execute('query-version');
    const tooOld = qemu.major < OLDEST_QEMU[0] || (qemu.major === OLDEST_QEMU[0] && qemu.minor < OLDEST_QEMU[1]);
    if (tooOld && !force)
      throw refused(
        `QEMU ${qemu.major}.${qemu.minor} is older than ${OLDEST_QEMU.join('.')}; --force tries all the same`,
      );
    await this.#assertRunning();
    const found = await this.#findDisks(images, force);
    const machine = String(await this.#qmp.execute('qom-get', { path: '/machine', property: 'type' })).replace(
      /-machine$/,
      '',
    );
    const memory = await this.#probeMemory().catch((error: unknown) => {
      if (!hasCode(error, 'STREAM_NOT_UNDERSTOOD')) throw error;
      return { ramBlocks: [], notUnderstood: messageOf(error) };
    });
    const disks = found.map(({ imageId, sizeBytes }) => ({ imageId, sizeBytes }));
    const formats = Object.fromEntries(
      found.flatMap(({ imageId, format }) => (format === 'raw' ? [] : [[imageId, format]])),
    );
    const diskPaths = Object.fromEntries(found.map(({ imageId, path }) => [imageId, path]));
    const command = pinMachine(guestOwn(this.#definition.command), machine);
    const needsFiles = namedFiles(command, Object.values(diskPaths)).filter((path) => existsSync(path));
    return {
      disks,
      spec: {
        command,
        formats,
        qemuVersion: `${qemu.major}.${qemu.minor}.${qemu.micro}`,
        machine,
        needsFiles,
        diskPaths,
        sharedFiles: await this.#sharedFiles(),
        ...memory,
      },
    };
  }

  /** Serves the disks and records what the guest writes to them from now on. */
  async watchDisks(images: readonly VmImage[]): Promise<ReadonlyMap<string, DiskReader>> {
    const exports = new DiskExports(this.#qmp, this.#places.nbdPath);
    this.#exports = exports;
    const readers = new Map<string, DiskReader>();
    for (const disk of await this.#findDisks(images, true))
      readers.set(disk.imageId, await exports.watch(disk.imageId, disk));
    return readers;
  }

  /** Sets QEMU's migration going: memory comes to the image file and is named as it changes. */
  async startMemory(
    path: string,
    ramBlocks: readonly RamBlock[],
    blankPages: (fd: number) => Uint8Array,
    settled: Uint8Array,
    autoConverge: boolean,
    events: GuestMemoryEvents,
  ): Promise<void> {
    await this.#assertRunning();
    this.#memory = new GuestMemory(path, new RamLayout(ramBlocks), blankPages, settled, events);
    this.#outgoing = new OutgoingMigration(
      this.#qmp,
      this.#places.outgoingPath,
      new MigrationStreamReader(this.#memory),
      autoConverge,
    );
    this.#outgoing.onFailure((error) => this.#failed(error));
    await this.#outgoing.start();
  }

  /** QEMU's own migration, whose stream goes on as it is: read one chunk at a time, the next when the one before is on its way, or when that takes long. */
  async startWhole(take: (chunk: Buffer) => Promise<void>, autoConverge: boolean): Promise<void> {
    await this.#assertRunning();
    let chunksOnTheWay = 0;
    const outgoing = new OutgoingMigration(
      this.#qmp,
      this.#places.outgoingPath,
      {
        feed: (chunk) => {
          chunksOnTheWay += 1;
          outgoing.hold();
          take(chunk).then(
            () => {
              chunksOnTheWay -= 1;
              if (chunksOnTheWay === 0) outgoing.release();
            },
            (error: unknown) => this.#failed(toDwcpError(error, 'SESSION_LOST', { side: 'source' })),
          );
        },
      },
      autoConverge,
    );
    this.#outgoing = outgoing;
    outgoing.onFailure((error) => this.#failed(error));
    await outgoing.start();
  }

  /** QEMU copies its disks itself, to whoever answers at `mirrorPath`. */
  async mirrorDisks(images: readonly VmImage[]): Promise<void> {
    this.#mirrors = new DiskMirrors(this.#qmp, this.#places.mirrorPath, (error) => this.#failed(error));
    await this.#mirrors.start(await this.#findDisks(images, true));
  }

  async mirrors(): Promise<Awaited<ReturnType<DiskMirrors['progress']>>> {
    return (await this.#mirrors?.progress()) ?? [];
  }

  async finishMirrors(): Promise<void> {
    await this.#mirrors?.finish();
  }

  hold(): void {
    this.#outgoing?.hold();
  }

  release(): void {
    this.#outgoing?.release();
  }

  async info(): Promise<MemoryInfo> {
    const info = await this.#qmp.execute('query-migrate');
    if (info.status === 'failed' || info.status === 'cancelled')
      throw new DwcpError(
        'QEMU_REFUSED',
        `QEMU's migration ${info.status}: ${info['error-desc'] ?? 'it gives no reason'}`,
        { side: 'source' },
      );
    const { ram } = info;
    return {
      rounds: ram?.['dirty-sync-count'] ?? 0,
      remainingBytes: ram?.remaining ?? 0,
      dirtyBytesPerSecond: (ram?.['dirty-pages-rate'] ?? 0) * 4096,
      throttle: (info['cpu-throttle-percentage'] ?? 0) / 100,
    };
  }

  allowThrottle(): Promise<void> {
    return this.#outgoing?.allowThrottle() ?? Promise.resolve();
  }

  /** Lets QEMU stop the guest. @param stopped hears when it did, by QEMU's clock @throws GUEST_PAUSED */
  async pause(stopped: (atMs: number) => void): Promise<void> {
    if (!this.#outgoing) throw new DwcpError('INTERNAL', 'the guest’s memory has not been started');
    await this.#outgoing.letSwitchOver(stopped);
  }

  /** Whether nothing but a `cont` lets the guest go on any more: its migration has completed, or its QEMU is gone. */
  async standsStill(): Promise<boolean> {
    if (this.#qmp.ended && !SourceGuest.isUp(this.#definition)) return true;
    const { status } = await this.#qmp.execute('query-status', {}, LOOK_TIMEOUT_MS);
    return status === 'postmigrate';
  }

  /** The last pages, and the device state. Past this the guest does not start by itself any more. */
  async complete(): Promise<{ commands: Buffer; devices: Buffer }> {
    if (!this.#outgoing) throw new DwcpError('INTERNAL', 'the guest’s memory has not been started');
    await this.#outgoing.complete();
    return {
      commands: Buffer.concat(this.#memory?.commands ?? []),
      devices: Buffer.concat(this.#memory?.devicePieces ?? []),
    };
  }

  /** Whatever has been begun is taken back: the guest runs as before. Idempotent. @throws ABANDONED where it is not this host's; GUEST_LOST where it is gone */
  async runOn(): Promise<void> {
    const mayRun = await this.#ifMayRun(async () => {
      await this.#exports?.close();
      await this.#outgoing?.cancel();
      await letRunOn(this.#qmp);
    });
    if (!mayRun) throw new DwcpError('ABANDONED', 'The guest is not this host’s to let run', { side: 'source' });
  }

  /** Lets go of the monitor; the guest stays as it is. */
  close(): void {
    this.#qmp.close();
    this.#memory?.close();
    this.#memory = undefined;
  }

  async #assertRunning(): Promise<void> {
    const { status, running } = await this.#qmp.execute('query-status');
    if (!running) throw new DwcpError('GUEST_PAUSED', `The guest is in state "${status}"`, { side: 'source' });
    const migration = await this.#qmp.execute('query-migrate');
    if (migration.status !== undefined && !['none', 'cancelled', 'failed', 'completed'].includes(migration.status))
      throw refused(`another migration of it is ${migration.status} in QEMU; cancel that first`);
    const blocked = migration['blocked-reasons'];
    if (blocked && blocked.length > 0) throw refused(`QEMU says: ${blocked.join('; ')}`);
  }

  async #findDisks(
    images: readonly VmImage[],
    force: boolean,
  ): Promise<{ imageId: string; node: string; sizeBytes: number; path: string; format: DiskFormat }[]> {
    const disks = images.filter(({ kind }) => kind === 'disk');
    const found: { imageId: string; node: string; sizeBytes: number; path: string; format: DiskFormat }[] = [];
    for (const device of await this.#qmp.execute('query-block')) {
      const disk = guestDiskOf(device);
      if (!disk) continue;
      const image = disks.find(({ path }) => path === disk.path);
      if (!image)
        throw refused(
          `its disk ${disk.path} (${device.device || disk.node}) is none of the VM’s images; adopt or define it anew`,
        );
      if (disk.format !== 'raw' && disk.format !== 'qcow2')
        throw refused(`disk ${image.imageId} is ${disk.format}; raw and qcow2 can be moved`);
      if (device.inserted?.encrypted) throw refused(`disk ${image.imageId} is encrypted`);
      if ((device.inserted?.image.snapshots?.length ?? 0) > 0 && !force)
        throw refused(`disk ${image.imageId} has internal snapshots, which would stay behind; --force leaves them`);
      found.push({
        imageId: image.imageId,
        node: disk.node,
        sizeBytes: disk.sizeBytes,
        path: disk.path,
        format: disk.format,
      });
    }
    const missing = disks.find(({ imageId }) => !found.some((disk) => disk.imageId === imageId));
    if (missing) throw refused(`its disk ${missing.imageId} (${missing.path}) is not among the guest’s drives`);
    return found;
  }

  /** Read-only drives that lie in files: what the guest has read of them is in its memory, and in the file on both hosts. */
  async #sharedFiles(): Promise<SharedFile[]> {
    const paths = (await this.#qmp.execute('query-block')).flatMap(({ inserted }) =>
      inserted?.ro ? [inserted.image.filename] : [],
    );
    const sized = [...new Set(paths)].map((path) => ({
      path,
      sizeBytes: statSync(path, { throwIfNoEntry: false })?.size ?? 0,
    }));
    return sized.filter(({ sizeBytes }) => sizeBytes > 0).slice(0, MAX_SHARED_FILES);
  }

  /** How the stream begins, and the RAM blocks that it names there. */
  async #probeMemory(): Promise<Pick<GuestSpec, 'ramBlocks' | 'setUp'>> {
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
    const probe = new OutgoingMigration(this.#qmp, this.#places.outgoingPath, reader);
    probe.onFailure(failed);
    const timer = setTimeout(
      () =>
        failed(new DwcpError('QEMU_TIMEOUT', 'QEMU did not begin its migration stream in time', { side: 'source' })),
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
}

/** Lets a guest go on that a migration has stopped; what it had begun in QEMU is ended. */
async function letRunOn(qmp: QmpClient): Promise<void> {
  await clearExports(qmp);
  await clearMirrors(qmp);
  const { status: migration } = await qmp.execute('query-migrate');
  if (migration !== undefined && ['setup', 'active', 'pre-switchover', 'device', 'cancelling'].includes(migration)) {
    const ended = qmp.event(
      'the end of the migration',
      ({ name, data }) => name === 'MIGRATION' && ['cancelled', 'failed', 'completed'].includes(String(data.status)),
      30_000,
    );
    await Promise.all([ended, qmp.execute('migrate_cancel')]);
  }
  for (let attempt = 0; attempt < 100; attempt += 1) {
    const { status, running } = await qmp.execute('query-status');
    if (running || !STOPPED_BY_MIGRATION.has(status)) return;
    // A failed migration lets the guest go on by itself a moment later; one that completed does not.
    if (status === 'postmigrate' || attempt > 20) await qmp.execute('cont').catch(() => undefined);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  throw new DwcpError('QEMU_TIMEOUT', 'The guest stands still after its migration, and QEMU does not let it go on', {
    side: 'source',
  });
}

/**
 * Takes back what a migration did to a guest whose agent may have died meanwhile: it runs as before.
 * @returns false where its QEMU is gone, and the guest with it
 */
export async function resumeGuest(definition: GuestDefinition): Promise<boolean> {
  if (!SourceGuest.isUp(definition)) return false;
  const qmp = await QmpClient.connect(definition.qmpPath);
  try {
    await letRunOn(qmp);
    return true;
  } finally {
    qmp.close();
  }
}

function refused(reason: string): DwcpError {
  return new DwcpError('GUEST_REFUSED', `The guest cannot be moved live: ${reason}`, { side: 'source' });
}
