/**
 * A host's driver: stopped VMs as image files, running guests through their QEMU. It knows where on this host a guest's
 * sockets and logs lie; what a migration does with a guest is decided elsewhere.
 */
import { existsSync } from 'node:fs';
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { DwcpError, toDwcpError } from '../model/errors';
import { type GuestDefinition, type RamBlock, RamLayout } from '../model/guest';
import type { GuestHardware } from '../model/guest-hardware';
import { type VmImage, wholeSectors } from '../model/image';
import type { InspectedGuest, MemoryLook, StoppedVm, VmActivator, VmHolder } from './contract';
import { ImageFilesDriver } from './image-files';
import { OWN_HOST } from './qemu/allowance';
import { assertAllowed, filesOf } from './qemu/allowed-options';
import { arrivingAllowance } from './qemu/arriving-allowance';
import { layersOf, qcow2SizeBytes } from './qemu/disk-format';
import { guestOwn, pinMachine } from './qemu/guest-command';
import { lendDisks, settleGuest, settleRunning, takeBackDevices } from './qemu/guest-places';
import type { GuestPolicy } from './qemu/guest-policy';
import { quitGuest } from './qemu/guest-process';
import { bridgesOf } from './qemu/guest-taps';
import { removeTpmOf, tpmSocketOf } from './qemu/guest-tpm';
import { IncomingGuest } from './qemu/incoming-guest';
import { whySilent } from './qemu/monitor-holder';
import { filesLeftBehind, withBases } from './qemu/named-files';
import { askAhead, machineMeant } from './qemu/preflight';
import { runPlaces } from './qemu/run-places';
import { assertNoSecrets } from './qemu/secret-words';
import { type MayRun, resumeGuest, SourceGuest } from './qemu/source-guest';
import { StoppedDisk } from './qemu/stopped-disk';

/** In what stat(2) counts. */
const STAT_BLOCK_BYTES = 512;
/** What QEMU calls the processors that Node calls otherwise. */
const QEMU_NAMES: Readonly<Record<string, string>> = { x64: 'x86_64', arm64: 'aarch64' };

export class HostDriver extends ImageFilesDriver implements VmHolder, VmActivator {
  readonly #runFolder: (vmId: string) => string;
  readonly #policy: GuestPolicy;
  #served = 0;

  /** @param runFolder where the sockets and logs of a VM's QEMU lie */
  constructor(runFolder: (vmId: string) => string, policy: GuestPolicy) {
    super();
    this.#runFolder = runFolder;
    this.#policy = policy;
  }

