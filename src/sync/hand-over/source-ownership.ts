/**
 * The source's half of the hand-over: claiming a VM for a migration, handing it over, releasing it or taking it back. Carries
 * out SOURCE_TABLE of src/model/ownership-machine.ts: each step is checked, written and done inside the VM's lock, on disk
 * before its effect, and may be asked for again.
 */
import { constants } from 'node:fs/promises';
import type { InspectedImage, VmHolder } from '../../hypervisor/contract';
import { DwcpError, hasCode } from '../../model/errors';
import { type GuestSpec, MEMORY_IMAGE_ID, RamLayout, type StoppedGuest } from '../../model/guest';
import type { HandOver } from '../../model/hand-over';
import { wholeSectors } from '../../model/image';
import { isOpenState, SOURCE_TABLE } from '../../model/ownership-machine';
import { type BaselineStore, ownerOf } from '../../store/baselines';
import { exists } from '../../store/durable-file';
import { removeDurably } from '../../store/durable-folder';
import { heldBytesOf } from '../../store/held-bytes';
import type { Manifest } from '../../store/manifest';
import type { OwnershipEntry, OwnershipJournal } from '../../store/ownership-journal';
import { setSparseSize } from '../../store/system-calls';
import type { VmRecord, VmRegistry } from '../../store/vm-registry';
import { isDevicePath } from '../../system/block-device';
import { openImage } from '../../system/image-roots';
import type { CodecPool } from '../codec/codec-pool';
import { measureFile } from '../codec/measure-file';
import { markFiles } from './marked-files';
import { type SourceStep, sourceStep } from './own-step';

export interface ClaimedVm {
  readonly vm: VmRecord;
  readonly images: readonly InspectedImage[];
  readonly fence: number;
  /** True where this migration has moved the VM already: a workflow was reset behind the point of no return. */
  readonly alreadyMoved: boolean;
  /** Set where it was handed over, and nobody knows yet what came of it: the hand-over goes on, nothing is sent. */
  readonly handedOver?: HandOver | undefined;
  /** Set where a QEMU runs it: then it is moved while it runs. */
  readonly guest?: GuestSpec | undefined;
  /** Set where it is a guest that does not run. */
  readonly stoppedGuest?: StoppedGuest | undefined;
}

export interface SourceOwnershipContext {
  readonly registry: VmRegistry;
  readonly ownership: OwnershipJournal;
  readonly store: BaselineStore;
  readonly pool: CodecPool;
  readonly holder: VmHolder;
}

export class SourceOwnership {
  readonly #context: SourceOwnershipContext;

  constructor(context: SourceOwnershipContext) {
    this.#context = context;
  }

  /** The VM as it is, with sizes; changes nothing but that it has a uuid from now on. @throws VM_UNKNOWN, VM_NOT_HERE, IMAGE_UNREADABLE */
  async inspect(
    vmId: string,
    force = false,
  ): Promise<{
    vm: VmRecord;
    images: readonly InspectedImage[];
    guest?: GuestSpec | undefined;
    stoppedGuest?: StoppedGuest | undefined;
  }> {
    const { registry, holder, pool } = this.#context;
    const vm = await registry.identify(vmId);
    const disks = vm.images.filter(({ kind }) => kind === 'disk');
    if (!vm.guest) return { vm, images: await withHeldBytes(await holder.inspect(vm.images)) };
    // What memory a stopped guest had is of the past.
    if (!holder.isGuestUp(vm.guest)) {
      const diskPaths = Object.fromEntries(disks.map(({ imageId, path }) => [imageId, path]));
      const { images, rawDisks, files, bridges } = await holder.inspectStopped(vm.guest, disks);
      if (images.length === 0)
        throw new DwcpError(
          'GUEST_LOST',
          `The guest of ${vmId} has ended, and it has no disk: there is nothing to move`,
          { side: 'source' },
        );
      const needsFiles = await markFiles(files, pool);
      const command = await holder.commandElsewhere(vm.guest);
      const stoppedGuest = { command, diskPaths, rawDisks: [...rawDisks], needsFiles, ...(bridges && { bridges }) };
      return { vm, images: await withHeldBytes(images), stoppedGuest };
    }
    const { spec, files, disks: sizes } = await holder.inspectGuest(vmId, vm.guest, disks, force);
    const memory = {
      imageId: MEMORY_IMAGE_ID,
      kind: 'memory' as const,
      path: registry.imagePath(vm, vmId, MEMORY_IMAGE_ID),
      sizeBytes: new RamLayout(spec.ramBlocks).sizeBytes,
    };
    const sized = await withHeldBytes(
      disks.map((image) => ({ ...image, sizeBytes: 0, ...sizes.find(({ imageId }) => imageId === image.imageId) })),
    );
    const guest = { ...spec, needsFiles: await markFiles(files, pool) };
    return { vm, images: spec.notUnderstood === undefined ? [...sized, memory] : sized, guest };
  }

