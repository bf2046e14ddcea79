/**
 * Activities of the source's agent. Each is one call into the domain with a heartbeat around it; the idempotency key of
 * all of them is the migration's id with the image's, so trying again, or resetting the workflow, repeats no effect.
 */
import { activityInfo } from '@temporalio/activity';
import type { GuestPort, InspectedImage } from '../src/hypervisor/contract';
import { networksOf } from '../src/hypervisor/qemu/guest-networks';
import type { ActivityInput } from '../src/model/activity-inputs';
import type { ActivityResult } from '../src/model/activity-results';
import { hasCode } from '../src/model/errors';
import type { GuestDefinition, GuestSpec } from '../src/model/guest';
import { type AllocatedBytes, type ImageSpec, looksOf } from '../src/model/image';
import type { LinkSurvey } from '../src/model/link-survey';
import type { MigrationOptions } from '../src/model/options';
import type { OwnershipState } from '../src/model/ownership-machine';
import { type LinkMeasurement, selectLevelAndStreams } from '../src/model/tiers';
import { dictionaryKeyOf } from '../src/store/dictionaries';
import type { VmRecord } from '../src/store/vm-registry';
import { GuestHeadStart } from '../src/sync/guest/guest-head-start';
import { LiveMigration } from '../src/sync/guest/live-migration';
import { surveyLink } from '../src/sync/source/link-survey';
import { UNLIMITED } from '../src/sync/source/source-context';
import type { SourceMigration } from '../src/sync/source/source-migration';
import { behindBorder } from './border';
import { withHeartbeat } from './heartbeat';
import { createGuestActivities } from './source-guest';
import { createImageActivities } from './source-images';
import type { HandOverInput, LinkInput, PreparedSource, SourceDependencies } from './source-inputs';
import { SourceVms } from './source-vm';

/** Handed over, and no way back. */
const AWAY: ReadonlySet<OwnershipState> = new Set(['handed_over', 'releasing', 'released']);

