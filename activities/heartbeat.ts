/**
 * Heartbeats over the whole length of an activity, whatever it is doing: one tick, one small object. They are the
 * operator's progress display and how a cancel arrives; nothing resumes from them.
 */
import { activityInfo, cancellationSignal, heartbeat } from '@temporalio/activity';
import type { z } from 'zod';
import { messageOf } from '../src/model/errors';
import { HEARTBEAT_TICK_MS } from '../src/model/timing';

/**
 * Runs `work` with a heartbeat each tick. `details` gives what the operator sees. Where it throws the beat goes on with what
 * it said last: in a timer it would end the agent, and without a beat Temporal would take the work away.
 */
export async function withHeartbeat<T>(details: () => unknown, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  let last: unknown;
  const beat = (): void => {
    try {
      last = details();
    } catch (error) {
      last ??= { doing: `working; what exactly cannot be told: ${messageOf(error)}` };
    }
    heartbeat(last);
  };
  beat();
  const timer = setInterval(beat, HEARTBEAT_TICK_MS);
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
