/**
 * What DWCP asks of a hypervisor's driver, and all that the rooms of src/sync may know of one. Types only: what it takes to
 * hold, look at, move and receive a VM, and nothing of links, baselines or Temporal. Every driver passes the suites of test/contract:
 * hypervisor-driver.suite.ts, and running-guest.suite.ts where it moves guests that run.
 */
import type { DwcpError } from '../model/errors';
import type { GuestDefinition, GuestSpec, MarkedFile, RamBlock } from '../model/guest';
import type { GuestHardware } from '../model/guest-hardware';
import type { VmImage } from '../model/image';

export interface InspectedImage extends VmImage {
  readonly sizeBytes: number;
  /** What it takes where it lies, without its holes, where that is known. */
  readonly allocatedBytes?: number;
}

/** A file that a guest's command names and that does not move with it. */
export interface GuestFile extends Pick<MarkedFile, 'path' | 'use'> {
  /** What its QEMU has open in place of it: what lies at the path now was put there since. */
  readonly heldAt?: string;
}

/** A stopped VM. */
export interface HypervisorDriver {
  readonly name: string;

  /**
   * Says what the VM consists of now. Changes nothing.
   * @returns every image with its size, in the order given
   * @throws IMAGE_UNREADABLE where one cannot be opened for reading
   */
  inspect(images: readonly VmImage[]): Promise<readonly InspectedImage[]>;

  /**
   * Makes sure that nothing writes to the images until resume(). Idempotent.
   * On success the VM is stopped and stays so. On failure it is as it was before.
   * @throws VM_RUNNING where the driver cannot stop it
   */
  hold(images: readonly VmImage[]): Promise<void>;

  /** Undoes hold() at the source after a roll-back: the VM is as it was before the migration. Idempotent. */
  resume(images: readonly VmImage[]): Promise<void>;

  /**
   * Lets the VM live here; called on the destination, and only past the point of no return. Idempotent.
   * All images are complete and at their own places.
   */
  activate(images: readonly VmImage[]): Promise<void>;
}

/** Keeps a VM from running at its source, and lets it. */
export interface VmHolder extends Pick<HypervisorDriver, 'inspect' | 'hold' | 'resume'> {
  /** Whether the guest's QEMU is there, in whatever state. */
  isGuestUp(definition: GuestDefinition): boolean;
  /** The disks of a guest that does not run, by their content where the hypervisor's tools have to read it. */
  inspectStopped(definition: GuestDefinition, disks: readonly VmImage[]): Promise<StoppedVm>;
  /** The command of a guest that does not run, as it means the same on another host. */
  commandElsewhere(definition: GuestDefinition): Promise<string[]>;
  inspectGuest(
    vmId: string,
    definition: GuestDefinition,
    images: readonly VmImage[],
    force: boolean,
  ): Promise<InspectedGuest>;
  /** Takes back what a migration did to a guest. @returns false where its QEMU is gone */
  resumeGuest(definition: GuestDefinition): Promise<boolean>;
  /** Ends the QEMU of a guest that does not run here any more. @throws GUEST_REFUSED where it runs */
  quitGuest(definition: GuestDefinition): Promise<void>;
}

export interface InspectedGuest {
  /** What its files hold is read elsewhere. */
  readonly spec: Omit<GuestSpec, 'needsFiles'>;
  readonly files: readonly GuestFile[];
  readonly disks: readonly Pick<InspectedImage, 'imageId' | 'sizeBytes' | 'allocatedBytes'>[];
}

/** A guest that does not run. */
export interface StoppedVm {
  readonly images: readonly InspectedImage[];
  readonly rawDisks: readonly string[];
  readonly files: readonly GuestFile[];
  /** In which bridges its taps are here. */
  readonly bridges?: Readonly<Record<string, string>>;
}

