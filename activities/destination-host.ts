/**
 * Activities of the destination's agent: one call into the domain each. The idempotency key is the migration's id with
 * the image's.
 */
import { activityInfo, cancellationSignal } from '@temporalio/activity';
import { lockHolder } from '../src/hypervisor/file-locks';
import { networksOf } from '../src/hypervisor/qemu/guest-networks';
import type { GuestPolicy } from '../src/hypervisor/qemu/guest-policy';
import { prepareGuest, prepareStoppedGuest } from '../src/hypervisor/qemu/prepare-guest';
import type { ActivityInput } from '../src/model/activity-inputs';
import type { ActivityResult } from '../src/model/activity-results';
import { DwcpError, hasCode, messageOf } from '../src/model/errors';
import type { GuestConsole } from '../src/model/guest-console';
import type { Hooks } from '../src/model/hooks';
import { BLOCK_SIZE_BYTES, type ImageSpec, looksOf, type VmImage } from '../src/model/image';
import { isOpenState } from '../src/model/ownership-machine';
import { GRANT_LIFETIME_MS } from '../src/model/timing';
import { type BaselineListing, type BaselineStore, ownerOf } from '../src/store/baselines';
import { inSlices } from '../src/store/in-slices';
import type { OwnedVm } from '../src/store/ownership-journal';
import type { VmRecord, VmRegistry } from '../src/store/vm-registry';
import type { CodecPool } from '../src/sync/codec/codec-pool';
import type { DestinationRecord } from '../src/sync/destination/destination-record';
import { endIdleDirect } from '../src/sync/destination/direct-sessions';
import { type PlacedImage, placeImages, sizeOfDevice } from '../src/sync/destination/disk-places';
import { assertRoom } from '../src/sync/destination/room';
import { assertSameFiles } from '../src/sync/destination/same-files';
import type { DestinationHub } from '../src/sync/destination-hub';
import { inDoubtUnlessRefused } from '../src/sync/hand-over/in-doubt';
import { destinationStep } from '../src/sync/hand-over/own-step';
import type { Advertised, Destination } from '../src/sync/source/source-context';
import { type KeptCopy, keepBaselineCopy } from '../src/sync/upkeep/baseline-copy';
import { type GrantPurpose, mintGrant } from '../src/transport/grants';
import type { WarrantJudge } from '../src/trust/warrant-judge';
import { type AuditHeadNow, behindBorder } from './border';
import { withHeartbeat } from './heartbeat';
import type { SayWord } from './say-word';

export interface DestinationDependencies {
  readonly hostId: string;
  readonly dataDir: string;
  readonly key: Buffer;
  readonly advertised: Advertised;
  readonly hub: DestinationHub;
  readonly registry: VmRegistry;
  readonly store: BaselineStore;
  readonly pool: CodecPool;
  readonly guestPolicy: GuestPolicy;
  /** Signs what this host says of a hand-over. */
  readonly say: SayWord | undefined;
  /** What its operator has run beside a migration. */
  readonly hooks?: Pick<Hooks, 'ask'>;
  /** Undefined where nobody proves anything (insecureDataPlane). */
  readonly judge: WarrantJudge | undefined;
  readonly auditHead?: AuditHeadNow | undefined;
  readonly keepBaselineCopy: string;
  readonly storeLimit: number;
  /** Where disks come to lie that have no place here yet. */
  readonly diskPlaces: string;
  /** Settles at once what closed migrations have left of a VM, instead of waiting for the next sweep. */
  readonly settle: (vmId: string) => Promise<void>;
}

type PreparedDestination = Destination & Pick<DestinationRecord, 'consoles'>;

/** Blocks: some milliseconds. */
const COUNTED_AT_ONCE = 65_536;

