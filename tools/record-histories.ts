/**
 * `npm run record-histories`: runs migrations of every kind on a real server and keeps their histories for test/replay.
 * To be run when a workflow gains a path, never to make a replay pass that a change has broken for open migrations.
 */
import { randomBytes } from 'node:crypto';
import { mkdirSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { historyToJSON } from '@temporalio/common/lib/proto-utils';
import { say } from '../bench/report';
import { Stage } from '../bench/stage';
import type { MigrationStatus } from '../src/control/migration-status';
import { declaredSchedules, ensureSchedules } from '../src/control/schedules';
import { migrationWorkflowId, warmWorkflowId } from '../src/model/names';

const FOLDER = join(__dirname, '..', '..', 'test', 'fixtures', 'histories');
const IMAGE_BYTES = 4 * 1024 * 1024;

async function main(): Promise<void> {
  const stage = new Stage({ name: 'histories' });
  mkdirSync(FOLDER, { recursive: true });

  const record = async (name: string, workflowId: string): Promise<void> => {
    const history = await stage.client.workflow.getHandle(workflowId).fetchHistory();
    writeFileSync(join(FOLDER, `${name}.json`), historyToJSON(history));
    say(`${name}: ${history.events?.length ?? 0} events`);
  };
  const define = async (vmId: string): Promise<string> => {
    const path = join(stage.folder, `${vmId}.img`);
    writeFileSync(path, randomBytes(IMAGE_BYTES));
    await stage.defineVm(vmId, stage.a, [{ imageId: 'vda', kind: 'disk', path }]);
    return path;
  };
  const until = async (id: string, holds: (status: MigrationStatus) => boolean): Promise<void> => {
    while (!holds(await stage.orchestrator.getMigrationStatus(id)))
      await new Promise((resolve) => setTimeout(resolve, 100));
  };

  try {
    await stage.start();
    await define('moves');
    await stage.migrate('moves', stage.a, stage.b, {});
    await record('completed', migrationWorkflowId('moves'));
    await stage.migrate('moves', stage.b, stage.a, {});
    await record('completed-onto-baseline', migrationWorkflowId('moves'));

    await define('plain');
    await stage.migrate('plain', stage.a, stage.b, { enableDwcp: false });
    await record('completed-standard', migrationWorkflowId('plain'));

    await define('warms');
    await stage.orchestrator.waitForResult(
      await stage.orchestrator.warmBaseline('warms', stage.a.hostId, stage.b.hostId),
    );
    await record('warmed', warmWorkflowId('warms', stage.b.hostId));

    await define('stops');
    const cancelled = await stage.orchestrator.migrateVm('stops', stage.a.hostId, stage.b.hostId, {
      bandwidthLimit: 200_000,
    });
    await until(cancelled, ({ progress }) => progress?.phase === 'transfer');
    await stage.orchestrator.setBandwidthLimit(cancelled, 300_000);
    await stage.orchestrator.cancelMigration(cancelled);
    await stage.orchestrator.waitForResult(cancelled).catch(() => undefined);
    await record('cancelled', migrationWorkflowId('stops'));

    const path = await define('parks');
    renameSync(path, `${path}.away`);
    const parked = await stage.orchestrator.migrateVm('parks', stage.a.hostId, stage.b.hostId);
    await until(parked, ({ progress }) => progress?.parked !== undefined);
    renameSync(`${path}.away`, path);
    await stage.orchestrator.retryMigration(parked, 'the image is back');
    await stage.orchestrator.waitForResult(parked);
    await record('parked-and-retried', migrationWorkflowId('parks'));

    await ensureSchedules(stage.client, declaredSchedules(3_600_000));
    const schedule = stage.client.schedule.getHandle('dwcp-prune-baselines');
    await schedule.trigger();
    let pruned: string | undefined;
    while (pruned === undefined) {
      await new Promise((resolve) => setTimeout(resolve, 200));
      pruned = (await schedule.describe()).info.recentActions[0]?.action.workflow.workflowId;
    }
    await stage.client.workflow.getHandle(pruned).result();
    await record('pruned', pruned);

    await stage.restartAgent(stage.b, ['--accept-dwcp', 'false']);
    await define('falls-back');
    await stage.migrate('falls-back', stage.a, stage.b, {});
    await record('completed-fallback', migrationWorkflowId('falls-back'));
  } finally {
    await stage.stop();
  }
}

main().then(
  () => process.exit(),
  (error: unknown) => {
    process.stderr.write(`${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`);
    process.exit(1);
  },
);
