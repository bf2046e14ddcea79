/**
 * What the source does with images that nothing writes: samples them for the plan, and sends them, by DWCP or by the standard
 * transfer. Disks and memory of a running guest: source-guest.ts.
 */
import { activityInfo } from '@temporalio/activity';
import type { InspectedImage } from '../src/hypervisor/contract';
import type { ActivityInput } from '../src/model/activity-inputs';
import type { ImageSpec } from '../src/model/image';
import { type ImageProgress, type ImageResult, imageProgressSchema } from '../src/model/migration';
import { ownValue } from '../src/model/own-value';
import { type MigrationPlan, planMigration } from '../src/model/plan';
import { dictionaryKeyOf } from '../src/store/dictionaries';
import type { VmRecord } from '../src/store/vm-registry';
import { ScanFeed, type StillFeed } from '../src/sync/feeds/block-feed';
import { planGuest } from '../src/sync/source/guest-plan';
import {
  imageResultOf,
  progressOf,
  spentOn,
  standardProgressOf,
  standardResultOf,
} from '../src/sync/source/image-results';
import { ImageSender, type SendImageRequest } from '../src/sync/source/image-sender';
import { assumeImage, sampleImage } from '../src/sync/source/plan-sampler';
import { ReferenceSources } from '../src/sync/source/reference-sources';
import type { SourceMigration } from '../src/sync/source/source-migration';
import { StandardSender } from '../src/sync/source/standard-sender';
import { behindBorder } from './border';
import { lastReport, withHeartbeat } from './heartbeat';
import type { LinkInput, SourceDependencies } from './source-inputs';
import { SourceVms } from './source-vm';

