/**
 * The move of a guest that runs: rounds while it goes on, then its switchover. A switchover that is broken off leaves the
 * guest running at the source, and the rounds begin again; most of it is at the destination by then.
 */
import { CancellationScope } from '@temporalio/workflow';
import type { MovedGuest } from '../activities';
import { DwcpError } from '../src/model/errors';
import { toCoded } from './failures';
import { guestSwitchover } from './switchover';
import type { TransferFlow } from './transfer-flow';

const MAX_BROKEN_OFF = 20;

export async function moveGuest(flow: TransferFlow): Promise<MovedGuest> {
  await flow.initialiseAmst();
  const link = await flow.connectAndCheck();
  const start = flow.selectLevel(link);
  await flow.computePlan(link, start);
  for (let brokenOff = 0; ; brokenOff += 1) {
    await flow.guestRounds(link, start);
    try {
      return await CancellationScope.nonCancellable(() => guestSwitchover(flow));
    } catch (error) {
      if (toCoded(error).code !== 'GUEST_RUNS_ON' || brokenOff >= MAX_BROKEN_OFF) throw error;
      if (flow.state.cancelRequested) throw new DwcpError('CANCELLED', 'The migration was cancelled', { side: 'control' });
    }
  }
}
