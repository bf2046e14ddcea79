/**
 * The way back: the VM is the source's as before, the destination keeps what has arrived as baseline. Runs outside
 * cancellation. Forward steps and what undoes them: claim - roll back; promise - abandon; images - kept as baselines.
 */
import { DwcpError } from '../src/model/errors';
import { onDestination, onSource } from './activity-proxies';
import { AbortedByOperator, toCoded } from './failures';
import type { TransferFlow } from './transfer-flow';

/** @returns what the workflow ends with */
export async function rollBack(flow: TransferFlow, error: unknown): Promise<DwcpError> {
  const { migrationId, vmId, sourceHost, destinationHost } = flow.state.identity;
  const override = error instanceof AbortedByOperator && error.acceptTwoCopies;
  const cause = toCoded(error);
  const call = { activityId: 'roll-back-source', summary: `${sourceHost}: ${vmId} is its own again` };
  // Where it was handed over, switchover() lets nobody come here without the destination's promise or the operator's word.
  const input = { migrationId, vmId, destinationAbandoned: flow.handedOver, ...(override && { note: 'an operator accepted the risk of two copies' }) };
  try {
    await flow.step('roll_back', () => onSource(sourceHost, 'brief', call).rollBackSource(input));
  } catch (failure) {
    // The claim stays until the agent's sweep finds this workflow closed; saying so beats waiting for ever.
    return new DwcpError(cause.code, `${cause.message} (and the source could not be rolled back yet: ${toCoded(failure).message})`, { side: cause.side, hint: cause.hint });
  }
  if (flow.wasInitialised) {
    const abandon = { activityId: 'abandon-destination', summary: `${destinationHost}: keep what has arrived as baseline` };
    await onDestination(destinationHost, 'courtesy', abandon)
      .abandonDestination({ migrationId, vmId, fence: flow.prepared.fence, mode: 'migrate' })
      .catch(() => undefined);
  }
  return cause;
}
