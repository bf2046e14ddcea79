/**
 * The commands that start and steer migrations: plan, migrate, warm, status, cancel, retry, limit, metrics, link, connect.
 */
import { randomUUID } from 'node:crypto';
import type { Command } from 'commander';
import { signRequest } from '../../control/issuer';
import { createOrchestrator, type Orchestrator } from '../../control/orchestrator';
import { ensureSchedules, removeSchedule, warmSchedule, warmScheduleId } from '../../control/schedules';
import { DwcpError } from '../../model/errors';
import type { SurveyResult } from '../../model/link-survey';
import { type MigrationRequest, migrationRequestSchema } from '../../model/migration';
import { connectWorkflowId, OWN_WORKFLOWS, planWorkflowId, surveyWorkflowId } from '../../model/names';
import { MIGRATION_OPTIONS } from '../../model/options';
import type { PlanResult } from '../../model/plan';
import {
  formatBitRate,
  formatBytes,
  formatDuration,
  parseDurationMs,
  parseRateBytesPerSecond,
} from '../../model/units';
import { TrustFolder, trustFolderOf } from '../../trust/trust-folder';
import { encodingsText } from '../encodings';
import { executeWorkflow, payloadKeyFileOf, withClient } from '../execute-workflow';
import { type Flags, outputOf, withGlobals } from '../flags';
import { follow, levelLines, resultText, statusLines } from '../follow';
import { table } from '../output';
import { planText, surveyText } from '../plan-text';
import { addOptions, migrationOptions, processOptions, scheduledEveryMs } from '../settings';

/** Whose key signs what is asked for. */
function trustDirOf(command: Command): string {
  return trustFolderOf(processOptions(withGlobals({}, command)));
}

async function withOrchestrator<T>(command: Command, run: (orchestrator: Orchestrator) => Promise<T>): Promise<T> {
  const orchestrator = await createOrchestrator({
    trustDir: trustDirOf(command),
    payloadKeyFile: payloadKeyFileOf(command),
  });
  try {
    return await run(orchestrator);
  } finally {
    await orchestrator.close();
  }
}

