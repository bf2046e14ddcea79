/**
 * Heartbeats over the whole length of an activity, whatever it is doing: one tick, one small object. They are the
 * operator's progress display and how a cancel arrives; nothing resumes from them.
 */
import { activityInfo, cancellationSignal, heartbeat } from '@temporalio/activity';
import type { z } from 'zod';
import { HEARTBEAT_TICK_MS } from '../src/model/timing';

/** Runs `work` with a heartbeat each tick. `details` gives what the operator sees. */
export async function withHeartbeat<T>(details: () => unknown, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  heartbeat(details());
  const timer = setInterval(() => heartbeat(details()), HEARTBEAT_TICK_MS);
  try {
    return await work(cancellationSignal());
  } finally {
    clearInterval(timer);
  }
}

/** What the attempt before this one last reported, if it reported anything of that shape. */
export function lastReport<T>(schema: z.ZodType<T>): T | undefined {
  const parsed = schema.safeParse(activityInfo().heartbeatDetails);
  return parsed.success ? parsed.data : undefined;
}
