/**
 * Where a migration's time goes: its activities, from the workflow's history, each with the moment it was asked for, taken and
 * done, in milliseconds since the request.
 */
import { migrationWorkflowId } from '../src/model/names';
import { say } from './report';
import type { Stage } from './stage';

export async function traceSteps(stage: Stage, vmId: string, startedAtMs: number): Promise<void> {
  const { events = [] } = await stage.client.workflow.getHandle(migrationWorkflowId(vmId)).fetchHistory();
  const at = (time: { seconds?: unknown; nanos?: number | null } | null | undefined): number =>
    Math.round(Number(time?.seconds ?? 0) * 1000 + (time?.nanos ?? 0) / 1e6 - startedAtMs);
  const scheduled = new Map<string, { name: string; at: number; taken?: number }>();
  for (const event of events ?? []) {
    const asked = event.activityTaskScheduledEventAttributes;
    const taken = event.activityTaskStartedEventAttributes;
    const done = event.activityTaskCompletedEventAttributes;
    if (asked) scheduled.set(String(event.eventId), { name: asked.activityId ?? '', at: at(event.eventTime) });
    if (taken) Object.assign(scheduled.get(String(taken.scheduledEventId)) ?? {}, { taken: at(event.eventTime) });
    const step = done && scheduled.get(String(done.scheduledEventId));
    if (step)
      say(`    ${step.name.padEnd(24)} asked ${step.at}, taken ${step.taken ?? 0}, done ${at(event.eventTime)}`);
  }
}
