/** What activities of a migration have answered, as Temporal's history has it: for those who check afterwards what hosts have said. */
import { type Client, type WorkflowHandle, WorkflowNotFoundError } from '@temporalio/client';
import type { Payload } from '@temporalio/common';
import { DwcpError } from '../model/errors';
import { migrationWorkflowId } from '../model/names';
import { ofServer } from './connection';

/** Of all runs of the migration. @throws MIGRATION_UNKNOWN; PAYLOAD_UNREADABLE where the key file does not open them */
export async function answersOf(client: Client, migrationId: string): Promise<unknown[]> {
  const answers: unknown[] = [];
  for (const handle of await runsOf(client, migrationId)) {
    const { events } = await handle.fetchHistory();
    for (const event of events ?? []) {
      const { payloads } = event.activityTaskCompletedEventAttributes?.result ?? {};
      const answer = payloads && (await decoded(client, payloads));
      if (answer !== undefined) answers.push(answer);
    }
  }
  return answers;
}

/** Visibility takes a moment to know of one: by a VM's name its newest is found at once. */
async function runsOf(client: Client, migrationId: string): Promise<WorkflowHandle[]> {
  try {
    const runs: WorkflowHandle[] = [];
    const query = `MigrationId = "${migrationId.replaceAll('"', '')}"`;
    for await (const { workflowId, runId } of client.workflow.list({ query }))
      runs.push(client.workflow.getHandle(workflowId, runId));
    if (runs.length > 0) return runs;
    const handle = client.workflow.getHandle(migrationWorkflowId(migrationId));
    await handle.describe();
    return [handle];
  } catch (error) {
    if (error instanceof WorkflowNotFoundError)
      throw new DwcpError('MIGRATION_UNKNOWN', `No migration ${migrationId} is known`);
    throw ofServer(error);
  }
}

async function decoded(client: Client, encoded: readonly Payload[]): Promise<unknown> {
  let payloads = [...encoded].slice(0, 1);
  for (const codec of client.options.loadedDataConverter.payloadCodecs.toReversed())
    payloads = await codec.decode(payloads);
  try {
    return JSON.parse(Buffer.from(payloads[0]?.data ?? []).toString('utf8'));
  } catch {
    // Nothing, or bytes: no answer of ours that says more.
    return undefined;
  }
}