  /** Asks this host's QEMU ahead what it can do: the first guest that comes should not have to wait for the answer. */
  async askAhead(): Promise<void> {
    const program = `qemu-system-${QEMU_NAMES[process.arch] ?? process.arch}`;
    for (const accelerator of ['kvm', 'tcg'])
      await askAhead([program, '-accel', accelerator, '-cpu', 'max'], this.#policy);
  }

  isGuestUp(definition: GuestDefinition): boolean {
    return SourceGuest.isUp(definition);
  }

  /** @throws GUEST_LOST where its QEMU is gone */
  async connectGuest(vmId: string, definition: GuestDefinition, ifMayRun: MayRun): Promise<SourceGuest> {
    if (!SourceGuest.isUp(definition))
      throw new DwcpError('GUEST_LOST', `The QEMU of ${vmId} has ended: nobody listens at ${definition.qmpPath}`, {
        side: 'source',
      });
    const places = runPlaces(this.#runFolder(vmId));
    const peer = settleRunning(places, definition.qmpPath, this.#policy.user);
    return SourceGuest.connect(definition, { ...places, peer }, ifMayRun);
  }

  async inspectGuest(
    vmId: string,
    definition: GuestDefinition,
    images: readonly VmImage[],
    force: boolean,
  ): Promise<InspectedGuest> {
    // A look lets nothing run and stops nothing.
    const guest = await this.connectGuest(vmId, definition, () => Promise.resolve(false)).catch(
      async (error: unknown) => {
        throw await whySilent(error, definition.qmpPath);
      },
    );
    try {
      return await guest.inspect(images, force);
    } finally {
      guest.close();
    }
  }

  /** Has the guest's monitor until `use` is through. @throws GUEST_LOST, GUEST_REFUSED, QEMU_REFUSED, QEMU_TIMEOUT */
  async lookAtMemory<T>(
    vmId: string,
    definition: GuestDefinition,
    ramBlocks: readonly RamBlock[],
    use: (look: MemoryLook) => Promise<T>,
  ): Promise<T> {
    const guest = await this.connectGuest(vmId, definition, () => Promise.resolve(false));
    try {
      return await use(await guest.memoryLook(ramBlocks));
    } finally {
      guest.close();
    }
  }

  /** The disks of a guest that does not run, by their content where QEMU's tools have to read it. */
  async inspectStopped({ command }: GuestDefinition, disks: readonly VmImage[]): Promise<StoppedVm> {
    const own = guestOwn(command);
    assertNoSecrets(own);
    assertAllowed(own, OWN_HOST, { side: 'source' });
    if (tpmSocketOf(own) !== undefined)
      throw new DwcpError(
        'GUEST_REFUSED',
        'The state of its TPM stays behind where the guest does not run: start it, and move it live',
        { side: 'source' },
      );
    const files = await this.inspect(disks);
    const sizes = await Promise.all(disks.map(({ path }) => qcow2SizeBytes(command, path)));
    // What cannot be served later is refused before anything is sent.
    const images = files.map(async (image, index) => {
      const sizeBytes = sizes[index];
      // A raw file as its QEMU sees it.
      if (sizeBytes === undefined) return { ...image, sizeBytes: wholeSectors(image.sizeBytes) };
      const layers = await layersOf(image.path, this.#policy.folders);
      return { ...image, sizeBytes, allocatedBytes: Math.min(sizeBytes, await allocatedIn(layers)) };
    });
    // One that is gone has not been read for a while: what it is started with there is the destination's.
    const left = filesLeftBehind(
      own,
      disks.map(({ path }, index) => ({ path, raw: sizes[index] !== undefined })),
    ).filter(({ path }) => existsSync(path));
    return {
      images: await Promise.all(images),
      rawDisks: disks.flatMap(({ imageId }, index) => (sizes[index] === undefined ? [] : [imageId])),
      files: await withBases(left, own, this.#policy.folders),
      bridges: bridgesOf(command),
    };
  }

  /**
   * The command of a guest that does not run with its machine by version, as it would be started here: another QEMU means another by the
   * same alias, and the guest's operating system would find other hardware.
   */
  async commandElsewhere({ command }: GuestDefinition): Promise<string[]> {
    const machine = await machineMeant(command, this.#policy);
    return machine === undefined ? [...command] : pinMachine(command, machine);
  }

  /** Serves a disk of a guest that does not run; undefined where its file is its content. @throws IMAGE_UNREADABLE */
  async serveStopped(vmId: string, { command }: GuestDefinition, path: string): Promise<StoppedDisk | undefined> {
    const sizeBytes = await qcow2SizeBytes(command, path).catch((error: unknown) => {
      throw toDwcpError(error, 'IMAGE_UNREADABLE', { side: 'source' });
    });
    if (sizeBytes === undefined) return undefined;
    this.#served += 1;
    const layers = await layersOf(path, this.#policy.folders);
    const [places, { user }] = [runPlaces(this.#runFolder(vmId)), this.#policy];
    const ids = settleGuest(places, user);
    if (ids && user) lendDisks([path], ids, user);
    return StoppedDisk.serve(layers, join(places.folder, `still-${this.#served}.sock`), ids);
  }

  resumeGuest(definition: GuestDefinition): Promise<boolean> {
    return resumeGuest(definition);
  }

  async quitGuest(definition: GuestDefinition): Promise<void> {
    await quitGuest(definition.qmpPath);
    if (this.#policy.user) takeBackDevices(filesOf(definition.command).written, this.#policy.user);
    removeTpmOf(definition.command, this.#policy.dataDir);
    void askAhead(definition.command, this.#policy);
  }

  receiveGuest(
    vmId: string,
    command: readonly string[],
    ramBlocks: readonly RamBlock[],
    images: readonly VmImage[],
    hardware?: GuestHardware,
  ): IncomingGuest {
    const runFolder = this.#runFolder(vmId);
    const disks = images.flatMap(({ kind, path }) => (kind === 'disk' ? [path] : []));
    const rules = { allowance: arrivingAllowance(this.#policy, disks, runFolder), policy: this.#policy };
    return new IncomingGuest({ command, rules, runFolder, layout: new RamLayout(ramBlocks), hardware });
  }
}

/** What these files take. */
async function allocatedIn(layers: readonly { readonly path: string }[]): Promise<number> {
  const found = await Promise.all(layers.map(({ path }) => stat(path)));
  return found.reduce((sum, { blocks }) => sum + blocks * STAT_BLOCK_BYTES, 0);
}