/** What makes a VM live at its destination. */
export interface VmActivator extends Pick<HypervisorDriver, 'activate'> {
  /**
   * Receives a running guest.
   * @param images the VM's own, at their places here: the only ones that its command may write
   * @param hardware what its QEMU here has to consist of; undefined where that is not asked
   */
  receiveGuest(
    vmId: string,
    command: readonly string[],
    ramBlocks: readonly RamBlock[],
    images: readonly VmImage[],
    hardware?: GuestHardware,
  ): GuestReceiver;
}

export interface Extent {
  readonly offset: number;
  readonly length: number;
}

/** The content of a disk that only a hypervisor's tools can read. */
export interface StillDisk {
  readonly sizeBytes: number;
  read(offset: number, into: Buffer): Promise<void>;
  /** Stretches that read as zeros. */
  holes(): Promise<readonly Extent[]>;
  close(): void;
}

/** A running guest's disk. */
export interface DiskPort {
  read(offset: number, into: Buffer): Promise<void>;
  holes(): Promise<readonly Extent[]>;
  /** What the guest has written since the round before. */
  nextRound(): Promise<readonly Extent[]>;
  /** How much of that there is so far. */
  dirtyBytes(): Promise<number>;
  /**
   * The guest writes to it no faster than this, until it runs on as before anything.
   * @returns false where that is not to be had, and nothing has changed
   */
  limitWrites(bytesPerSecond: number): Promise<boolean>;
}

export interface GuestMemoryEvents {
  /** The set-up has come; it goes to the destination's QEMU before any page. */
  setUp(prefix: Buffer, sectionId: number): void;
  /** These pages of the image file have changed; more of the last block may at once. */
  changed(firstPage: number, count: number): void;
  /** Pages that change, as they will be, one behind the other; their bytes for the time of the call. */
  pagesWritten(firstPage: number, bytes: Buffer): void;
  /** A block that was settled changes for the first time; its bytes as they are, for the time of the call. */
  beforeFirstChange(block: number, bytes: Buffer): void;
  /** So many pages have come that are as they were. */
  unchanged(count: number): void;
  /** An iteration of QEMU has ended: nothing is half written. */
  sectionEnded(): void;
  /** Every page there will be has come. */
  pagesEnded(): void;
}

export interface MemoryInfo {
  /** Rounds that QEMU has begun. */
  readonly rounds: number;
  readonly remainingBytes: number;
  readonly dirtyBytesPerSecond: number;
  readonly throttle: number;
}

export interface MirrorProgress {
  readonly imageId: string;
  readonly doneBytes: number;
  readonly totalBytes: number;
  /** Everything has been copied once: from here on writes go to both. */
  readonly ready: boolean;
}

/** What a guest's QEMU says behind its last page. */
export interface DeviceState {
  readonly commands: Buffer;
  readonly devices: Buffer;
}

/** Whether the guest is slowed down where its memory changes faster than it is sent. */
export interface Convergence {
  readonly autoConverge: boolean;
}

export interface MemoryStart extends Convergence {
  /** Of the RAM image file. */
  readonly path: string;
  readonly ramBlocks: readonly RamBlock[];
  /** Pages of the file that are holes, one byte each. */
  readonly blankPages: (fd: number) => Uint8Array;
  /** One byte a block: 1 where what the file holds is at the destination too. It is taken over. */
  readonly settled: Uint8Array;
  readonly events: GuestMemoryEvents;
}

/** A running guest's memory as it is now; nothing of the guest changes. */
export interface MemoryLook {
  /** Copies neighbouring blocks of the RAM image; what cannot be looked at reads as zeros. @throws QEMU_REFUSED, QEMU_TIMEOUT */
  read(firstBlock: number, into: Buffer): Promise<void>;
  /** Has the hypervisor measure what the guest changes, beside whatever else goes on. @returns whether it does */
  beginDirtyRate(): Promise<boolean>;
  /** What it has found: bytes of different pages that changed within a time; undefined where there is nothing yet. */
  dirtyBytes(): Promise<{ readonly seconds: number; readonly bytes: number } | undefined>;
}

/** Has the guest's monitor for the time of the call: it should be short, a migration waits for it. */
export type LookAtMemory = <T>(ramBlocks: readonly RamBlock[], use: (look: MemoryLook) => Promise<T>) => Promise<T>;

