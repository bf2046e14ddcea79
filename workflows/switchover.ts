/**
 * The switchover: the hand-over on the source's host, and what to do while nobody knows whether it happened. Once it has
 * begun, only the destination's durable promise (or an operator who accepts the risk) leads back.
 */
import { sleep } from '@temporalio/workflow';
import type { ActivityResult } from '../src/model/activity-results';
import type { ErrorCode } from '../src/model/error-codes';
import type { HandOver } from '../src/model/hand-over';
import type { ImageResult } from '../src/model/migration';
import { type MovedGuest, onDestination, onSource } from './activity-proxies';
import { AbortedByOperator, toCoded } from './failures';
import type { TransferFlow } from './transfer-flow';

/** Said only before the source has handed over. Whatever else ends the step leads back with the destination's promise alone. */
const NOT_HANDED_OVER: ReadonlySet<ErrorCode> = new Set(['GUEST_RUNS_ON', 'GUEST_LOST', 'GUEST_POWERED_OFF']);

type Taken = ActivityResult<'takeOver'>;

export function rootsOf(images: readonly ImageResult[]): Record<string, string> {
  return Object.fromEntries(images.map(({ imageId, root }) => [imageId, root]));
}

/**
 * Goes on with what an earlier run of this migration has handed over.
 * @returns how a running guest moved
 * @throws only where the source may take the VM back
 */
export async function goOnHandedOver(flow: TransferFlow, handedOver: HandOver): Promise<MovedGuest | undefined> {
  flow.goOnFrom(handedOver);
  if (handedOver.live) return guestSwitchover(flow);
  await switchover(flow, handedOver.roots);
  return undefined;
}

/** Hands over a VM that stands still. @throws only where the source may take the VM back */
export async function switchover(flow: TransferFlow, roots: Record<string, string>): Promise<void> {
  const { sourceHost, destinationHost, vmId } = flow.state.identity;
  const call = { activityId: 'switchover', summary: `${vmId}: hand over to ${destinationHost}` };
  const input = { ...flow.linkInput, destinationHost, roots };
  const byTemporal = (): Promise<void> => byControlPlane(flow, roots);
  await untilDecided(flow, () =>
    flow.state.path === 'dwcp'
      ? unlessInDoubt<unknown>(
          onSource(sourceHost, 'handOverByLink', call, flow.authority).switchover(input),
          byTemporal,
        )
      : byTemporal(),
  );
}

/** Pauses a running guest and hands it over. @throws GUEST_RUNS_ON where it was broken off; else as switchover() */
export async function guestSwitchover(flow: TransferFlow): Promise<MovedGuest> {
  const { sourceHost, destinationHost, vmId } = flow.state.identity;
  const call = { activityId: 'guest-switchover', summary: `${vmId}: pause, and hand over to ${destinationHost}` };
  const input = { ...flow.linkInput, options: flow.options, destinationHost };
  return untilDecided(flow, () =>
    unlessInDoubt(onSource(sourceHost, 'handOverByLink', call, flow.authority).guestSwitchover(input), (error) =>
      guestByControlPlane(flow, error),
    ),
  );
}

/** Where the link does not say whether the destination has the VM, it is asked by another way. */
async function unlessInDoubt<T>(byLink: Promise<T>, otherwise: (error: unknown) => Promise<T>): Promise<T> {
  try {
    return await byLink;
  } catch (error) {
    if (toCoded(error).code !== 'HANDOVER_IN_DOUBT') throw error;
    return otherwise(error);
  }
}

/** By way of Temporal: the destination takes over on the source's signed word, and answers with its own. */
async function takeOver(flow: TransferFlow, roots: Record<string, string>): Promise<Taken> {
  const { sourceHost, destinationHost, vmId, migrationId } = flow.state.identity;
  const ask = { activityId: 'handed-over-word', summary: `${sourceHost}: its word that ${vmId} is handed over` };
  const handedOver = flow.authority.isInForce
    ? await onSource(sourceHost, 'brief', ask, flow.authority).handedOverWord({ migrationId, vmId })
    : undefined;
  const call = { activityId: 'take-over', summary: `${destinationHost}: take ${vmId} over` };
  return onDestination(destinationHost, 'handOver', call, flow.authority).takeOver({
    migrationId,
    vmId,
    roots,
    ...(handedOver !== undefined && { handedOver }),
  });
}

/** The link does not answer: the same hand-over, asked of the destination by way of Temporal. A paused guest cannot wait long. */
async function guestByControlPlane(flow: TransferFlow, cause: unknown): Promise<MovedGuest> {
  const { sourceHost, destinationHost, vmId, migrationId } = flow.state.identity;
  const ask = { activityId: 'hand-over-roots', summary: `${sourceHost}: what was handed over of ${vmId}?` };
  const roots = await onSource(sourceHost, 'brief', ask, flow.authority).handedOverRoots({ migrationId, vmId });
  if (!roots) throw cause;
  const { takenOver, ...taken } = await takeOver(flow, roots);
  const release = { activityId: 'release-guest', summary: `${sourceHost}: release ${vmId}` };
  return onSource(sourceHost, 'long', release, flow.authority).releaseGuest({
    ...flow.linkInput,
    options: flow.options,
    destinationHost,
    taken,
    ...(takenOver !== undefined && { takenOver }),
  });
}

async function untilDecided<T>(flow: TransferFlow, handOver: () => Promise<T>): Promise<T> {
  flow.handedOver = true;
  for (;;) {
    try {
      const result = await flow.step('switchover', handOver);
      flow.state.pastReturn = true;
      return result;
    } catch (error) {
      if (error instanceof AbortedByOperator) {
        if (error.acceptTwoCopies || (await promisesNotToStart(flow))) throw error;
      } else if (NOT_HANDED_OVER.has(toCoded(error).code)) {
        flow.handedOver = false;
        throw error;
      } else if (await promisesNotToStart(flow)) throw error;
      await sleep('5s', { summary: 'The hand-over is in doubt: ask again' });
    }
  }
}

/**
 * The hand-over step by step through Temporal: for images that came by the standard transfer, and where the link has not
 * answered, since the data plane may be what failed. The order of the durable steps is the same.
 */
async function byControlPlane(flow: TransferFlow, roots: Record<string, string>): Promise<void> {
  const { sourceHost, destinationHost, vmId } = flow.state.identity;
  const input = { ...flow.linkInput, destinationHost };
  await onSource(
    sourceHost,
    'brief',
    {
      activityId: 'hand-over',
      summary: `${sourceHost}: hand ${vmId} over`,
    },
    flow.authority,
  ).handOver({ ...input, roots });
  const { generation, takenOver } = await takeOver(flow, roots);
  await onSource(
    sourceHost,
    'long',
    {
      activityId: 'release',
      summary: `${sourceHost}: images become baselines`,
    },
    flow.authority,
  ).release({ ...input, generation, ...(takenOver !== undefined && { takenOver }) });
}

/** Whether the destination has durably promised not to start the VM. */
async function promisesNotToStart(flow: TransferFlow): Promise<boolean> {
  const { migrationId, vmId, destinationHost } = flow.state.identity;
  const call = { activityId: 'abandon-destination', summary: `${destinationHost}: promise not to start ${vmId}` };
  try {
    flow.abandoned = await onDestination(destinationHost, 'courtesy', call, flow.authority).abandonDestination({
      migrationId,
      vmId,
      fence: flow.prepared.fence,
      mode: 'migrate',
    });
    return true;
  } catch {
    return false;
  }
}
