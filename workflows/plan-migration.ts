/**
 * The plan alone: what a migration would send and take, found out as a migration would, without claiming the VM and
 * without sending content. `dwcp plan`.
 */
import { CancellationScope } from '@temporalio/workflow';
import type { MigrationRequest } from '../src/model/migration';
import type { PlanResult } from '../src/model/plan';
import { failWith, toCoded } from './failures';
import { begin } from './start';
import { leave } from './warm-baseline';

export async function planMigration(argument: MigrationRequest): Promise<PlanResult> {
  const { flow, state, scope, startedAtMs } = begin(argument, 'plan');
  try {
    return await scope.run(async () => {
      await flow.prepare('look');
      await flow.initialiseAmst();
      await flow.establishStreams();
      const link = await flow.detectTier();
      const start = flow.selectLevel(link);
      await flow.checkBaselines();
      const plan = await flow.computePlan(link, start, (Date.now() - startedAtMs) / 1000);
      state.enter('closed');
      return { plan, link, start };
    });
  } catch (error) {
    throw failWith(toCoded(error));
  } finally {
    await CancellationScope.nonCancellable(() => leave(flow));
  }
}