export function addMigrationCommands(program: Command): void {
  const moving = (name: string, description: string): Command =>
    addOptions(
      program
        .command(name)
        .description(description)
        .argument('<vm>', 'the VM')
        .argument('<source>', 'host it is on')
        .argument('<destination>', 'host it goes to'),
      MIGRATION_OPTIONS,
    );

  moving('migrate', 'Move a VM; follows it by default')
    .option('--migration-id <id>', 'name of this migration; the same name again is the same request')
    .option('--detach', 'start it, print its id, do not follow')
    .option('--until-parked', 'end with exit code 6 when it waits for an operator')
    .action(async (vm: string, source: string, destination: string, flags: Flags, command: Command) => {
      const output = outputOf(command);
      const options = {
        ...migrationOptions(withGlobals(flags, command)),
        ...(typeof flags.migrationId === 'string' && { migrationId: flags.migrationId }),
      };
      await withOrchestrator(command, async (orchestrator) => {
        const migrationId = await orchestrator.migrateVm(vm, source, destination, options);
        output.emit({ event: 'started', migrationId }, () => `migration ${migrationId}`);
        if (flags.detach === true) return;
        const result = await follow(orchestrator, migrationId, output, { untilParked: flags.untilParked === true });
        output.emit({ event: 'result', ok: true, ...result }, () => resultText(result));
      });
    });

  moving('warm', 'Bring the destination’s baseline up to date, without moving the VM')
    .option('--schedule <duration>', 'do it again and again, such as 6h; the same again changes the schedule')
    .option('--unschedule', 'take that schedule away')
    .action(async (vm: string, source: string, destination: string, flags: Flags, command: Command) => {
      const output = outputOf(command);
      const options = migrationOptions(withGlobals(flags, command));
      if (flags.schedule !== undefined || flags.unschedule === true)
        return scheduleWarmUps(
          { schemaVersion: 1, vmId: vm, sourceHost: source, destinationHost: destination, options },
          flags,
          command,
        );
      await withOrchestrator(command, async (orchestrator) => {
        const migrationId = await orchestrator.warmBaseline(vm, source, destination, options);
        output.emit({ event: 'started', migrationId }, () => `warm-up ${migrationId}`);
        const result = await follow(orchestrator, migrationId, output);
        output.emit(
          { event: 'result', ok: true, ...result },
          () =>
            `${result.destinationHost} holds ${result.vmId} as of now: ${formatBytes(result.linkBytes)} sent for ` +
            formatBytes(result.totalBytes),
        );
      });
    });

  moving('plan', 'Say what a migration would send and take, without sending content').action(
    async (vm: string, source: string, destination: string, flags: Flags, command: Command) => {
      const identity = { vmId: vm, sourceHost: source, destinationHost: destination, migrationId: randomUUID() };
      const trust = TrustFolder.find(trustDirOf(command));
      const authorisation = signRequest(trust, { mode: 'plan', ...identity });
      const request = {
        schemaVersion: 1,
        ...identity,
        options: migrationOptions(withGlobals(flags, command)),
        ...(authorisation !== undefined && { authorisation }),
      };
      const result = await executeWorkflow<PlanResult>(
        command,
        OWN_WORKFLOWS.planMigration,
        planWorkflowId(vm, randomUUID()),
        request,
      );
      outputOf(command).emit({ event: 'plan', vmId: vm, ...result }, () => planText(result));
    },
  );

  program
    .command('status')
    .description('Show a migration, or all of late; follows one with --follow')
    .argument('[migration]', 'migration id, or VM')
    .option('--follow', 'live view until it ends')
    .option('--encodings', 'where the bytes went, by encoding; while it runs, why the level is what it is')
    .action(async (migration: string | undefined, flags: Flags, command: Command) => {
      const output = outputOf(command);
      await withOrchestrator(command, async (orchestrator) => {
        if (migration === undefined) {
          for (const status of await orchestrator.listMigrations()) {
            const { result, error } = status;
            const end = result
              ? `${formatBytes(result.totalBytes)} in ${formatDuration(result.totalSeconds * 1000)}`
              : error
                ? `${error.code}: ${error.message}`
                : '';
            output.emit(
              { event: 'status', ...status, error: error?.report() },
              () =>
                `${status.migrationId}  ${status.state.padEnd(10)} ` +
                (status.progress ? statusLines(status).join('\n') : `${result?.vmId ?? status.workflowId} ${end}`),
            );
          }
          return;
        }
        if (flags.follow === true) {
          const result = await follow(orchestrator, migration, output);
          output.emit({ event: 'result', ok: true, ...result }, () => resultText(result));
          return;
        }
        const status = await orchestrator.getMigrationStatus(migration);
        output.emit({ event: 'status', ...status, error: status.error?.report() }, () => {
          if (status.result) return flags.encodings === true ? encodingsText(status.result) : resultText(status.result);
          return status.error
            ? `${status.migrationId}: ${status.state}: ${status.error.code}: ${status.error.message}`
            : [...statusLines(status), ...(flags.encodings === true ? levelLines(status) : [])].join('\n');
        });
      });
    });

  const steering = (name: string, description: string): Command =>
    program.command(name).description(description).argument('<migration>', 'migration id, or VM');

  steering('cancel', 'Roll a migration back; behind the point of no return it completes forward')
    .option(
      '--accept-two-copies',
      'only where a hand-over is in doubt: take the VM back although the destination may run it',
    )
    .action(async (migration: string, flags: Flags, command: Command) => {
      await withOrchestrator(command, async (orchestrator) => {
        const { progress } = await orchestrator.getMigrationStatus(migration);
        if (progress?.parked)
          await orchestrator.abortMigration(migration, 'dwcp cancel', flags.acceptTwoCopies === true);
        else await orchestrator.cancelMigration(migration);
        outputOf(command).emit(
          { event: 'cancel', migration },
          () => `asked ${migration} to roll back; \`dwcp status ${migration}\` shows how it ends`,
        );
      });
    });

  steering('retry', 'Parked: try the step again, after its cause has been mended')
    .option('--note <text>', 'kept in the workflow’s history')
    .option('--max-downtime <duration>', 'a guest that does not converge: allow this pause, such as 5s')
    .option('--auto-converge', 'a guest that does not converge: slow it down')
    .action(async (migration: string, flags: Flags, command: Command) => {
      const written = flags.maxDowntime as string | undefined;
      const maxDowntimeMs = written === undefined ? undefined : parseDurationMs(written);
      if (written !== undefined && maxDowntimeMs === undefined)
        throw new DwcpError('INVALID_INPUT', `--max-downtime takes a duration such as 5s, not "${written}"`);
      const changed = {
        ...(maxDowntimeMs !== undefined && { maxDowntimeMs }),
        ...(flags.autoConverge === true && { autoConverge: true }),
      };
      await withOrchestrator(command, (orchestrator) =>
        orchestrator.retryMigration(migration, typeof flags.note === 'string' ? flags.note : undefined, changed),
      );
      outputOf(command).emit({ event: 'retry', migration }, () => `${migration} tries again`);
    });

  steering('limit', 'Change the bandwidth limit of a running migration')
    .argument('<rate>', 'such as 50MB/s; 0 takes it off')
    .action(async (migration: string, rate: string, _flags: Flags, command: Command) => {
      const bytesPerSecond = parseRateBytesPerSecond(rate);
      if (bytesPerSecond === undefined)
        throw new DwcpError('INVALID_INPUT', `A rate is such as 50MB/s or 400mbit, not "${rate}"`);
      await withOrchestrator(command, (orchestrator) => orchestrator.setBandwidthLimit(migration, bytesPerSecond));
      outputOf(command).emit(
        { event: 'limit', migration, bytesPerSecond },
        () => `${migration}: ${bytesPerSecond === 0 ? 'no limit' : formatBitRate(bytesPerSecond)}`,
      );
    });

  program
    .command('metrics')
    .description('Speedup, fallback rate, streams, ratio and delta hits of recent migrations')
    .action(async (_flags: Flags, command: Command) => {
      const metrics = await withOrchestrator(command, (orchestrator) => orchestrator.getMetrics());
      outputOf(command).emit({ event: 'metrics', ...metrics }, () =>
        table([
          ['migrations', `${metrics.migrations_total} (${metrics.migrations_running} running)`],
          ['dwcp_speedup', metrics.dwcp_speedup.toFixed(2)],
          [
            'fallback_rate',
            `${metrics.fallback_rate.toFixed(3)} ${Object.entries(metrics.fallback_reasons)
              .map(([code, count]) => `${code} ${count}`)
              .join(', ')}`,
          ],
          ['amst.active_streams', String(metrics.adapter_metrics.amst.active_streams)],
          ['amst.chunk_size', formatBytes(metrics.adapter_metrics.amst.chunk_size)],
          ['hde.compression_ratio', metrics.adapter_metrics.hde.compression_ratio.toFixed(2)],
          ['hde.delta_hit_rate', metrics.adapter_metrics.hde.delta_hit_rate.toFixed(3)],
        ]),
      );
    });

  const between = (name: string, description: string): Command =>
    program
      .command(name)
      .description(description)
      .argument('<source>', 'host that will send')
      .argument('<destination>', 'host that will receive');

  between('link', 'Measure the path between two hosts, and say what a migration would start with')
    .option('--streams <count>', 'streams to measure beside a single one', '16')
    .option('--seconds <count>', 'time for each measurement', '5')
    .action(async (source: string, destination: string, flags: Flags, command: Command) => {
      const survey = await executeWorkflow<SurveyResult>(
        command,
        OWN_WORKFLOWS.surveyLink,
        surveyWorkflowId(source, destination),
        {
          sourceHost: source,
          destinationHost: destination,
          streams: Number(flags.streams),
          seconds: Number(flags.seconds),
        },
      );
      outputOf(command).emit({ event: 'link', source, destination, ...survey }, () => surveyText(survey));
    });

  between('connect', 'Establish streams between two hosts ahead of the next migration')
    .option('--streams <count>', 'streams to have ready', '17')
    .action(async (source: string, destination: string, flags: Flags, command: Command) => {
      const { idle } = await executeWorkflow<{ idle: number }>(
        command,
        OWN_WORKFLOWS.connectHosts,
        connectWorkflowId(source, destination),
        { sourceHost: source, destinationHost: destination, streams: Number(flags.streams) },
      );
      outputOf(command).emit(
        { event: 'connect', source, destination, idle },
        () => `${source} → ${destination}: ${idle} connections ready`,
      );
    });
}

async function scheduleWarmUps(request: MigrationRequest, flags: Flags, command: Command): Promise<void> {
  const output = outputOf(command);
  const id = warmScheduleId(request.vmId, request.destinationHost);
  if (flags.unschedule === true) {
    await withClient(command, (client) => removeSchedule(client, id));
    output.emit({ event: 'schedule', schedule: id, everyMs: 0 }, () => `${id} is gone`);
    return;
  }
  const everyMs = scheduledEveryMs('--schedule', flags.schedule);
  await withClient(command, (client) =>
    ensureSchedules(client, [warmSchedule(migrationRequestSchema.parse(request), everyMs)]),
  );
  output.emit({ event: 'schedule', schedule: id, everyMs }, () => `${id}: every ${formatDuration(everyMs)}`);
}
