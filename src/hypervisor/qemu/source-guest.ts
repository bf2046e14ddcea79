/**
 * A running guest at its source: what it consists of and whether it can be moved (preflight), its disks and its memory as
 * they change, its pause, and its way back to running. What is done with the bytes is the sync's business.
 *
 *   inspect   watchDisks -> startMemory -> (rounds) -> pause -> complete        runOn: from anywhere
 */
import { existsSync } from 'node:fs';
import { DwcpError, toDwcpError } from '../../model/errors';
import { type GuestDefinition, type RamBlock, RamLayout } from '../../model/guest';
import type { VmImage } from '../../model/image';
import { wait } from '../../system/wait';
import type { Convergence, GuestPort, InspectedGuest, MemoryInfo, MemoryLook, MemoryStart } from '../contract';
import { clearExports, DiskExports, type DiskReader } from './disk-export';
import { clearMirrors, DiskMirrors } from './disk-mirror';
import { hintsFreePages } from './free-page-hints';
import { drivesOf } from './guest-drives';
import { assertRunning, type FoundDisk, findDisks, inspectRunningGuest, type OutgoingPlace } from './guest-inspection';
import { GuestMemory } from './guest-memory';
import { GuestNews } from './guest-news';
import { giveSocket } from './guest-places';
import { QemuMemoryLook } from './memory-look';
import { MigrationStreamReader } from './migration-stream-reader';
import { whyNoAnswer } from './monitor-holder';
import { assertNoJobs, watchForJobs } from './others-at-work';
import { OutgoingMigration } from './outgoing-migration';
import { ProcessPaths } from './process-paths';
import { findListener } from './process-table';
import { QmpClient } from './qmp-client';
import { clearWriteLimits } from './write-limit';

/** States in which a guest stands still because a migration had stopped it. */
const STOPPED_BY_MIGRATION: ReadonlySet<string> = new Set(['postmigrate', 'finish-migrate']);
const LOOK_TIMEOUT_MS = 5_000;
/** A monitor that is free greets at once. */
const GREETING_TIMEOUT_MS = 3_000;

/** Runs what it is given where the guest may run here, and nobody can change that meanwhile. @returns whether it was run */
export type MayRun = (letRunOn: () => Promise<void>) => Promise<boolean>;

export interface GuestPlaces extends OutgoingPlace {
  readonly nbdPath: string;
  readonly mirrorPath: string;
  /** Where QEMU writes what is looked at of its memory. */
  readonly lookPath: string;
}

export class SourceGuest implements GuestPort {
  readonly #definition: GuestDefinition;
  readonly #places: GuestPlaces;
  readonly #qmp: QmpClient;
  readonly #news: GuestNews;
  readonly #paths: ProcessPaths;
  #exports: DiskExports | undefined;
  #memory: GuestMemory | undefined;
  #outgoing: OutgoingMigration | undefined;
  #mirrors: DiskMirrors | undefined;
  readonly #ifMayRun: MayRun;
  #failed: (error: DwcpError) => void = () => undefined;

  /**
   * @param ifMayRun lets the guest go on only where the journal says that it is this host's
   * @throws GUEST_REFUSED where another program holds its monitor; QEMU_UNREACHABLE, QEMU_TIMEOUT
   */
  static async connect(definition: GuestDefinition, places: GuestPlaces, ifMayRun: MayRun): Promise<SourceGuest> {
    const connecting = QmpClient.connect(definition.qmpPath, GREETING_TIMEOUT_MS);
    const qmp = await connecting.catch(async (error: unknown) => {
      throw await whyNoAnswer(error, definition.qmpPath);
    });
    return new SourceGuest(definition, places, qmp, ifMayRun);
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
    this.#news = new GuestNews(qmp);
    this.#paths = new ProcessPaths(() => findListener(definition.qmpPath)?.pid);
    watchForJobs(qmp, (error) => this.#failed(error));
  }

  get mirrorPath(): string {
    return this.#places.mirrorPath;
  }

  get memoryFd(): number {
    return this.#memory?.fd ?? -1;
  }

  get leftOutBytes(): number {
    return this.#memory?.leftOutBytes ?? 0;
  }

  /** Called once where the guest's QEMU ends or its stream breaks. */
  onFailure(handler: (error: DwcpError) => void): void {
    this.#failed = handler;
    this.#qmp.onEnd((cause) =>
      handler(
        this.#news.poweredOff ??
          new DwcpError('GUEST_LOST', `The guest’s QEMU has ended: ${cause.message}`, { side: 'source', cause }),
      ),
    );
    this.#outgoing?.onFailure(handler);
  }