export function createSourceActivities(dependencies: SourceDependencies) {
  const { hub, ownership, settle } = dependencies;
  const vms = new SourceVms(dependencies);
  const open = ({ migrationId, destination, options }: LinkInput): SourceMigration =>
    hub.open(migrationId, destination, options);
  /** The source's halves of a hand-over: before the destination takes over, and after. Each may be asked for again. */
  const handOver = async ({
    vmId,
    migrationId,
    destinationHost,
    destination,
    roots,
  }: HandOverInput & { roots: Record<string, string> }): Promise<void> => {
    await ownership.handOver(vmId, migrationId, { destinationHost, destination, roots });
  };
  const release = async (input: HandOverInput, generation: number): Promise<void> => {
    await ownership.release(
      input.vmId,
      input.migrationId,
      input.destinationHost,
      generation,
      open(input).sentManifests,
    );
    await hub.close(input.migrationId);
  };
  const connect = (migrationId: string, vmId: string, definition: GuestDefinition): Promise<GuestPort> =>
    dependencies.connectGuest(vmId, definition, (letRunOn) => ownership.ifMayRun(vmId, migrationId, letRunOn));

  /** Behind the claim, which a roll-back undoes, and before anything is begun of it. */
  const askHooks = async (
    { migrationId, vmId, destinationHost }: ActivityInput<'prepareSource'>,
    { guest, stoppedGuest, fence }: Pick<PreparedSource, 'guest' | 'stoppedGuest' | 'fence'>,
    signal: AbortSignal,
  ): Promise<void> => {
    const command = guest?.command ?? stoppedGuest?.command;
    const subject = {
      ...{
        vmId,
        migrationId,
        side: 'source' as const,
        sourceHost: hub.context.hostId,
        fence,
        running: guest !== undefined,
      },
      ...(destinationHost !== undefined && { destinationHost }),
      networks: command ? networksOf(command, guest?.hardware) : [],
    };
    await dependencies.hooks?.ask('prepare', { ...subject, happened: 'the VM is about to leave this host' }, signal);
  };

  /** What a guest's move can begin with while the link is being established: from files, and, where no disk has to go first, its memory. */
  const beginAhead = async (
    migrationId: string,
    vm: VmRecord,
    images: readonly InspectedImage[],
    guest: GuestSpec,
    options: MigrationOptions,
  ): Promise<void> => {
    const { vmId, guest: definition } = vm;
    if (
      guest.notUnderstood !== undefined ||
      !definition ||
      !hub.beginHeadStart(migrationId, () => new GuestHeadStart(vmId, images, guest.sharedFiles, hub.context))
    )
      return;
    if (images.some(({ kind }) => kind === 'disk')) return;
    const headStart = hub.takeHeadStart(migrationId);
    if (!headStart) return;
    const live = new LiveMigration(
      { vmId, dictionaryKey: dictionaryKeyOf(vm), images, guest, headStart, options },
      await connect(migrationId, vmId, definition),
    );
    hub.setAhead(migrationId, live);
    live.ahead().catch(() => undefined);
  };

  /** What has been begun of a guest goes out while the rest of the streams is established and the link is measured. */
  const sendAhead = ({ migrationId, options }: LinkInput, migration: SourceMigration, rttMs: number): void => {
    const start = selectLevelAndStreams({ rttMs, bandwidthBytesPerSecond: 0 }, options, options.enableCompression);
    hub.ahead(migrationId)?.sendAhead({ migration, start, linkBytesPerSecond: 0 });
  };

  const guestActivities = createGuestActivities({ ...dependencies, connect, release });
  const imageActivities = createImageActivities(dependencies);
  const vmActivities = behindBorder(
    {
      /**
       * Claims the VM for this migration, or only looks at it (warm-up, plan).
       * @param input ahead: a guest moves by DWCP with these options, and what can be begun of it is
       */
      prepareSource: async (input: ActivityInput<'prepareSource'>): Promise<PreparedSource> =>
        withHeartbeat(
          () => ({ doing: 'looking at the VM' }),
          async (signal) => {
            const { migrationId, vmId, force } = input;
            if (!input.claim) {
              const { vm, images, guest } = await ownership.inspect(vmId, force);
              hub.noteFound(migrationId, { vmId, images, guest });
              return {
                images: images.map(specOf),
                allocatedBytes: allocatedIn(images),
                fence: 0,
                alreadyMoved: false,
                generation: vm.generation,
                ...looksOf(vm),
                ...(guest && { guest }),
              };
            }
            const claim = (): Promise<PreparedSource> =>
              hub.ownershipStep(migrationId, signal, async () => {
                // The guest's monitor takes one client: what an earlier attempt has begun ends first.
                await hub.endLive(migrationId);
                const { vm, images, guest, stoppedGuest, fence, alreadyMoved, handedOver } = await ownership.claim(
                  vmId,
                  migrationId,
                  force,
                  activityInfo().workflowExecution?.workflowId,
                );
                hub.noteFound(migrationId, { vmId, images, guest });
                if (!alreadyMoved && !handedOver) await askHooks(input, { guest, stoppedGuest, fence }, signal);
                // From files alone, while the link is being established.
                if (guest && input.ahead) await beginAhead(migrationId, vm, images, guest, input.ahead);
                return {
                  images: images.map(specOf),
                  allocatedBytes: allocatedIn(images),
                  fence,
                  alreadyMoved,
                  generation: vm.generation,
                  ...looksOf(vm),
                  ...(guest && { guest }),
                  ...(stoppedGuest && { stoppedGuest }),
                  ...(handedOver && { handedOver }),
                };
              });
            return claim().catch(async (error: unknown) => {
              if (!hasCode(error, 'VM_BUSY')) throw error;
              await settle(vmId);
              return claim();
            });
          },
        ),

      establishStreams: async (
        input: ActivityInput<'establishStreams'>,
      ): Promise<{ streams: number; fromPool: number }> =>
        withHeartbeat(
          () => ({ doing: 'establishing streams' }),
          async (signal) => {
            const migration = open(input);
            const fromPool = hub.context.peers.idleCount(input.destination);
            const session = await migration.sessionPatiently(signal);
            sendAhead(input, migration, session.rttMs);
            const streams = await session.establish(input.options.initialStreams);
            return { streams, fromPool: Math.min(fromPool, streams) };
          },
        ),

      detectTier: async (input: ActivityInput<'detectTier'>): Promise<LinkMeasurement> =>
        withHeartbeat(
          () => ({ doing: 'measuring the link' }),
          () => open(input).measureLink(),
        ),

      /** Hands over and waits for the destination's word. Past it this host never starts the VM again. */
      switchover: async (input: ActivityInput<'switchover'>): Promise<{ generation: number }> =>
        withHeartbeat(
          () => ({ doing: 'handing over' }),
          (signal) =>
            hub.ownershipStep(input.migrationId, signal, async (attempt) => {
              await handOver(input);
              const { generation } = await open(input).takeOver(input.vmId, input.roots, attempt);
              await release(input, generation);
              return { generation };
            }),
        ),

      /** By Temporal instead of the data plane, step by step. */
      handOver: async (input: ActivityInput<'handOver'>): Promise<void> =>
        withHeartbeat(
          () => ({ doing: 'handing over' }),
          (signal) => hub.ownershipStep(input.migrationId, signal, () => handOver(input)),
        ),

      /** This host's word that it never starts the VM by itself again; nothing where it has not said so to itself. */
      handedOverWord: async (input: ActivityInput<'handedOverWord'>): Promise<ActivityResult<'handedOverWord'>> => {
        const last = await dependencies.journal.last(input.vmId, input.migrationId);
        return last && AWAY.has(last.state) ? dependencies.say?.('handed_over', input) : undefined;
      },

      release: async (input: ActivityInput<'release'>): Promise<void> =>
        withHeartbeat(
          () => ({ doing: 'releasing the VM' }),
          (signal) => hub.ownershipStep(input.migrationId, signal, () => release(input, input.generation)),
        ),

      /** Warm-up: both sides record what is equal now as their baseline; the VM stays. */
      keepWarm: async (input: ActivityInput<'keepWarm'>): Promise<void> =>
        withHeartbeat(
          () => ({ doing: 'recording the baseline' }),
          async (signal) => {
            const images = vms.located(await vms.readable(input), input.images);
            const migration = open(input);
            await (await migration.sessionPatiently(signal)).control.request('keep', {});
            await ownership.recordSent(input.vmId, images, migration.sentManifests);
          },
        ),

      rollBackSource: async (input: ActivityInput<'rollBackSource'>): Promise<void> =>
        withHeartbeat(
          () => ({ doing: 'rolling back' }),
          (signal) =>
            hub.ownershipStep(input.migrationId, signal, async () => {
              await hub.close(input.migrationId);
              await ownership.rollBack(input.vmId, input.migrationId, input);
            }),
        ),

      /** Ends the session of a migration; streams go back to the pool. */
      closeSource: async (input: ActivityInput<'closeSource'>): Promise<void> =>
        withHeartbeat(
          () => ({ doing: 'ending the session' }),
          (signal) => hub.ownershipStep(input.migrationId, signal, () => hub.close(input.migrationId)),
        ),

      setBandwidthLimit: (input: ActivityInput<'setBandwidthLimit'>): Promise<boolean> => {
        const migration = hub.find(input.migrationId);
        migration?.bucket.setRate(input.bytesPerSecond);
        return Promise.resolve(migration !== undefined);
      },

      surveyLink: async (input: ActivityInput<'surveyLink'>): Promise<LinkSurvey> =>
        withHeartbeat(
          () => ({ doing: 'measuring the path' }),
          async (signal) => {
            try {
              return await surveyLink(
                hub.open(input.sessionId, input.destination, UNLIMITED),
                input.streams,
                input.seconds,
                signal,
              );
            } finally {
              await hub.close(input.sessionId);
            }
          },
        ),

      connectPeer: async (input: ActivityInput<'connectPeer'>): Promise<{ idle: number }> => {
        const { hostId, peers } = hub.context;
        const hello = {
          role: 'idle' as const,
          sessionId: hostId,
          epoch: 0,
          stream: 0,
          sourceHost: hostId,
          grant: input.destination.grant,
        };
        return withHeartbeat(
          () => ({ doing: 'establishing streams ahead' }),
          async () => ({ idle: await peers.establish(input.destination, hello, input.streams) }),
        );
      },
    },
    { side: 'source', judge: dependencies.judge, auditHead: dependencies.auditHead },
  );
  return { ...vmActivities, ...imageActivities, ...guestActivities };
}

/** Where an image lies is nobody else's business. */
function specOf({ imageId, kind, sizeBytes }: ImageSpec): ImageSpec {
  return { imageId, kind, sizeBytes };
}

function allocatedIn(images: readonly InspectedImage[]): AllocatedBytes {
  return Object.fromEntries(
    images.flatMap(({ imageId, allocatedBytes }) => (allocatedBytes === undefined ? [] : [[imageId, allocatedBytes]])),
  );
}

export type SourceActivities = ReturnType<typeof createSourceActivities>;