export function createImageActivities({ serveStopped, lookAtMemory, report, observe, ...parts }: SourceDependencies) {
  const { hub } = parts;
  const vms = new SourceVms(parts);
  const open = ({ migrationId, destination, options }: LinkInput): SourceMigration =>
    hub.open(migrationId, destination, options);
  const referencesTo = (
    disks: readonly (InspectedImage & { readonly number: number })[],
  ): SendImageRequest['references'] => {
    if (disks.length === 0) return undefined;
    const sources = new ReferenceSources(disks, []);
    void sources.fillDisks(new Map(disks.map(({ imageId, path }) => [imageId, path])), hub.context.pool);
    return { sources, numberOf: (imageId) => disks.find((disk) => disk.imageId === imageId)?.number ?? 0 };
  };

  /** What earlier attempts at an image have come to, by whatever way, also those of an agent that is gone. */
  const spentBefore = ({ migrationId, image }: ActivityInput<'standardTransferImage'>): ImageProgress | undefined =>
    spentOn(hub.spent.of(migrationId), image.imageId) ?? lastReport(imageProgressSchema);

  /** An image that nothing writes, whatever form it lies in. */
  const still = async (
    { vmId, guest }: VmRecord,
    { path, sizeBytes }: Pick<InspectedImage, 'path' | 'sizeBytes'>,
  ): Promise<StillFeed> => ScanFeed.open(path, sizeBytes, guest && (await serveStopped(vmId, guest, path)));

  return behindBorder(
    {
      computePlan: async (input: ActivityInput<'computePlan'>): Promise<MigrationPlan> =>
        withHeartbeat(
          () => ({ doing: 'sampling images' }),
          async (signal) => {
            const vm = await vms.readable(input);
            const found = hub.found(input.migrationId, vm.vmId);
            if (
              input.mode === 'plan' &&
              input.forecast &&
              found?.guest &&
              vm.guest &&
              found.guest.notUnderstood === undefined
            ) {
              const { start, setUpSeconds } = input.forecast;
              const { samples, forecast } = await planGuest(
                open(input),
                {
                  vmId: vm.vmId,
                  images: vms.located(vm, input.images),
                  guest: found.guest,
                  options: input.options,
                  link: input.link,
                  maxLevel: start.maxLevel,
                  streams: start.initialStreams,
                  setUpSeconds,
                  past: await hub.context.moves.to(input.destination.hostId, vm.vmId),
                  look: lookAtMemory(vm.vmId, vm.guest),
                },
                signal,
              );
              return planMigration(samples, input.link, input.options.bandwidthLimit, forecast);
            }
            // Whether a guest runs is known to the agent that has looked; another one does not touch its disks for a guess.
            const isAssumed = ({ imageId, kind }: ImageSpec): boolean =>
              found
                ? found.guest !== undefined &&
                  (kind === 'memory' || ownValue(found.guest.formats ?? {}, imageId) !== undefined)
                : vm.guest !== undefined;
            const images = vms.located(vm, input.images);
            const migration = open(input);
            const { enableDeltaSync, enableCompression, bandwidthLimit } = input.options;
            const samples = [];
            for (const { path, ...image } of images) {
              const sampled = { vmId: input.vmId, image, useBaseline: enableDeltaSync };
              if (isAssumed(image)) {
                samples.push(await assumeImage(migration, sampled));
                continue;
              }
              const feed = found?.guest
                ? await ScanFeed.open(path, image.sizeBytes)
                : await still(vm, { path, sizeBytes: image.sizeBytes });
              try {
                samples.push(
                  await sampleImage(migration, sampled, feed, { level: input.level, compress: enableCompression }),
                );
              } finally {
                await feed.close();
              }
            }
            return planMigration(samples, input.link, bandwidthLimit);
          },
        ),

      transferImage: async (input: ActivityInput<'transferImage'>): Promise<ImageResult> => {
        const { image } = input;
        const vm = await vms.readable(input);
        const located = vms.locate(vm, image);
        const disks = vms.located(vm, input.disks ?? []);
        const migration = open(input);
        const before = spentBefore(input);
        const feed = await still(vm, located);
        const sender = new ImageSender(migration, {
          vmId: input.vmId,
          dictionaryKey: dictionaryKeyOf(vm),
          image,
          path: located.path,
          feed,
          start: input.start,
          options: input.options,
          linkBytesPerSecond: input.link.bandwidthBytesPerSecond,
          references: referencesTo(disks),
        });
        const progress = (): ImageProgress => {
          const now = progressOf(sender.progress, before);
          observe({ kind: 'progress', progress: now });
          report(now);
          return now;
        };
        try {
          const sent = await withHeartbeat(progress, (signal) =>
            hub.transferStep(input.migrationId, image.imageId, signal, (attempt) => sender.run(attempt)),
          );
          const result = imageResultOf(sent, image.kind, before, activityInfo().attempt);
          observe({ kind: 'image', result });
          return result;
        } finally {
          hub.spent.note(input.migrationId, [progressOf(sender.progress, before)]);
          await feed.close();
        }
      },

      standardTransferImage: async (input: ActivityInput<'standardTransferImage'>): Promise<ImageResult> => {
        const { image } = input;
        const vm = await vms.readable(input);
        const located = vms.locate(vm, image);
        const migration = open(input);
        const before = spentBefore(input);
        const feed = await still(vm, located);
        const sender = new StandardSender(migration, image, feed);
        const startedAt = performance.now();
        const soFar = (): ImageProgress =>
          standardProgressOf(sender.progress, before, (performance.now() - startedAt) / 1000);
        const progress = (): ImageProgress => {
          const now = soFar();
          report(now);
          return now;
        };
        try {
          const sent = await withHeartbeat(progress, (signal) =>
            hub.transferStep(input.migrationId, image.imageId, signal, (attempt) => sender.run(attempt)),
          );
          migration.sentManifests.set(image.imageId, sent.manifest);
          return standardResultOf(sent, image.kind, before, activityInfo().attempt);
        } finally {
          hub.spent.note(input.migrationId, [soFar()]);
          await feed.close();
        }
      },
    },
    { side: 'source', judge: parts.judge, auditHead: parts.auditHead },
  );
}