/** A running guest at its source. */
export interface GuestPort {
  readonly memoryFd: number;
  /** Of memory, once all has come: what the hypervisor has left out, since the guest says that nothing is in it. */
  readonly leftOutBytes: number;
  /** Where QEMU's mirror of a disk connects to. */
  readonly mirrorPath: string;
  /** Called once where the guest's QEMU ends or its stream breaks. */
  onFailure(handler: (error: DwcpError) => void): void;
  watchDisks(images: readonly VmImage[]): Promise<ReadonlyMap<string, DiskPort>>;
  startMemory(memory: MemoryStart): Promise<void>;
  /** QEMU's own migration: its stream goes on as it is, one chunk at a time. */
  startWhole(take: (chunk: Buffer) => Promise<void>, convergence: Convergence): Promise<void>;
  mirrorDisks(images: readonly VmImage[]): Promise<void>;
  mirrors(): Promise<readonly MirrorProgress[]>;
  /** With the guest stopped: both copies are equal, and the mirrors end. */
  finishMirrors(): Promise<void>;
  hold(): void;
  release(): void;
  info(): Promise<MemoryInfo>;
  /** The guest may be slowed down from now on. */
  allowThrottle(): Promise<void>;
  /**
   * Lets the guest be stopped.
   * @param stopped hears of the moment, before QEMU is ready to go on
   * @throws GUEST_PAUSED where somebody else had stopped it
   */
  pause(stopped: (atMs: number) => void): Promise<void>;
  complete(): Promise<DeviceState>;
  /** Whether the guest cannot go on by itself any more: its migration has completed, or its QEMU is gone. */
  standsStill(): Promise<boolean>;
  /** As before anything. @throws ABANDONED where the journal does not say that it may run here */
  runOn(): Promise<void>;
  close(): void;
}

export interface GuestSetUp {
  readonly prefix: Buffer;
  readonly sectionId: number;
}

/** Where a QEMU that receives a guest itself is spoken to. */
export interface WholePlaces {
  readonly memoryPath: string;
  readonly disksPath: string;
}

export interface ProcessIdentity {
  readonly pid: number;
  /** Since the host's start: a number that is given again is another process. */
  readonly startTicks: number;
}

/** A guest that is arriving. */
export interface GuestReceiver {
  /** @param isZero whether a block of the file is known to be zeros: reading a hole costs memory and time */
  begin(setUp: GuestSetUp, fd: number, isZero: (block: number) => boolean): void;
  /** These blocks of the image file have changed and can be read. */
  changed(blocks: readonly number[]): void;
  /** Bytes of the RAM image, zeros aside, that QEMU has not been given yet. */
  readonly leftBytes: number;
  /**
   * What has begun stands: it takes what comes.
   * @throws QEMU_REFUSED with the reason where it never will
   */
  ready(): Promise<void>;
  load(state: DeviceState): Promise<void>;
  /**
   * QEMU receives the guest by its own means, at these places of this host.
   * @param disks image ids by path @param setUp how its stream will begin, where that is known
   * @throws QEMU_REFUSED with the reason where it never will
   */
  receiveWhole(disks: ReadonlyMap<string, string>, setUp: GuestSetUp | undefined): Promise<WholePlaces>;
  loadWhole(): Promise<void>;
  /** The process that holds what was loaded. */
  readonly process: ProcessIdentity | undefined;
  /**
   * Finds what an earlier agent has left; any other process there is not it.
   * @returns undefined where it has ended
   * @throws QEMU_TIMEOUT where it lives and does not answer
   */
  adopt(process: ProcessIdentity): Promise<'loaded' | 'running' | 'neither' | undefined>;
  run(): Promise<{ resumedAtMs: number; responds: boolean }>;
  release(): void;
  /** What is loaded, or being loaded, is of the past. */
  breakOff(): void;
  discard(): Promise<void>;
  /** Behind discard(), where the guest is another host's: nothing of it stays here but its images. */
  forget?(): void;
}