  /** As inspectRunningGuest(). */
  inspect(images: readonly VmImage[], force: boolean): Promise<InspectedGuest> {
    const given = { images, force, paths: this.#paths };
    return inspectRunningGuest(this.#qmp, this.#definition.command, this.#places, given);
  }

  /** @throws QEMU_REFUSED where its memory cannot be looked at */
  memoryLook(ramBlocks: readonly RamBlock[]): Promise<MemoryLook> {
    const { lookPath: path, peer } = this.#places;
    return QemuMemoryLook.open(this.#qmp, { path, peer }, new RamLayout(ramBlocks));
  }

  /** Serves the disks and records what the guest writes to them from now on. */
  async watchDisks(images: readonly VmImage[]): Promise<ReadonlyMap<string, DiskReader>> {
    const exports = new DiskExports(this.#qmp, this.#places.nbdPath);
    this.#exports = exports;
    const readers = new Map<string, DiskReader>();
    for (const disk of await this.#disks(images)) readers.set(disk.imageId, await exports.watch(disk.imageId, disk));
    return readers;
  }

  /** Sets QEMU's migration going: memory comes to the image file and is named as it changes. */
  async startMemory({ path, ramBlocks, blankPages, settled, autoConverge, events }: MemoryStart): Promise<void> {
    await this.#assertRunning();
    this.#memory = new GuestMemory(path, new RamLayout(ramBlocks), blankPages, settled, events);
    this.#outgoing = new OutgoingMigration(
      this.#qmp,
      this.#places.outgoingPath,
      new MigrationStreamReader(this.#memory),
      { autoConverge, peer: this.#places.peer, hints: await hintsFreePages(this.#qmp) },
    );
    this.#outgoing.onFailure((error) => this.#failed(error));
    await this.#outgoing.start();
  }

  /**
   * QEMU's own migration, whose stream goes on as it is: read one chunk at a time, the next when the one before is on
   * its way, or when that takes long.
   */
  async startWhole(take: (chunk: Buffer) => Promise<void>, { autoConverge }: Convergence): Promise<void> {
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
      { autoConverge, peer: this.#places.peer, hints: await hintsFreePages(this.#qmp) },
    );
    this.#outgoing = outgoing;
    outgoing.onFailure((error) => this.#failed(error));
    await outgoing.start();
  }

  /** QEMU copies its disks itself, to whoever answers at `mirrorPath`. */
  async mirrorDisks(images: readonly VmImage[]): Promise<void> {
    giveSocket(this.#places.mirrorPath, this.#places.peer);
    this.#mirrors = new DiskMirrors(this.#qmp, this.#places.mirrorPath, (error) => this.#failed(error));
    await this.#mirrors.start(await this.#disks(images));
  }

  async #disks(images: readonly VmImage[]): Promise<FoundDisk[]> {
    return findDisks(await drivesOf(this.#qmp, this.#paths), images, 'leave them');
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
    await assertNoJobs(this.#qmp);
    await this.#outgoing.letSwitchOver(stopped);
  }

  async #assertRunning(): Promise<void> {
    try {
      await assertRunning(this.#qmp);
    } catch (error) {
      throw this.#news.told(error);
    }
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

  /**
   * Whatever has been begun is taken back: the guest runs as before. Idempotent.
   * @throws ABANDONED where it is not this host's; GUEST_LOST where it is gone
   */
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
}

/** Lets a guest go on that a migration has stopped; what it had begun in QEMU is ended. */
async function letRunOn(qmp: QmpClient): Promise<void> {
  await clearExports(qmp);
  await clearMirrors(qmp);
  await clearWriteLimits(qmp);
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
    const wasReset = status === 'prelaunch' && migration === 'completed';
    if (running || (!STOPPED_BY_MIGRATION.has(status) && !wasReset)) return;
    // A failed migration lets the guest go on by itself a moment later; one that completed does not, nor where it was reset since.
    if (status === 'postmigrate' || wasReset || attempt > 20) await qmp.execute('cont').catch(() => undefined);
    await wait(20);
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
