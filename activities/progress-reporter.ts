/**
 * Tells the workflow how far an image is, for its current details in the Temporal UI: a signal every tenth of the way,
 * at most eleven an image, so that history stays small. The live view reads heartbeats, not this.
 */
import { activityInfo } from '@temporalio/activity';
import type { Client } from '@temporalio/client';
import type { ImageProgress } from '../src/model/migration';
import { MESSAGES } from '../src/model/names';

export type ProgressReporter = (progress: ImageProgress) => void;

const STEPS = 10;

export function createProgressReporter(client: Client): ProgressReporter {
  const reported = new Map<string, number>();
  return (progress) => {
    const { workflowExecution } = activityInfo();
    if (!workflowExecution) return;
    const { workflowId, runId } = workflowExecution;
    const step = Math.floor((progress.doneBytes / progress.totalBytes) * STEPS);
    const key = `${runId}/${progress.imageId}`;
    if ((reported.get(key) ?? -1) >= step) return;
    reported.delete(key);
    reported.set(key, step);
    for (const oldest of reported.keys()) {
      if (reported.size <= 256) break;
      reported.delete(oldest);
    }
    // A lost report costs a line in the UI, nothing else.
    client.workflow
      .getHandle(workflowId, runId)
      .signal(MESSAGES.reportProgress, progress)
      .catch(() => undefined);
  };
}