  /**
   * Makes the VM this migration's: it does not run, or is a guest that is moved while it runs; no other migration gets it.
   * @param workflowId what leads the migration, for the sweep
   * @throws VM_UNKNOWN, VM_NOT_HERE, VM_BUSY, VM_RUNNING, IMAGE_UNREADABLE
   */
  claim(vmId: string, migrationId: string, force = false, workflowId?: string): Promise<ClaimedVm> {
    const { registry, holder } = this.#context;
    return this.#exclusively(vmId, migrationId, async (own) => {
      const { entry } = own;
      if (own.state === 'released' || own.state === 'releasing') {
        await this.#finishRelease(own, undefined, new Map());
        return { vm: await registry.get(vmId), images: [], fence: entry?.fence ?? 0, alreadyMoved: true };
      }
      const last = await own.vm.last();
      if (last && isOpenState(last.state) && last.migrationId !== migrationId)
        throw new DwcpError('VM_BUSY', `VM ${vmId} belongs to migration ${last.migrationId} (${last.state})`, {
          side: 'source',
        });
      if (own.state === 'handed_over')
        return {
          vm: await registry.get(vmId),
          images: [],
          fence: entry?.fence ?? 0,
          alreadyMoved: false,
          handedOver: entry?.handOver,
        };
      own.assert('claim');
      const { vm, images, guest, stoppedGuest } = await this.inspect(vmId, force);
      if (own.state === 'claimed')
        return { vm, images, guest, stoppedGuest, fence: entry?.fence ?? 0, alreadyMoved: false };
      if (!guest) await holder.hold(images);
      const claimed = await own.happened(
        'claim',
        (await own.vm.fence()) + 1,
        workflowId === undefined ? {} : { workflowId },
      );
      return { vm, images, guest, stoppedGuest, fence: claimed.fence, alreadyMoved: false };
    });
  }

  /**
   * Says durably that the VM is handed over: from here on this host may not let it run by itself.
   * @param standsStill of a running guest: whether it does, asked where nobody can let it go on meanwhile
   * @throws ABANDONED; GUEST_RUNS_ON where it does not stand still
   */
  handOver(
    vmId: string,
    migrationId: string,
    handOver: HandOver,
    standsStill?: () => Promise<boolean>,
  ): Promise<OwnershipEntry> {
    return this.#exclusively(vmId, migrationId, async (own) => {
      own.assert('hand_over');
      if (own.state !== 'claimed') return own.entryOrThrow();
      await own.assertLast();
      if (standsStill && !(await standsStill()))
        throw new DwcpError('GUEST_RUNS_ON', `The guest of ${vmId} does not stand still: it is not handed over`, {
          phase: 'switchover',
          side: 'source',
        });
      return own.happened('hand_over', own.entryOrThrow().fence, { handOver });
    });
  }

  /**
   * Runs what lets the guest go on, where this migration's line says that it may run here, and nobody can change that
   * meanwhile.
   * @returns whether it was run
   */
  ifMayRun(vmId: string, migrationId: string, letRunOn: () => Promise<void>): Promise<boolean> {
    return this.#exclusively(vmId, migrationId, async (own) => {
      if (!SOURCE_TABLE[own.state].mayRun || !(await own.isLast())) return false;
      await letRunOn();
      return true;
    });
  }

  /** The destination runs it: the images become baselines, the VM is away. Past its first line nothing leads back. */
  release(
    vmId: string,
    migrationId: string,
    movedTo: string,
    generation: number,
    manifests: ReadonlyMap<string, Manifest>,
  ): Promise<void> {
    return this.#exclusively(vmId, migrationId, (own) => this.#finishRelease(own, { movedTo, generation }, manifests));
  }

  /** What a crash in the middle of a release has left undone; nothing where there is none. */
  completeRelease(vmId: string, migrationId: string): Promise<void> {
    return this.#exclusively(vmId, migrationId, async (own) => {
      if (own.state === 'releasing') await this.#finishRelease(own, undefined, new Map());
    });
  }

  /** @param moved undefined where the line `releasing` says it */
  async #finishRelease(
    own: SourceStep,
    moved: { readonly movedTo: string; readonly generation: number } | undefined,
    manifests: ReadonlyMap<string, Manifest>,
  ): Promise<void> {
    const { registry, store, pool, holder } = this.#context;
    const { vmId } = own.vm;
    own.assert('taken_over');
    if (own.state === 'released') return;
    await own.assertLast();
    const {
      fence,
      movedTo = '',
      generation = 0,
    } = own.state === 'releasing'
      ? own.entryOrThrow()
      : await own.happened('taken_over', own.entryOrThrow().fence, moved);
    const known = await registry.get(vmId);
    if (known.guest && holder.isGuestUp(known.guest)) await holder.quitGuest(known.guest);
    const vm = known.guest ? withMemory(known, registry.imagePath(known, vmId, MEMORY_IMAGE_ID)) : known;
    for (const image of vm.images) {
      const { imageId, kind, path } = image;
      if (!(await exists(path))) continue;
      // What cannot be read (a RAM image that a crash has left empty) is no baseline; the VM has moved all the same.
      const [inspected] = await holder.inspect([image]).catch((error: unknown) => {
        if (hasCode(error, 'IMAGE_UNREADABLE')) return [];
        throw error;
      });
      if (!inspected) continue;
      const sent = manifests.get(imageId);
      const sizeBytes = vm.guest ? wholeSectors(inspected.sizeBytes) : inspected.sizeBytes;
      if (sizeBytes !== inspected.sizeBytes) await lengthen(path, sizeBytes);
      // A file of another form than its content (qcow2) stays where it is and is no baseline.
      if (sent && sent.sizeBytes !== sizeBytes && vm.guest) continue;
      const manifest = sent?.sizeBytes === sizeBytes ? sent : await measureFile(path, sizeBytes, pool);
      const record = { vmId, imageId, kind, sizeBytes, ...ownerOf(vm), generation, complete: true };
      // A device stays what it is, under its name: what it holds is what is known of it.
      if (isDevicePath(path)) await store.keepInPlace(path, record, manifest);
      else await store.adopt(path, path, record, manifest);
    }
    await registry.put({ ...vm, presence: 'away', movedTo, generation });
    await own.happened('released', fence);
  }

  /** After a warm-up: remembers the hashes that both sides hold, so that the next question needs no manifest. */
  async recordSent(
    vmId: string,
    images: readonly InspectedImage[],
    manifests: ReadonlyMap<string, Manifest>,
  ): Promise<void> {
    const vm = await this.#context.registry.getHere(vmId);
    for (const { imageId, kind, sizeBytes } of images) {
      const manifest = manifests.get(imageId);
      if (!manifest) continue;
      await this.#context.store.forget(vmId, imageId);
      await this.#context.store.put(
        { vmId, imageId, kind, sizeBytes, ...ownerOf(vm), generation: vm.generation, complete: true },
        manifest,
      );
    }
  }

  /**
   * Takes the VM back: as it was before the migration, its guest running on. Not over before that holds: asked again, it is tried again.
   * @param destinationAbandoned the destination has promised durably not to start it; needed once it was handed over
   * @throws HANDOVER_IN_DOUBT where it was handed over and nothing is promised; ALREADY_PAST_RETURN once it is being released
   */
  rollBack(
    vmId: string,
    migrationId: string,
    {
      destinationAbandoned = false,
      note,
    }: { readonly destinationAbandoned?: boolean; readonly note?: string | undefined } = {},
  ): Promise<void> {
    const { registry, holder } = this.#context;
    return this.#exclusively(vmId, migrationId, async (own) => {
      const event = destinationAbandoned ? 'roll_back_promised' : 'roll_back';
      own.assert(event);
      if (own.state === 'none' || own.state === 'rolled_back') return;
      await own.assertLast();
      const { fence } = own.entryOrThrow();
      if (own.state !== 'rolling_back') await own.happened(event, fence, note === undefined ? {} : { note });
      const vm = await registry.get(vmId);
      await holder.resume(vm.images);
      if (vm.guest) {
        await holder.resumeGuest(vm.guest);
        // What the stream had brought of its memory is at the destination; here it only takes space.
        await removeDurably(registry.imagePath(vm, vmId, MEMORY_IMAGE_ID));
      }
      await own.happened('runs_again', fence);
    });
  }

  /**
   * What a guest that a dead agent has left standing still needs: it runs on, where it is this host's own.
   * @returns false where its QEMU is gone or another owns it
   */
  async resumeClaimed(vmId: string, migrationId: string): Promise<boolean> {
    const { guest } = await this.#context.registry.get(vmId);
    let isUp = false;
    if (guest)
      await this.ifMayRun(vmId, migrationId, async () => void (isUp = await this.#context.holder.resumeGuest(guest)));
    return isUp;
  }

  #exclusively<T>(vmId: string, migrationId: string, work: (own: SourceStep) => Promise<T>): Promise<T> {
    return this.#context.ownership.exclusively(vmId, async (vm) => work(await sourceStep(vm, migrationId)));
  }
}

/** Where the driver has not said it: of files as they are. */
function withHeldBytes(images: readonly InspectedImage[]): Promise<InspectedImage[]> {
  return Promise.all(
    images.map(async (image) => {
      const allocatedBytes = image.allocatedBytes ?? (await heldBytesOf(image.path));
      return allocatedBytes === undefined ? image : { ...image, allocatedBytes };
    }),
  );
}

/** A raw file's last sector is whole from now on, as its guest has seen it: so it comes back. No other kind has a part of one. */
async function lengthen(path: string, sizeBytes: number): Promise<void> {
  const handle = await openImage(path, constants.O_RDWR);
  try {
    if ((await handle.stat()).size < sizeBytes) setSparseSize(handle.fd, sizeBytes);
    await handle.datasync();
  } finally {
    await handle.close();
  }
}

function withMemory(vm: VmRecord, path: string): VmRecord {
  if (vm.images.some(({ imageId }) => imageId === MEMORY_IMAGE_ID)) return vm;
  return { ...vm, images: [...vm.images, { imageId: MEMORY_IMAGE_ID, kind: 'memory', path }] };
}
