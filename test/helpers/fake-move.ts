/**
 * A fake guest at one of two hosts in this process, on its way to the other by the product's own sender, session, images and
 * hand-over; only the hypervisor is no real one. What the guest writes meanwhile, and what goes wrong, is the test's.
 */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { MEMORY_IMAGE_ID, RamLayout } from '../../src/model/guest';
import { BLOCK_SIZE_BYTES, type ImageSpec, PAGE_SIZE_BYTES, type VmImage } from '../../src/model/image';
import { compileMigrationOptions, type MigrationOptions } from '../../src/model/options';
import { selectLevelAndStreams } from '../../src/model/tiers';
import { GuestHeadStart } from '../../src/sync/guest/guest-head-start';
import { LiveMigration } from '../../src/sync/guest/live-migration';
import type { SourceMigration } from '../../src/sync/source/source-migration';
import { randomBlock, temporaryFolder, writeImage } from './data';
import { FakeGuest, FakeGuestPort } from './fake-guest';
import { FakeReceiver } from './fake-receiver';
import { startHost, type TestHost } from './hosts';
import { handOverTo, writeLine } from './moves';

const RAM = [
  { id: 'ram', usedBytes: 96 * BLOCK_SIZE_BYTES },
  { id: 'rom', usedBytes: 2 * PAGE_SIZE_BYTES },
];
const DISK_BYTES = 40 * BLOCK_SIZE_BYTES;
const FURTHER_DISK_BYTES = BLOCK_SIZE_BYTES;
const LINK_BYTES_PER_SECOND = 1e8;
const VM = 'vm';
const ID = 'm1';

export class FakeMove {
  readonly a: TestHost;
  readonly b: TestHost;
  readonly guest: FakeGuest;
  /** The guest's own is the first. */
  readonly disks: readonly { readonly path: string; readonly onB: string }[];
  /** The newest: one for each time that the destination has opened the migration. */
  receiver: FakeReceiver | undefined;
  readonly #options: MigrationOptions;
  readonly #images: readonly (ImageSpec & VmImage)[];

  /** @param furtherDisks small ones, which the guest does not write */
  static async begin(given: Partial<MigrationOptions> = {}, furtherDisks = 0): Promise<FakeMove> {
    const folder = temporaryFolder();
    const [a, b] = [await startHost('a', join(folder, 'a')), await startHost('b', join(folder, 'b'))];
    mkdirSync(join(folder, 'vm'));
    const disks = Array.from({ length: 1 + furtherDisks }, (_, at) => ({
      imageId: `disk-${at}`,
      kind: 'disk' as const,
      path: join(folder, 'vm', `disk-${at}.img`),
      sizeBytes: at === 0 ? DISK_BYTES : FURTHER_DISK_BYTES,
    }));
    for (const [at, { path, sizeBytes }] of disks.entries()) writeImage(path, sizeBytes, 1 + at);
    const move = new FakeMove(a, b, disks, compileMigrationOptions({ bandwidthLimit: 0, ...given }));
    await move.#prepare();
    return move;
  }

  private constructor(a: TestHost, b: TestHost, disks: readonly (ImageSpec & VmImage)[], options: MigrationOptions) {
    [this.a, this.b, this.#options] = [a, b, options];
    this.disks = disks.map(({ imageId, path }) => ({ path, onB: b.registry.imagePath(undefined, VM, imageId) }));
    this.guest = new FakeGuest(RAM, this.disks[0]?.path ?? '');
    for (let page = 0; page < this.pages; page += 2) this.guest.write(page, randomBlock(1, page, PAGE_SIZE_BYTES));
    this.#images = [
      ...disks,
      {
        imageId: MEMORY_IMAGE_ID,
        kind: 'memory' as const,
        path: a.registry.imagePath(undefined, VM, MEMORY_IMAGE_ID),
        sizeBytes: new RamLayout(RAM).sizeBytes,
      },
    ];
  }

  /** Of its first RAM block. */
  get pages(): number {
    return (RAM[0]?.usedBytes ?? 0) / PAGE_SIZE_BYTES;
  }

  get migration(): SourceMigration {
    return this.a.sources.open(ID, this.b.destinationFor(ID, this.a.hostId), this.#options);
  }

  /** An attempt at it, up to its rounds. @param given options of this attempt alone */
  async attempt(
    given: Partial<MigrationOptions> = {},
  ): Promise<{ readonly live: LiveMigration; readonly port: FakeGuestPort }> {
    const options = { ...this.#options, ...given };
    const port = new FakeGuestPort(this.guest, (letRunOn) => this.a.sourceOwnership.ifMayRun(VM, ID, letRunOn));
    const live = new LiveMigration(
      {
        vmId: VM,
        dictionaryKey: undefined,
        images: this.#images,
        guest: { ramBlocks: RAM },
        headStart: new GuestHeadStart(VM, this.#images, [], this.a.source),
        options,
      },
      port,
    );
    this.a.sources.setLive(ID, live);
    const session = await this.migration.sessionPatiently(new AbortController().signal);
    await session.establish(2);
    const link = { rttMs: 0.2, bandwidthBytesPerSecond: LINK_BYTES_PER_SECOND };
    await live.through({
      migration: this.migration,
      start: selectLevelAndStreams(link, options, true),
      linkBytesPerSecond: LINK_BYTES_PER_SECOND,
    });
    return { live, port };
  }

  /** Behind the pause: handed over, taken over, and run there. */
  async takeOver(live: LiveMigration, roots: Readonly<Record<string, string>>): Promise<void> {
    await this.a.sourceOwnership.handOver(
      VM,
      ID,
      handOverTo({ migrationId: ID, source: this.a, destination: this.b }),
      () => live.standsStill(),
    );
    await this.migration.takeOver(VM, { ...roots });
    live.close();
  }

  async #prepare(): Promise<void> {
    const { a, b } = this;
    jest
      .spyOn(b.driver, 'receiveGuest')
      .mockImplementation(
        (_vmId, _command, ramBlocks) =>
          (this.receiver = new FakeReceiver(ramBlocks, this.disks[0]?.onB ?? '')) as never,
      );
    await writeLine(a, VM, 'claimed', ID, 1);
    await writeLine(b, VM, 'promised', ID, 1);
    await b.hub.incoming.prepare({
      migrationId: ID,
      vmId: VM,
      mode: 'migrate',
      fence: 1,
      generation: 1,
      sourceHost: a.hostId,
      images: this.#images.map(({ imageId, kind, sizeBytes }) => ({
        imageId,
        kind,
        sizeBytes,
        path: b.registry.imagePath(undefined, VM, imageId),
      })),
      guest: { command: ['fake'], ramBlocks: RAM, sharedFiles: [], setUp: undefined, qmpPath: '/nowhere/qmp.sock' },
    });
  }
}
