/**
 * The steps of a migration as the activities take them, for tests that need no Temporal: prepare, send, hand over.
 */
import { lockHolder } from '../../src/hypervisor/file-locks';
import type { HandOver } from '../../src/model/hand-over';
import { type ImageSpec, looksOf } from '../../src/model/image';
import { compileMigrationOptions, type MigrationOptions } from '../../src/model/options';
import type { OwnershipState } from '../../src/model/ownership-machine';
import { selectLevelAndStreams } from '../../src/model/tiers';
import { ownerOf } from '../../src/store/baselines';
import { dictionaryKeyOf } from '../../src/store/dictionaries';
import { placeImages } from '../../src/sync/destination/disk-places';
import { ScanFeed } from '../../src/sync/feeds/block-feed';
import { ImageSender, type SendImageRequest, type SentImage } from '../../src/sync/source/image-sender';
import { ReferenceSources } from '../../src/sync/source/reference-sources';
import { UNLIMITED } from '../../src/sync/source/source-context';
import type { TestHost } from './hosts';

export interface Move {
  readonly migrationId: string;
  readonly vmId: string;
  readonly source: TestHost;
  readonly destination: TestHost;
  readonly images: readonly (ImageSpec & { path: string })[];
  readonly fence: number;
}

/** Where disks are to lie, as the request says it. */
export interface Placing {
  readonly diskMap?: string;
  readonly overwriteDisks?: boolean;
}

export async function prepareMove(
  migrationId: string,
  vmId: string,
  source: TestHost,
  destination: TestHost,
  { diskMap = '', overwriteDisks = false }: Placing = {},
): Promise<Move> {
  const { images, fence, vm } = await source.sourceOwnership.claim(vmId, migrationId);
  const known = await destination.registry.find(vmId);
  const { registry, store } = destination;
  const wanted = { vmId, images, owner: ownerOf(vm), diskMap, overwriteDisks };
  const here = { registry, store, template: destination.options.diskPlaces, arriving: [], lockHolder };
  const placed = await placeImages(wanted, known, here);
  if (!(await destination.ownership.last(vmId, migrationId)))
    await writeLine(destination, vmId, 'promised', migrationId, fence);
  const specs = placed.map(({ imageId, kind, sizeBytes, path }) => ({ imageId, kind, sizeBytes, path }));
  await destination.hub.incoming.prepare({
    migrationId,
    vmId,
    mode: 'migrate',
    fence,
    generation: vm.generation + 1,
    sourceHost: source.hostId,
    images: specs,
    ...looksOf(vm),
    ...(overwriteDisks && { overwriteDisks }),
  });
  return { migrationId, vmId, source, destination, images, fence };
}

export async function sendImage(
  move: Move,
  imageId: string,
  given: Partial<MigrationOptions> = {},
  signal: AbortSignal = new AbortController().signal,
): Promise<SentImage> {
  const options = compileMigrationOptions({ bandwidthLimit: 0, ...given });
  const { path, ...image } = move.images.find((each) => each.imageId === imageId)!;
  const migration = move.source.sources.open(
    move.migrationId,
    move.destination.destinationFor(move.migrationId, move.source.hostId),
    options,
  );
  const feed = await ScanFeed.open(path, image.sizeBytes);
  try {
    const session = await migration.sessionPatiently(signal);
    await session.establish(options.minStreams);
    const start = selectLevelAndStreams(
      { rttMs: 0.2, bandwidthBytesPerSecond: 1e8 },
      options,
      options.enableCompression,
    );
    const dictionaryKey = dictionaryKeyOf(await move.source.registry.get(move.vmId));
    return await new ImageSender(migration, {
      vmId: move.vmId,
      dictionaryKey,
      image,
      path,
      feed,
      start,
      options,
      linkBytesPerSecond: 1e8,
      references: await referencesOf(move, image.kind),
    }).run(signal);
  } finally {
    await feed.close();
  }
}

/** For what is no disk: the VM's disks, as their files are now. */
async function referencesOf({ images, source }: Move, kind: string): Promise<SendImageRequest['references']> {
  const disks = images.filter((image) => image.kind === 'disk');
  if (kind === 'disk' || disks.length === 0) return undefined;
  const sources = new ReferenceSources(disks, []);
  await sources.fillDisks(new Map(disks.map(({ imageId, path }) => [imageId, path])), source.source.pool);
  return { sources, numberOf: (imageId) => images.findIndex((image) => image.imageId === imageId) };
}

/** A line of a journal, as the agent would write it. */
export async function writeLine(
  { ownership }: TestHost,
  vmId: string,
  state: OwnershipState,
  migrationId: string,
  fence: number,
): Promise<void> {
  await ownership.exclusively(vmId, (vm) => vm.append(state, migrationId, fence));
}

export function handOverTo({
  migrationId,
  source,
  destination,
}: Pick<Move, 'migrationId' | 'source' | 'destination'>): HandOver {
  const reached = destination.destinationFor(migrationId, source.hostId);
  return { destinationHost: destination.hostId, destination: reached, roots: {} };
}

/** All images, then the hand-over. */
export async function moveVm(
  migrationId: string,
  vmId: string,
  source: TestHost,
  destination: TestHost,
  options: Partial<MigrationOptions> = {},
): Promise<SentImage[]> {
  const move = await prepareMove(migrationId, vmId, source, destination, options);
  const sent: SentImage[] = [];
  for (const { imageId } of move.images) sent.push(await sendImage(move, imageId, options));
  await handOver(move, sent);
  return sent;
}

export async function handOver(move: Move, sent: readonly SentImage[]): Promise<void> {
  const { source, destination, vmId, migrationId } = move;
  await source.sourceOwnership.handOver(vmId, migrationId, handOverTo(move));
  const migration = source.sources.open(migrationId, destination.destinationFor(migrationId, source.hostId), UNLIMITED);
  const { generation } = await migration.takeOver(
    vmId,
    Object.fromEntries(sent.map(({ imageId, root }) => [imageId, root])),
  );
  await source.sourceOwnership.release(vmId, migrationId, destination.hostId, generation, migration.sentManifests);
  await source.sources.close(migrationId);
}
