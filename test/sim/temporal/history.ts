/**
 * The history of a run: what happened and what its code answered, workflow task by workflow task. Says what is still open
 * after it, what a reset keeps of it, and whether a replay answers the same.
 */
import { type Command, type commonSdk, milliseconds, type ScheduleActivity } from './sdk';
import type { HistoryEntry, Input } from './types';

/** One completed workflow task. */
export interface Batch {
  readonly inputs: readonly Input[];
  readonly commands: readonly Command[];
  readonly atMs: number;
  /** As it left them. */
  readonly searchAttributes: commonSdk.TypedSearchAttributes;
}

export interface Fork {
  readonly retained: readonly Batch[];
  readonly pending: readonly Input[];
}

export interface OpenWork {
  readonly activities: readonly { readonly command: ScheduleActivity; readonly cancelRequested: boolean }[];
  readonly timers: readonly { readonly seq: number; readonly dueMs: number }[];
}

export function entriesOf(inputs: readonly Input[]): HistoryEntry[] {
  return inputs.flatMap((input) => {
    if (input.kind !== 'activity') return [];
    const { activityId, type, outcome } = input;
    return [
      {
        activityId,
        type,
        outcome: outcome.kind,
        ...(outcome.kind !== 'completed' && {
          failure: outcome.failure.cause?.applicationFailureInfo?.type ?? outcome.failure.cause?.message ?? '',
        }),
      },
    ];
  });
}

/**
 * What a reset keeps: all up to the k-th result of an activity. The workflow task in which the workflow saw it is carried
 * out anew. As the real server does, messages that came later are given to the new run too, unless `reapply` is false.
 */
export function forkAt(batches: readonly Batch[], pending: readonly Input[], k: number, reapply: boolean): Fork {
  // An update that no workflow task has accepted is in no history.
  const all = [...batches.map(({ inputs }) => inputs), pending.filter(({ kind }) => kind !== 'update')];
  let left = k;
  for (const [number, inputs] of all.entries()) {
    const cut = cutOf(inputs, left);
    if (cut === undefined) {
      left -= inputs.filter(({ kind }) => kind === 'activity').length;
      continue;
    }
    const later = [...inputs.slice(cut), ...all.slice(number + 1).flat()].filter(
      ({ kind }) => kind === 'signal' || kind === 'update' || kind === 'cancel',
    );
    return { retained: batches.slice(0, number), pending: [...inputs.slice(0, cut), ...(reapply ? later : [])] };
  }
  throw new RangeError(`No run has had ${k} results`);
}

function cutOf(inputs: readonly Input[], k: number): number | undefined {
  if (k === 0) return 1;
  let left = k;
  for (const [at, { kind }] of inputs.entries()) if (kind === 'activity' && --left === 0) return at + 1;
  return undefined;
}

/** What has been asked for and has not ended, by what is kept of a history. */
export function openWork({ retained, pending }: Fork): OpenWork {
  const activities = new Map<number, { command: ScheduleActivity; cancelRequested: boolean }>();
  const timers = new Map<number, { seq: number; dueMs: number }>();
  for (const { inputs, commands, atMs } of [...retained, { inputs: pending, commands: [] as Command[], atMs: 0 }]) {
    for (const input of inputs) {
      if (input.kind === 'activity') activities.delete(input.seq);
      if (input.kind === 'timer') timers.delete(input.seq);
    }
    for (const { scheduleActivity, requestCancelActivity, startTimer, cancelTimer } of commands) {
      if (scheduleActivity)
        activities.set(scheduleActivity.seq ?? 0, { command: scheduleActivity, cancelRequested: false });
      const cancelled = activities.get(requestCancelActivity?.seq ?? 0);
      if (cancelled) cancelled.cancelRequested = true;
      if (startTimer)
        timers.set(startTimer.seq ?? 0, {
          seq: startTimer.seq ?? 0,
          dueMs: atMs + milliseconds(startTimer.startToFireTimeout),
        });
      if (cancelTimer) timers.delete(cancelTimer.seq ?? 0);
    }
  }
  return { activities: [...activities.values()], timers: [...timers.values()] };
}

/** @throws where a replay answers otherwise than the history: the workflow's code is not deterministic */
export function assertSame(workflowId: string, recorded: readonly Command[], replayed: readonly Command[]): void {
  const before = recorded.flatMap(nameOf);
  const now = replayed.flatMap(nameOf);
  if (before.length === now.length && before.every((name, at) => name === now[at])) return;
  throw new Error(
    `${workflowId} does not replay. Its history has: ${before.join('; ')}. Its code now: ${now.join('; ')}`,
  );
}

/** What the real core compares of a command. Answers to updates are none of it. */
function nameOf({
  scheduleActivity,
  requestCancelActivity,
  startTimer,
  cancelTimer,
  startChildWorkflowExecution,
  ...rest
}: Command): string[] {
  if (scheduleActivity)
    return [
      `activity ${scheduleActivity.seq ?? 0} ${scheduleActivity.activityType ?? ''} ` +
        `${scheduleActivity.activityId ?? ''} on ${scheduleActivity.taskQueue ?? ''}`,
    ];
  if (requestCancelActivity) return [`cancel activity ${requestCancelActivity.seq ?? 0}`];
  if (startTimer) return [`timer ${startTimer.seq ?? 0}`];
  if (cancelTimer) return [`cancel timer ${cancelTimer.seq ?? 0}`];
  if (startChildWorkflowExecution)
    return [`child ${startChildWorkflowExecution.seq ?? 0} ${startChildWorkflowExecution.workflowId ?? ''}`];
  if (rest.updateResponse) return [];
  return Object.keys(rest).filter((name) => name !== 'eventGroupMarkers' && name !== 'userMetadata');
}
