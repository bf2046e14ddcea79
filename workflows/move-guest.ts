/**
 * The move of a guest that runs: rounds while it goes on, then its switchover. A switchover that is broken off leaves the
 * guest running at the source, and the rounds begin again; most of it is at the destination by then.
 */
import { CancellationScope } from '@temporalio/workflow';
import { DwcpError } from '../src/model/errors';
import type { MovedGuest } from './activity-proxies';
import { toCoded } from './failures';
import { guestSwitchover } from './switchover';
import type { TransferFlow } from './transfer-flow';

const MAX_BROKEN_OFF = 20;

/** By DWCP. */
export async function moveGuest(flow: TransferFlow): Promise<MovedGuest> {
  const { notUnderstood } = flow.prepared.guest ?? {};
  if (notUnderstood !== undefined)
    throw new DwcpError('STREAM_NOT_UNDERSTOOD', notUnderstood, { phase: 'start', side: 'source' });
  await flow.initialiseAmst();
  const link = await flow.connectAndCheck();
  const start = flow.selectLevel(link);
  await flow.computePlan(link, start);
  return untilMoved(flow, () => flow.guestRounds({ link, start }));
}

/** By QEMU's own migration: the standard transfer. */
export async function moveGuestWhole(flow: TransferFlow): Promise<MovedGuest> {
  await flow.initialiseAmst();
  return untilMoved(flow, () => flow.guestRounds());
}

async function untilMoved(flow: TransferFlow, rounds: () => Promise<void>): Promise<MovedGuest> {
  for (let brokenOff = 0; ; brokenOff += 1) {
    await rounds();
    try {
      return await CancellationScope.nonCancellable(() => guestSwitchover(flow));
    } catch (error) {
      if (toCoded(error).code !== 'GUEST_RUNS_ON' || brokenOff >= MAX_BROKEN_OFF) throw error;
      if (flow.state.cancelRequested)
        throw new DwcpError('CANCELLED', 'The migration was cancelled', { side: 'control' });
    }
  }
}
