/**
 * The end of a migration that went well: its result, its place in the statistics, and the copies that make the way back
 * cheap, which go on after the migration is done.
 */
import { ParentClosePolicy, startChild } from '@temporalio/workflow';
import type { Outcome } from '../activities';
import type { DwcpError } from '../src/model/errors';
import type { GuestResult } from '../src/model/guest';
import type { ImageResult, MigrationResult } from '../src/model/migration';
import { keepBaselinesWorkflowId } from '../src/model/names';
import { assembleResult } from '../src/model/result';
import { onControl } from './activity-proxies';
import { keepBaselines } from './keep-baselines';
import type { TransferFlow } from './transfer-flow';

export function completed(
  flow: TransferFlow,
  images: readonly ImageResult[],
  startedAtMs: number,
  fallbackReason: DwcpError | undefined,
  guest?: GuestResult,
): MigrationResult {
  const { state, options, link, consoles } = flow;
  return assembleResult({
    identity: state.identity,
    path: state.path,
    images,
    options,
    consoles,
    totalSeconds: (Date.now() - startedAtMs) / 1000,
    ...(guest && { guest }),
    ...(fallbackReason && { fallbackReason: fallbackReason.report() }),
    ...(link && { link }),
    ...(state.tier && { tier: state.tier }),
    ...(state.plan && { plan: state.plan }),
  });
}

export async function keepCopiesBeside(flow: TransferFlow, images: readonly ImageResult[]): Promise<void> {
  const { vmId, migrationId, destinationHost } = flow.state.identity;
  await startChild(keepBaselines, {
    workflowId: keepBaselinesWorkflowId(migrationId),
    args: [{ vmId, hostId: destinationHost, imageIds: images.map((image) => image.imageId) }],
    parentClosePolicy: ParentClosePolicy.ABANDON,
    staticSummary: `${destinationHost}: copies of ${vmId} for deltas on the way back`,
  }).catch(() => undefined);
}

export async function recordOutcome(
  flow: TransferFlow,
  outcome: Outcome['outcome'],
  speedup: number,
  startedAtMs: number,
  fallbackReason: DwcpError | undefined,
): Promise<void> {
  const { state } = flow;
  const totalSeconds = (Date.now() - startedAtMs) / 1000;
  await onControl({ activityId: 'record-outcome', summary: `Count it: ${outcome}` })
    .recordOutcome({
      migrationId: state.identity.migrationId,
      outcome,
      path: state.path,
      speedup,
      totalSeconds,
      ...(fallbackReason && { fallbackReason: fallbackReason.code }),
    })
    .catch(() => undefined);
}
