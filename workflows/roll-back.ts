/**
 * The way back: the VM is the source's as before, the destination keeps what has arrived as baseline. Runs outside
 * cancellation. Forward steps and what undoes them: claim - roll back; promise - abandon; images - kept as baselines.
 */
import { sleep } from '@temporalio/workflow';
import type { ErrorCode } from '../src/model/error-codes';
import { DwcpError } from '../src/model/errors';
import type { MovedGuest } from './activity-proxies';
import { onDestination, onSource } from './activity-proxies';
import { AbortedByOperator, toCoded } from './failures';
import { goOnHandedOver } from './switchover';
import type { TransferFlow } from './transfer-flow';

/** It was handed over, or has moved: a workflow that was reset does not know. */
const NOT_ITS_TO_TAKE_BACK: ReadonlySet<ErrorCode> = new Set(['HANDOVER_IN_DOUBT', 'ALREADY_PAST_RETURN']);

/**
 * @returns what the workflow ends with, or that the VM has moved after all: a source that was asked to take it back, and had
 * handed it over in an earlier run of this workflow, leaves that to the destination
 */
export async function rollBack(
  flow: TransferFlow,
  error: unknown,
): Promise<DwcpError | { readonly moved: MovedGuest | undefined }> {
  const { migrationId, vmId, sourceHost, destinationHost } = flow.state.identity;
  let decidedBy = error;
  for (let round = 0; ; round += 1) {
    if (round > 1) await sleep('5s', { summary: 'The hand-over is in doubt: ask again' });
    const override = decidedBy instanceof AbortedByOperator && decidedBy.acceptTwoCopies;
    const call = { activityId: 'roll-back-source', summary: `${sourceHost}: ${vmId} is its own again` };
    // Where it was handed over, switchover() lets nobody come here without the destination's promise or the operator's word.
    const input = {
      migrationId,
      vmId,
      destinationAbandoned: flow.handedOver,
      ...(flow.abandoned !== undefined && { abandoned: flow.abandoned }),
      ...(override && { note: 'an operator accepted the risk of two copies' }),
      ...(override && flow.authority.isInForce && { acceptTwoCopies: true }),
    };
    try {
      await untilRolledBack(flow, () => onSource(sourceHost, 'rollBack', call, flow.authority).rollBackSource(input));
      break;
    } catch (failure) {
      const coded = toCoded(failure);
      if (!NOT_ITS_TO_TAKE_BACK.has(coded.code)) {
        const cause = toCoded(error);
        // The claim stays until the agent's sweep finds this workflow closed; saying so beats waiting for ever.
        return new DwcpError(
          cause.code,
          `${cause.message} (and the source could not be rolled back yet: ${coded.message})`,
          { side: cause.side, hint: cause.hint },
        );
      }
    }
    try {
      const { alreadyMoved, handedOver } = await flow.prepare('claim');
      if (alreadyMoved) return { moved: undefined };
      if (handedOver) return { moved: await goOnHandedOver(flow, handedOver) };
    } catch (decision) {
      decidedBy = decision;
    }
  }
  const cause = toCoded(error);
  if (flow.wasInitialised) {
    const abandon = {
      activityId: 'abandon-destination',
      summary: `${destinationHost}: keep what has arrived as baseline`,
    };
    await onDestination(destinationHost, 'courtesy', abandon, flow.authority)
      .abandonDestination({ migrationId, vmId, fence: flow.prepared.fence, mode: 'migrate' })
      .catch(() => undefined);
  }
  return cause;
}

/** As a step, but for a doubt: that is not waited for here. */
async function untilRolledBack(flow: TransferFlow, rollBackSource: () => Promise<void>): Promise<void> {
  let doubt: unknown;
  await flow.step('roll_back', () =>
    rollBackSource().catch((failure: unknown) => {
      if (!NOT_ITS_TO_TAKE_BACK.has(toCoded(failure).code)) throw failure;
      doubt = failure;
    }),
  );
  if (doubt !== undefined) throw doubt;
}
