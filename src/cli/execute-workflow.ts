/** Runs a workflow of the control queue to its end, for commands that wait for its answer. */
import { connectClient } from '../control/connection';
import { failureOf } from '../control/orchestrator';
import { CONTROL_QUEUE } from '../model/names';

/** @throws the coded failure it ended with */
export async function executeWorkflow<T>(name: string, workflowId: string, argument: object): Promise<T> {
  const client = await connectClient();
  try {
    return (await client.workflow.execute(name, { workflowId, taskQueue: CONTROL_QUEUE, args: [argument] })) as T;
  } catch (error) {
    throw failureOf(error);
  } finally {
    await client.connection.close();
  }
}