export function createDestinationActivities(deps: DestinationDependencies) {
  const { hub, registry, store, pool } = deps;

  const grant = (purpose: GrantPurpose, subject: string, holder: string): Destination => ({
    ...deps.advertised,
    grant: mintGrant(deps.key, { purpose, subject, holder }, GRANT_LIFETIME_MS),
  });

  /** Another migration that is still open and has the VM's place here. */
  async function holderOf(vm: OwnedVm, migrationId: string): Promise<string | undefined> {
    const last = await vm.last();
    return last && last.migrationId !== migrationId && isOpenState(last.state)
      ? last.migrationId
      : hub.incoming.otherOf(vm.vmId, migrationId);
  }

  /** Where the images come to lie. Once that is on record they are this migration's, and what lies there is too. */
  async function placesFor(
    input: ActivityInput<'prepareDestination'>,
    known: VmRecord | undefined,
  ): Promise<readonly PlacedImage[]> {
    const { migrationId, vmId, images, fence, diskMap = '', overwriteDisks = false } = input;
    const arriving = [];
    for (const id of await hub.incoming.list()) {
      const record = (await hub.incoming.find(id))?.record;
      if (id === migrationId && record?.fence === fence) return measured(record.images);
      if (record && id !== migrationId) arriving.push(...record.images);
    }
    const wanted = { vmId, images, owner: ownerOf(input), diskMap, overwriteDisks };
    return placeImages(wanted, known, { registry, store, template: deps.diskPlaces, arriving, lockHolder });
  }

  /** Inside the VM's lock: the record first, then the promise. A record without one is swept up; a promise without one would never be. */
  async function promise(
    vm: OwnedVm,
    input: ActivityInput<'prepareDestination'>,
    workflowId: string,
  ): Promise<PreparedDestination> {
    const { migrationId, vmId, mode, fence, sourceHost } = input;
    const own = await destinationStep(vm, migrationId);
    const record = (await hub.incoming.find(migrationId))?.record;
    const answer = (consoles: DestinationRecord['consoles']): PreparedDestination => ({
      ...grant('session', migrationId, sourceHost),
      ...(consoles && { consoles }),
    });
    if (own.state === 'mine' || own.state === 'installed') return answer(record?.consoles);
    own.assert('prepare');
    if ((record?.fence ?? 0) > fence)
      throw new DwcpError('FENCED', `The source has claimed ${vmId} again for migration ${migrationId}`);
    // One that is still open may be about to leave: that is settled first.
    const holder = await holderOf(vm, migrationId);
    if (holder !== undefined)
      throw new DwcpError('VM_BUSY', `Host ${deps.hostId} still has ${vmId} in its hands for migration ${holder}`);
    const known = await registry.find(vmId);
    if (known?.presence === 'here') throw new DwcpError('VM_EXISTS', `VM ${vmId} lives on host ${deps.hostId} already`);
    if (mode === 'migrate' && (await vm.fence()) > fence)
      throw new DwcpError('FENCED', `Host ${deps.hostId} has seen a newer migration of ${vmId}`);
    const images = await placesFor(input, known);
    registry.assertPlaces(images);
    // What has arrived meanwhile takes its room already.
    const inFiles = images.filter(({ deviceBytes }) => deviceBytes === undefined);
    if (!record && !input.force) await assertRoom(inFiles, input.allocatedBytes ?? {}, await store.list(), vmId);
    const generation = Math.max(input.generation, known?.generation ?? 0) + 1;
    // What was looked at is not looked at again: by now the guest itself may have what it found free.
    const described = record?.fence === fence ? record : await describe(input, images);
    // Once for each claim: a grant is renewed in the middle of a transfer too.
    if (mode === 'migrate' && (own.state === 'none' || (record?.fence ?? 0) < fence))
      await askHooks(input, (described.guest ?? described.definition)?.command);
    await hub.incoming.prepare({
      ...looksOf(input),
      ...described,
      migrationId,
      vmId,
      mode,
      fence,
      generation,
      sourceHost,
      workflowId,
      images: images.map(({ imageId, kind, sizeBytes, path }) => ({ imageId, kind, sizeBytes, path })),
      ...(input.overwriteDisks === true && { overwriteDisks: true }),
    });
    if (mode === 'migrate' && own.state === 'none') await own.happened('prepare', fence);
    return answer(described.consoles);
  }

  /** How a guest is started here. @throws GUEST_REFUSED */
  async function describe(
    { vmId, guest: given, stoppedGuest, force }: ActivityInput<'prepareDestination'>,
    images: readonly PlacedImage[],
  ): Promise<Pick<DestinationRecord, 'guest' | 'definition' | 'consoles'>> {
    const [runFolder, tryFolder] = [registry.runFolder(vmId), registry.tryFolder(vmId)];
    const others = (): Promise<(readonly string[])[]> => commandsOfOthers(vmId);
    const here = { vmId, images, runFolder, tryFolder, policy: deps.guestPolicy, others };
    const running = given && (await prepareGuest(given, here, force));
    const stopped = stoppedGuest && (await prepareStoppedGuest(stoppedGuest, here, force));
    await assertSameFiles(vmId, [...(running?.files ?? []), ...(stopped?.files ?? [])], pool);
    if (running) {
      const { consoles, ...guest } = running.guest;
      return { guest, ...told(consoles) };
    }
    if (!stopped) return {};
    const { consoles, ...definition } = stopped.definition;
    return { definition, ...told(consoles) };
  }

  /** Of VMs that live here, and of those that come. */
  async function commandsOfOthers(vmId: string): Promise<(readonly string[])[]> {
    const living = (await registry.list()).filter(({ presence }) => presence === 'here');
    const coming = await Promise.all((await hub.incoming.list()).map((id) => hub.incoming.find(id)));
    const records = [...living, ...coming.flatMap((migration) => migration?.record ?? [])];
    return records.flatMap((record) => {
      const definition = record.guest ?? ('definition' in record ? record.definition : undefined);
      return record.vmId === vmId || !definition ? [] : [definition.command];
    });
  }

  async function askHooks(
    { migrationId, vmId, fence, sourceHost, guest }: ActivityInput<'prepareDestination'>,
    command: readonly string[] | undefined,
  ): Promise<void> {
    const subject = {
      ...{ vmId, migrationId, side: 'destination' as const, sourceHost, destinationHost: deps.hostId, fence },
      running: guest !== undefined,
      networks: command ? networksOf(command, guest?.hardware) : [],
    };
    const happened = 'the VM is about to come to this host';
    await deps.hooks?.ask('prepare', { ...subject, happened }, cancellationSignal());
  }

  return behindBorder(
    {
      /** Promises a place for the VM and says how to reach it. Again: the same promise, a fresh grant. */
      prepareDestination: async (input: ActivityInput<'prepareDestination'>): Promise<PreparedDestination> =>
        withHeartbeat(
          () => ({ doing: 'making room' }),
          async () => {
            const workflowId = activityInfo().workflowExecution?.workflowId ?? '';
            await endIdleDirect(hub, input.vmId);
            const prepare = (): Promise<PreparedDestination> =>
              hub.promising(input, (vm) => promise(vm, input, workflowId));
            return prepare().catch(async (error: unknown) => {
              if (!hasCode(error, 'VM_BUSY')) throw error;
              await deps.settle(input.vmId);
              return prepare();
            });
          },
        ),

      /** Opens the working image of one image and says what it holds; measures a baseline, which reads all of it. */
      checkBaseline: async (input: ActivityInput<'checkBaseline'>): Promise<ActivityResult<'checkBaseline'>> =>
        withHeartbeat(
          () => ({ doing: `measuring what is held of ${input.imageId}` }),
          async () => {
            const migration = await hub.incoming.find(input.migrationId);
            if (!migration)
              throw new DwcpError(
                'MIGRATION_UNKNOWN',
                `Host ${deps.hostId} takes no part in migration ${input.migrationId}`,
              );
            await migration.assertTakesData();
            const { held, state } = await migration.images.image(
              input.imageId,
              input.useBaseline ? 'baseline' : 'empty',
            );
            await migration.beginGuestAhead();
            let blocks = 0;
            // What else lies on a device is not held of the image.
            if (state === 'empty') return { imageId: input.imageId, state, heldBytes: 0 };
            await inSlices(held.blocks, COUNTED_AT_ONCE, (first, end) => {
              for (let block = first; block < end; block += 1) if (!held.isZero(block)) blocks += 1;
            });
            return { imageId: input.imageId, state, heldBytes: blocks * BLOCK_SIZE_BYTES };
          },
        ),

      /** Promises not to start the VM for this migration; keeps what arrived as baseline. @throws ALREADY_PAST_RETURN */
      abandonDestination: async (
        input: ActivityInput<'abandonDestination'>,
      ): Promise<ActivityResult<'abandonDestination'>> =>
        withHeartbeat(
          () => ({ doing: 'keeping what has arrived as baseline' }),
          async () => {
            hub.endSession(
              input.migrationId,
              new DwcpError('CANCELLED', `Migration ${input.migrationId} was given up`),
            );
            if (input.mode === 'migrate') {
              await hub.abandon(input.migrationId, input.vmId, input.fence);
              return deps.say?.('abandoned', input);
            }
            await hub.dismiss(input.migrationId);
            return undefined;
          },
        ),

      /** The destination's half of a hand-over that goes by Temporal instead of the data plane. */
      takeOver: async (input: ActivityInput<'takeOver'>): Promise<ActivityResult<'takeOver'>> =>
        withHeartbeat(
          () => ({ doing: 'taking over' }),
          async () => {
            try {
              const taken = await hub.takeOver(input.migrationId, input.vmId, input.roots);
              const takenOver = deps.say?.('taken_over', input);
              return { ...taken, ...(takenOver !== undefined && { takenOver }) };
            } catch (error) {
              throw inDoubtUnlessRefused(error, input.vmId);
            }
          },
        ),

      /** Keeps what arrived beside the VM, as old bytes for deltas on the way back. Never fails the migration. */
      keepBaselineCopies: async (
        input: ActivityInput<'keepBaselineCopies'>,
      ): Promise<readonly (KeptCopy & { imageId: string })[]> =>
        withHeartbeat(
          () => ({ doing: 'keeping a copy for deltas on the way back' }),
          async (signal) => {
            const vm = await registry.find(input.vmId);
            const images = (vm?.images ?? []).filter((image: VmImage) =>
              input.images.some((wanted) => wanted.imageId === image.imageId),
            );
            const kept = [];
            for (const { imageId, path } of images) {
              const besidePath = registry.copyPlace(input.vmId, { imageId, path });
              const living = { vmId: input.vmId, imageId, imagePath: path, besidePath };
              const copy = await keepBaselineCopy(living, deps.keepBaselineCopy, store, pool, signal).catch(
                (error: unknown): KeptCopy => ({ kept: 'no', reason: messageOf(error) }),
              );
              signal.throwIfAborted();
              kept.push({ ...copy, imageId });
            }
            return kept;
          },
        ),

      /** @param input limitBytes 0 takes this host's own limit */
      pruneBaselines: async (input: ActivityInput<'pruneBaselines'>): Promise<readonly BaselineListing[]> =>
        withHeartbeat(
          () => ({ doing: 'removing the least recently used baselines' }),
          () => store.prune(input.limitBytes || deps.storeLimit),
        ),

      /** A grant for streams that a peer establishes ahead. */
      grantPeer: (input: ActivityInput<'grantPeer'>): Promise<Destination> =>
        Promise.resolve(grant('peer', input.sourceHost, input.sourceHost)),

      /** A grant for a session that only measures the path. */
      grantLink: (input: ActivityInput<'grantLink'>): Promise<Destination> =>
        Promise.resolve(grant('session', input.sessionId, input.sourceHost)),
    },
    { side: 'destination', judge: deps.judge, auditHead: deps.auditHead },
  );
}

export type DestinationActivities = ReturnType<typeof createDestinationActivities>;

function told(consoles: readonly GuestConsole[]): Pick<DestinationRecord, 'consoles'> {
  return consoles.length > 0 ? { consoles: [...consoles] } : {};
}

/** What is on record, with how large a device is now. */
async function measured(images: readonly (ImageSpec & { readonly path: string })[]): Promise<readonly PlacedImage[]> {
  return Promise.all(images.map(async (image) => ({ ...image, ...(await sizeOfDevice(image.path)) })));
}
