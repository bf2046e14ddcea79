/**
 * What moves a running guest, whichever way, and what the hypervisor's driver does for it. The ways: live-migration.ts
 * (DWCP), whole-guest-move.ts (the standard transfer: QEMU's own migration).
 */
import type { GuestPort } from '../../hypervisor/contract';
import { unlessAborted } from '../../model/abort';
import { DwcpError, type DwcpErrorFields, hasCode, toDwcpError } from '../../model/errors';
import type { GuestProgress, GuestResult } from '../../model/guest';
import type { ImageProgress, ImageResult } from '../../model/migration';
import { clamp } from '../../model/units';

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
