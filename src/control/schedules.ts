/**
 * The schedules of DWCP, declared here and brought to the server idempotently: created where they are missing, replaced
 * where they differ, an operator's pause left as it is.
 */
import {
  type Client,
  ScheduleAlreadyRunning,
  ScheduleNotFoundError,
  type ScheduleOptions,
  ScheduleOverlapPolicy,
} from '@temporalio/client';
import type { MigrationRequest } from '../model/migration';
import { CONTROL_QUEUE, PRUNE_WORKFLOW_ID, trainWorkflowId, WORKFLOWS, warmWorkflowId } from '../model/names';

const MANAGED_BY = 'dwcp';

/** What every schedule of DWCP has: a tenth of jitter, never two runs at once. */
function everyMs(
  intervalMs: number,
  scheduleId: string,
  catchupWindow: '10m' | '1h',
  action: {
    readonly workflowType: string;
    readonly workflowId: string;
    readonly args: object[];
    readonly staticSummary: string;
  },
): ScheduleOptions {
  return {
    scheduleId,
    spec: { intervals: [{ every: intervalMs }], jitter: Math.round(intervalMs / 10) },
    action: { type: 'startWorkflow', taskQueue: CONTROL_QUEUE, ...action },
    policies: { overlap: ScheduleOverlapPolicy.SKIP, catchupWindow },
    memo: { managedBy: MANAGED_BY },
  };
}

export function declaredSchedules(pruneIntervalMs: number): ScheduleOptions[] {
  return [
    everyMs(pruneIntervalMs, 'dwcp-prune-baselines', '1h', {
      workflowType: WORKFLOWS.pruneBaselines,
      workflowId: PRUNE_WORKFLOW_ID,
      args: [{ hosts: [], limitBytes: 0 }],
      staticSummary: 'Keep baselines within each host’s limit',
    }),
  ];
}

export function dictionaryScheduleId(vmType: string): string {
  return `dwcp-dictionary-${vmType}`;
}

/** @param hosts none: all that migrations have named, at each run */
export function dictionarySchedule(vmType: string, hosts: readonly string[], intervalMs: number): ScheduleOptions {
  return everyMs(intervalMs, dictionaryScheduleId(vmType), '1h', {
    workflowType: WORKFLOWS.trainDictionary,
    workflowId: trainWorkflowId(vmType),
    args: [{ vmType, hosts: [...hosts] }],
    staticSummary: `New samples of ${vmType} VMs, a new dictionary where it gains`,
  });
}

export function warmScheduleId(vmId: string, destinationHost: string): string {
  return `dwcp-warm-${vmId}-${destinationHost}`;
}

/** Keeps a baseline close to what the VM is. */
export function warmSchedule(request: MigrationRequest, intervalMs: number): ScheduleOptions {
  const { vmId, destinationHost } = request;
  return everyMs(intervalMs, warmScheduleId(vmId, destinationHost), '10m', {
    workflowType: WORKFLOWS.warmBaseline,
    workflowId: warmWorkflowId(vmId, destinationHost),
    args: [request],
    staticSummary: `Bring the baseline of ${vmId} on ${destinationHost} up to date`,
  });
}

/** A schedule that is not there is gone already. */
export async function removeSchedule(client: Client, scheduleId: string): Promise<void> {
  try {
    await client.schedule.getHandle(scheduleId).delete();
  } catch (error) {
    if (!(error instanceof ScheduleNotFoundError)) throw error;
  }
}

/** @returns what was done to each schedule */
export async function ensureSchedules(
  client: Client,
  schedules: readonly ScheduleOptions[],
): Promise<Record<string, 'created' | 'updated'>> {
  const done: Record<string, 'created' | 'updated'> = {};
  for (const desired of schedules) done[desired.scheduleId] = await ensureSchedule(client, desired);
  return done;
}

async function ensureSchedule(client: Client, desired: ScheduleOptions): Promise<'created' | 'updated'> {
  try {
    await client.schedule.create(desired);
    return 'created';
  } catch (error) {
    if (!(error instanceof ScheduleAlreadyRunning)) throw error;
    // The spec is replaced as a whole: the server keeps it in another form, and merging would add to it.
    await client.schedule.getHandle(desired.scheduleId).update((known) => ({
      spec: desired.spec,
      action: desired.action,
      ...(desired.policies && { policies: desired.policies }),
      state: {
        paused: known.state.paused,
        ...(known.state.note !== undefined && { note: known.state.note }),
        ...(known.state.remainingActions !== undefined && { remainingActions: known.state.remainingActions }),
      },
    }));
    return 'updated';
  }
}
