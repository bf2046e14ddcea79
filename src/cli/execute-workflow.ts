/** A client for commands that speak with the Temporal server themselves, and workflows that they wait for. */
import type { Client } from '@temporalio/client';
import { connectClient } from '../control/connection';
import { failureOf } from '../control/migration-status';
import { CONTROL_QUEUE } from '../model/names';

/** @throws the coded failure of what was asked */
export async function withClient<T>(run: (client: Client) => Promise<T>): Promise<T> {
  const client = await connectClient();
  try {
    return await run(client);
  } catch (error) {
    throw failureOf(error);
  } finally {
    await client.connection.close();
  }
}

/** Runs a workflow of the control queue to its end. @throws the coded failure it ended with */
export async function executeWorkflow<T>(name: string, workflowId: string, argument: object): Promise<T> {
  return withClient(
    async (client) =>
      (await client.workflow.execute(name, { workflowId, taskQueue: CONTROL_QUEUE, args: [argument] })) as T,
  );
}
