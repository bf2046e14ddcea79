/**
 * The same sync without switching over: brings the destination's baseline up to date while the VM stays where it is, so
 * that the move itself has little left to send (maintenance windows; `dwcp warm`).
 */
import { CancellationScope } from '@temporalio/workflow';
import { DwcpError } from '../src/model/errors';
import type { ImageResult, MigrationRequest, MigrationResult } from '../src/model/migration';
import { onDestination, onSource } from './activity-proxies';
import { completed } from './complete';
import { failWith, toCoded } from './failures';
import { begin } from './start';
import type { TransferFlow } from './transfer-flow';

export async function warmBaseline(argument: MigrationRequest): Promise<MigrationResult> {
  const { flow, state, scope, startedAtMs } = begin(argument, 'warm');
  try {
    const images = await scope.run(() => warm(flow));
    state.enter('closed');
    return completed(flow, images, startedAtMs, undefined);
  } catch (error) {
    throw failWith(toCoded(error));
  } finally {
    await CancellationScope.nonCancellable(() => leave(flow));
  }
}

async function warm(flow: TransferFlow): Promise<ImageResult[]> {
  const { sourceHost, destinationHost, vmId } = flow.state.identity;
  const { guest } = await flow.prepare('look');
  if (guest)
    throw new DwcpError(
      'GUEST_REFUSED',
      `${vmId} runs: only a stopped VM is warmed up. A first migration leaves the baseline for the next`,
      { side: 'source' },
    );
  await flow.initialiseAmst();
  await flow.establishStreams();
  const link = await flow.detectTier();
  const start = flow.selectLevel(link);
  await flow.checkBaselines();
  await flow.computePlan(link, start);
  const images = await flow.transferImages(link, start);
  const call = { activityId: 'keep-warm', summary: `${destinationHost}: record the baseline of ${vmId}` };
  await flow.step('complete', () =>
    onSource(sourceHost, 'quick', call, flow.authority).keepWarm({ ...flow.linkInput, images: flow.prepared.images }),
  );
  return images;
}

/** Ends the session on both sides; what has arrived stays as baseline, whole or not. */
export async function leave(flow: TransferFlow): Promise<void> {
  const { migrationId, vmId, sourceHost, destinationHost } = flow.state.identity;
  const close = { activityId: 'close-source', summary: `${sourceHost}: end the session` };
  await onSource(sourceHost, 'courtesy', close, flow.authority)
    .closeSource({ migrationId })
    .catch(() => undefined);
  if (flow.wasInitialised) {
    const abandon = {
      activityId: 'close-destination',
      summary: `${destinationHost}: keep what has arrived as baseline`,
    };
    await onDestination(destinationHost, 'courtesy', abandon, flow.authority)
      .abandonDestination({ migrationId, vmId, fence: 0, mode: 'warm' })
      .catch(() => undefined);
  }
  await flow.state.settle();
}
