/**
 * The pause of a guest that is moved: how long it may last, whatever is waited for, and how a switchover that is broken off ends:
 * with the guest running on here, and said so only where it does.
 */
import type { GuestPort } from '../../hypervisor/contract';
import { unlessAborted } from '../../model/abort';
import type { ErrorCode } from '../../model/error-codes';
import { DwcpError, type DwcpErrorFields, hasCode, toDwcpError } from '../../model/errors';
import { clamp } from '../../model/units';
import type { GuestMove } from './guest-move';
import type { GuestPauses } from './guest-pauses';

const LEAST_BUDGET_MS = 1000;
/** The guest does not run any more, and no step here brings it back. */
export const IS_GONE: ReadonlySet<ErrorCode> = new Set(['GUEST_LOST', 'GUEST_POWERED_OFF']);
/** Further rounds would end as these have. */
const ENDS_THE_MOVE: ReadonlySet<ErrorCode> = new Set(['GUEST_PAUSED', 'GUEST_REFUSED']);

/** How long a guest is kept waiting, from its stop on, whatever is waited for: then it runs on, and is tried again. */
export class PauseBudget {
  readonly #maxDowntimeMs: number;
  readonly #pauses: GuestPauses;
  #timer: NodeJS.Timeout | undefined;
  #over: (error: DwcpError) => void = () => undefined;

  constructor(maxDowntimeMs: number, pauses: GuestPauses) {
    this.#maxDowntimeMs = maxDowntimeMs;
    this.#pauses = pauses;
  }

  /** The guest has stopped. @param atMs by this host's clock */
  begin(atMs: number): void {
    this.#pauses.begin(atMs);
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
async function brokenOff(move: GuestMove, reason: DwcpError): Promise<DwcpError> {
  try {
    await move.breakOff();
    move.pauses.end();
  } catch (error) {
    // Of a guest that is gone nothing stands still.
    if (IS_GONE.has(reason.code)) return reason;
    // It may stand still yet: not said to run on, and tried again.
    return toDwcpError(error, 'QEMU_UNREACHABLE', { phase: 'switchover', side: 'source' });
  }
  return IS_GONE.has(reason.code) || ENDS_THE_MOVE.has(reason.code) || reason.spec.retry === 'operator'
    ? reason
    : runsOn(reason.message, { cause: reason });
}

/**
 * Pauses a guest and sends what is left. @param failed what has gone wrong meanwhile, if anything, and is worth more than what it led to
 * @throws what brokenOff() says: then the guest runs on here
 */
export async function pauseWithin<T>(
  move: GuestMove,
  maxDowntimeMs: number,
  signal: AbortSignal,
  failed: () => DwcpError | undefined,
  pauseAndSend: (budget: PauseBudget) => Promise<T>,
): Promise<T> {
  const budget = new PauseBudget(maxDowntimeMs, move.pauses);
  try {
    return await budget.within(pauseAndSend(budget), signal);
  } catch (error) {
    throw await brokenOff(move, failed() ?? toDwcpError(error, 'INTERNAL'));
  }
}
