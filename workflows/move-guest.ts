/**
 * The move of a guest that runs: rounds while it goes on, then its switchover. A switchover that is broken off leaves the
 * guest running at the source, and the rounds begin again; most of it is at the destination by then. One that ends for the same
 * hopeless cause again and again is not tried for ever: the guest stands still each time.
 */
import { CancellationScope, patched } from '@temporalio/workflow';
import { ERROR_CODES, type ErrorCode } from '../src/model/error-codes';
import { DwcpError } from '../src/model/errors';
import type { Phase } from '../src/model/phases';
import type { MovedGuest } from './activity-proxies';
import { toCoded } from './failures';
import { guestSwitchover } from './switchover';
import type { TransferFlow } from './transfer-flow';

const MAX_BROKEN_OFF = 20;
/** For one cause, one behind the other. */
const MAX_FOR_ONE_CAUSE = 3;
/** The pause was over before everything had arrived. */
const TOO_LONG: ErrorCode = 'REQUEST_TIMEOUT';

/** By DWCP. */
export async function moveGuest(flow: TransferFlow): Promise<MovedGuest> {
  const { notUnderstood } = flow.prepared.guest ?? {};
  if (notUnderstood !== undefined)
    throw new DwcpError('STREAM_NOT_UNDERSTOOD', notUnderstood, { phase: 'start', side: 'source' });
  await flow.initialiseAmst();
  const link = await flow.connectAndCheck();
  const start = flow.selectLevel(link);
  await flow.computePlan(link, start);
  return untilMoved(flow, 'transfer', () => flow.guestRounds({ link, start }));
}

/** By QEMU's own migration: the standard transfer. */
export async function moveGuestWhole(flow: TransferFlow): Promise<MovedGuest> {
  await flow.initialiseAmst();
  return untilMoved(flow, 'standard_transfer', () => flow.guestRounds());
}

async function untilMoved(flow: TransferFlow, phase: Phase, rounds: () => Promise<void>): Promise<MovedGuest> {
  let cause: ErrorCode | undefined;
  let times = 0;
  for (let brokenOff = 0; ; brokenOff += 1) {
    await rounds();
    try {
      return await CancellationScope.nonCancellable(() => guestSwitchover(flow));
    } catch (error) {
      const coded = toCoded(error);
      if (coded.code !== 'GUEST_RUNS_ON' || brokenOff >= MAX_BROKEN_OFF) throw error;
      if (flow.state.cancelRequested)
        throw new DwcpError('CANCELLED', 'The migration was cancelled', { side: 'control' });
      times = coded.because === cause ? times + 1 : 1;
      cause = coded.because;
      if (times < MAX_FOR_ONE_CAUSE || !isHopeless(cause) || !patched('broken-off-for-one-cause')) continue;
      if (cause !== TOO_LONG) throw error;
      // The guest runs: a cancel is heard here as it is in its rounds.
      flow.state.enter(phase);
      await flow.state.park(notConverging(coded, times, phase), phase);
      times = 0;
    }
  }
}

/** What a link or a host brings about may be over by the next time; what QEMU refuses, or a pause that is too short, is not. */
function isHopeless(cause: ErrorCode | undefined): boolean {
  return cause !== undefined && (cause === TOO_LONG || ERROR_CODES[cause].retry === 'permanent');
}

function notConverging({ message }: DwcpError, times: number, phase: Phase): DwcpError {
  return new DwcpError('GUEST_NOT_CONVERGING', `The guest was paused ${times} times in vain, and runs on: ${message}`, {
    phase,
    side: 'source',
  });
}
