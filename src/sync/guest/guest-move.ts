/**
 * What moves a running guest, whichever way, and what the hypervisor's driver does for it. The ways: live-migration.ts
 * (DWCP), whole-guest-move.ts (the standard transfer: QEMU's own migration).
 */
import { unlessAborted } from '../../model/abort';
import { DwcpError, type DwcpErrorFields, hasCode, toDwcpError } from '../../model/errors';
import type { GuestProgress, GuestResult, RamBlock } from '../../model/guest';
import type { VmImage } from '../../model/image';
import type { ImageProgress, ImageResult } from '../../model/migration';
import { clamp } from '../../model/units';
import type { DiskPort } from './live-disk';

/** As the driver's own GuestMemoryEvents: neither of the two rooms may import the other. */
export interface MemoryEvents {
  setUp(prefix: Buffer, sectionId: number): void;
  changed(firstPage: number, count: number): void;
  /** Pages that change, as they will be, one behind the other; their bytes for the time of the call. */
  pagesWritten(firstPage: number, bytes: Buffer): void;
  /** A block that was settled changes for the first time; its bytes as they are, for the time of the call. */
  beforeFirstChange(block: number, bytes: Buffer): void;
  unchanged(count: number): void;
  sectionEnded(): void;
  pagesEnded(): void;
}

export interface MirrorProgress {
  readonly imageId: string;
  readonly doneBytes: number;
  readonly totalBytes: number;
  /** Everything has been copied once: from here on writes go to both. */
  readonly ready: boolean;
}

/** What the hypervisor's driver does for a guest at its source. */
export interface GuestPort {
  readonly memoryFd: number;
  /** Where QEMU's mirror of a disk connects to. */
  readonly mirrorPath: string;
  onFailure(handler: (error: DwcpError) => void): void;
  watchDisks(images: readonly VmImage[]): Promise<ReadonlyMap<string, DiskPort>>;
  /** @param settled one byte a block: 1 where what the file at `path` holds is at the destination too */
  startMemory(
    path: string,
    ramBlocks: readonly RamBlock[],
    blankPages: (fd: number) => Uint8Array,
    settled: Uint8Array,
    autoConverge: boolean,
    events: MemoryEvents,
  ): Promise<void>;
  /** QEMU's own migration: its stream goes on as it is, one chunk at a time. */
  startWhole(take: (chunk: Buffer) => Promise<void>, autoConverge: boolean): Promise<void>;
  mirrorDisks(images: readonly VmImage[]): Promise<void>;
  mirrors(): Promise<readonly MirrorProgress[]>;
  /** With the guest stopped: both copies are equal, and the mirrors end. */
  finishMirrors(): Promise<void>;
  hold(): void;
  release(): void;
  info(): Promise<{ rounds: number; remainingBytes: number; dirtyBytesPerSecond: number; throttle: number }>;
  /** The guest may be slowed down from now on. */
  allowThrottle(): Promise<void>;
  /** Lets the guest be stopped. @param stopped hears of the moment, before QEMU is ready to go on @throws GUEST_PAUSED where somebody else had stopped it */
  pause(stopped: (atMs: number) => void): Promise<void>;
  complete(): Promise<{ commands: Buffer; devices: Buffer }>;
  /** Whether the guest cannot go on by itself any more: its migration has completed, or its QEMU is gone. */
  standsStill(): Promise<boolean>;
  /** As before anything. @throws ABANDONED where the journal does not say that it may run here */
  runOn(): Promise<void>;
  close(): void;
}

/** What is known when the guest stands still and everything of it has arrived. */
export interface ReadyToHandOver {
  readonly roots: Record<string, string>;
  readonly pausedAtMs: number;
  readonly guest: Omit<GuestResult, 'downtimeMs' | 'responds'>;
  readonly images: readonly ImageResult[];
}

export interface GuestMove {
  /** Why the rounds ended, with figures. */
  readonly reason: string;
  /** @param before what an earlier attempt reported last */
  progress(before: readonly ImageProgress[]): {
    readonly guest: GuestProgress;
    readonly images: readonly ImageProgress[];
  };
  /** Sends until the rule says that the guest may be paused. It runs all the while. @throws GUEST_NOT_CONVERGING, GUEST_LOST */
  rounds(signal: AbortSignal): Promise<void>;
  /**
   * Pauses the guest and brings everything of it to the destination, whose QEMU has loaded it when this returns. From then on
   * nothing leads back without the destination's promise. Any failure before lets the guest run on here.
   * @throws GUEST_RUNS_ON, GUEST_LOST
   */
  pauseGuest(signal: AbortSignal): Promise<ReadyToHandOver>;
  /** Whether the guest cannot go on by itself any more. */
  standsStill(): Promise<boolean>;
  /** Ends it: the guest runs on here, unless it was handed over. Idempotent. @throws what kept it from running on */
  breakOff(): Promise<void>;
  /** After the destination runs it: lets go of the guest here, which stands still. */
  close(): void;
}

export function runsOn(why: string, fields: DwcpErrorFields = {}): DwcpError {
  return new DwcpError('GUEST_RUNS_ON', `The switchover was broken off: ${why}`, {
    ...fields,
    phase: 'switchover',
    side: 'source',
  });
}

/** The guest goes on here, unless it is not this host's any more. @throws what kept it from running on */
export async function letRunOn(guest: GuestPort): Promise<void> {
  try {
    await guest.runOn();
  } catch (error) {
    if (!hasCode(error, 'ABANDONED')) throw error;
  }
}

/** Breaks a switchover off. @returns what to throw: what an operator must see as it is, all else as GUEST_RUNS_ON */
export async function brokenOff(move: GuestMove, reason: DwcpError): Promise<DwcpError> {
  try {
    await move.breakOff();
  } catch (error) {
    // It may stand still yet: not said to run on, and tried again.
    return toDwcpError(error, 'QEMU_UNREACHABLE', { phase: 'switchover', side: 'source' });
  }
  return reason.code === 'GUEST_LOST' || reason.code === 'GUEST_PAUSED' || reason.spec.retry === 'operator'
    ? reason
    : runsOn(reason.message, { cause: reason });
}

const LEAST_BUDGET_MS = 1_000;

/** How long a guest is kept waiting, from its stop on, whatever is waited for: then it runs on, and is tried again. */
export class PauseBudget {
  readonly #maxDowntimeMs: number;
  #timer: NodeJS.Timeout | undefined;
  #over: (error: DwcpError) => void = () => undefined;

  constructor(maxDowntimeMs: number) {
    this.#maxDowntimeMs = maxDowntimeMs;
  }

  /** The guest has stopped. @param atMs by this host's clock */
  begin(atMs: number): void {
    // A clock that is set meanwhile neither shortens nor lengthens a pause by more than the pause.
    const wholeMs = Math.max(LEAST_BUDGET_MS, this.#maxDowntimeMs);
    const leftMs = wholeMs - clamp(Date.now() - atMs, 0, wholeMs);
    this.#timer ??= setTimeout(
      () =>
        this.#over(
          new DwcpError(
            'REQUEST_TIMEOUT',
            `the pause would have lasted longer than maxDowntimeMs (${this.#maxDowntimeMs} ms)`,
          ),
        ),
      leftMs,
    );
  }

  /** @throws when the time is over, or the signal says so; the work goes on by itself then and is not heard any more */
  async within<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
    const late = new Promise<never>((_, reject) => (this.#over = reject));
    try {
      return await unlessAborted(Promise.race([work, late]), signal);
    } finally {
      clearTimeout(this.#timer);
    }
  }
}
