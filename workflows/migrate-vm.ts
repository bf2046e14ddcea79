/**
 * The migration of a VM, node by node as in docs/migration-protocol.md:
 *
 *   start -> DWCP enabled? -> initialise AMST -> establish streams -> detect the tier -> select level and streams
 *         -> check baseline (each image) -> compute delta or full plan -> HDE encode + AMST transfer -> switchover -> complete
 *         else, where fallback is enabled -> standard transfer -> switchover -> complete
 *         else -> roll back, both sides cleaned up -> fail
 *
 * A cancel before the switchover rolls back; from there on the migration completes forward. A workflow that was reset finds
 * out at its start how far the hand-over had come, and goes on from there.
 */
import { CancellationScope } from '@temporalio/workflow';
import type { DwcpError } from '../src/model/errors';
import type { ImageResult, MigrationRequest, MigrationResult } from '../src/model/migration';
import type { MovedGuest } from './activity-proxies';
import { completed, keepCopiesBeside, recordOutcome } from './complete';
import { failWith, toCoded } from './failures';
import { moveGuest, moveGuestWhole } from './move-guest';
import { rollBack } from './roll-back';
import { begin } from './start';
import { goOnHandedOver, rootsOf, switchover } from './switchover';
import type { TransferFlow } from './transfer-flow';

export async function migrateVm(argument: MigrationRequest): Promise<MigrationResult> {
  const { flow, state, scope, startedAtMs } = begin(argument, 'migrate');
  let fallbackReason: DwcpError | undefined;
  let images: readonly ImageResult[] = [];
  let guest: MovedGuest | undefined;
  try {
    await scope.run(async () => {
      const { alreadyMoved, handedOver } = await flow.prepare('claim');
      if (alreadyMoved || handedOver) return;
      if (flow.options.enableDwcp) {
        try {
          if (flow.prepared.guest) guest = await moveGuest(flow);
          else images = await dwcpTransfer(flow);
          return;
        } catch (error) {
          fallbackReason = fallbackFor(error, flow);
        }
      }
      state.path = fallbackReason ? 'fallback' : 'standard';
      if (flow.prepared.guest) {
        guest = await moveGuestWhole(flow);
        return;
      }
      await flow.initialiseAmst();
      images = await flow.standardTransferImages();
    });
    await CancellationScope.nonCancellable(async () => {
      const { alreadyMoved, handedOver } = flow.prepared;
      if (handedOver) guest = await goOnHandedOver(flow, handedOver);
      else if (!guest && !alreadyMoved) await switchover(flow, rootsOf(images));
    });
  } catch (error) {
    const ended = await CancellationScope.nonCancellable(() => rollBack(flow, error));
    if (!('moved' in ended)) {
      return CancellationScope.nonCancellable(async () => {
        await recordOutcome(flow, ended.code === 'CANCELLED' ? 'cancelled' : 'failed', 0, startedAtMs, fallbackReason);
        await state.settle();
        throw failWith(ended);
      });
    }
    guest = ended.moved;
  }
  images = guest?.images ?? images;
  return CancellationScope.nonCancellable(async () => {
    state.enter('complete');
    const result = completed(flow, images, startedAtMs, fallbackReason, guest?.guest);
    await keepCopiesBeside(flow, images);
    await recordOutcome(flow, 'completed', result.speedup, startedAtMs, fallbackReason);
    state.enter('closed');
    await state.settle();
    return result;
  });
}

/** The DWCP path, from both sides' preparation to images verified at the destination. */
async function dwcpTransfer(flow: TransferFlow): Promise<readonly ImageResult[]> {
  await flow.initialiseAmst();
  await flow.establishStreams();
  const link = await flow.detectTier();
  const start = flow.selectLevel(link);
  await flow.checkBaselines();
  await flow.computePlan(link, start);
  return flow.transferImages(link, start);
}

/** The reason to take the standard transfer; rethrows where DWCP is not what failed, or fallback is off. */
function fallbackFor(error: unknown, flow: TransferFlow): DwcpError {
  const coded = toCoded(error);
  if (coded.spec.fallback && flow.options.enableFallback) return coded;
  throw error;
}
