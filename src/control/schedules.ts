/**
 * The schedules of DWCP, declared here and brought to the server idempotently: created where they are missing, replaced
 * where they differ, an operator's pause left as it is. Traps behind the form: temporal.md section 3.
 */
import { type Client, ScheduleAlreadyRunning, ScheduleOverlapPolicy, type ScheduleOptions } from '@temporalio/client';
import { CONTROL_QUEUE, WORKFLOWS } from '../model/names';

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
