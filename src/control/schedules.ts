/**
 * The schedules of DWCP, declared here and brought to the server idempotently: created where they are missing, replaced
 * where they differ, an operator's pause left as it is. Traps behind the form: temporal.md section 3.
 */
import { type Client, ScheduleAlreadyRunning, ScheduleNotFoundError, ScheduleOverlapPolicy, type ScheduleOptions } from '@temporalio/client';
import type { MigrationRequest } from '../model/migration';
import { CONTROL_QUEUE, warmWorkflowId, WORKFLOWS } from '../model/names';

const MANAGED_BY = 'dwcp';

export function declaredSchedules(pruneIntervalMs: number): ScheduleOptions[] {
  return [
    {
      scheduleId: 'dwcp-prune-baselines',
      spec: { intervals: [{ every: pruneIntervalMs }], jitter: Math.round(pruneIntervalMs / 10) },
      action: {
        type: 'startWorkflow',
        workflowType: WORKFLOWS.pruneBaselines,
        workflowId: 'prune-baselines',
        taskQueue: CONTROL_QUEUE,
        args: [{ hosts: [], limitBytes: 0 }],
        staticSummary: 'Keep baselines within each host’s limit',
      },
      policies: { overlap: ScheduleOverlapPolicy.SKIP, catchupWindow: '1h' },
      memo: { managedBy: MANAGED_BY },
    },
  ];
}

export function dictionaryScheduleId(vmType: string): string {
  return `dwcp-dictionary-${vmType}`;
}

/** @param hosts none: all that migrations have named, at each run */
export function dictionarySchedule(vmType: string, hosts: readonly string[], everyMs: number): ScheduleOptions {
  return {
    scheduleId: dictionaryScheduleId(vmType),
    spec: { intervals: [{ every: everyMs }], jitter: Math.round(everyMs / 10) },
    action: {
      type: 'startWorkflow', workflowType: WORKFLOWS.trainDictionary, workflowId: `train-dictionary:${vmType}`, taskQueue: CONTROL_QUEUE, args: [{ vmType, hosts: [...hosts] }],
      staticSummary: `New samples of ${vmType} VMs, a new dictionary where it gains`,
    },
    policies: { overlap: ScheduleOverlapPolicy.SKIP, catchupWindow: '1h' },
    memo: { managedBy: MANAGED_BY },
  };
}

export function warmScheduleId(vmId: string, destinationHost: string): string {
  return `dwcp-warm-${vmId}-${destinationHost}`;
}

/** Keeps a baseline close to what the VM is. */
export function warmSchedule(request: MigrationRequest, everyMs: number): ScheduleOptions {
  const { vmId, destinationHost } = request;
  return {
    scheduleId: warmScheduleId(vmId, destinationHost),
    spec: { intervals: [{ every: everyMs }], jitter: Math.round(everyMs / 10) },
    action: {
      type: 'startWorkflow', workflowType: WORKFLOWS.warmBaseline, workflowId: warmWorkflowId(vmId, destinationHost), taskQueue: CONTROL_QUEUE, args: [request],
      staticSummary: `Bring the baseline of ${vmId} on ${destinationHost} up to date`,
    },
    policies: { overlap: ScheduleOverlapPolicy.SKIP, catchupWindow: '10m' },
    memo: { managedBy: MANAGED_BY },
  };
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
export async function ensureSchedules(client: Client, schedules: readonly ScheduleOptions[]): Promise<Record<string, 'created' | 'updated'>> {
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
