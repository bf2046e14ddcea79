/** A client for commands that speak with the Temporal server themselves, and workflows that they wait for. */
import type { Client } from '@temporalio/client';
import type { Command } from 'commander';
import { connectClient } from '../control/connection';
import { failureOf } from '../control/migration-status';
import { CONTROL_QUEUE } from '../model/names';
import { withGlobals } from './flags';
import { processOptions } from './settings';

/** The keys that a command was given, in whatever way. */
export function payloadKeyFileOf(command: Command): string {
  return processOptions(withGlobals({}, command)).payloadKeyFile;
}

/** @throws the coded failure of what was asked */
export async function withClient<T>(command: Command, run: (client: Client) => Promise<T>): Promise<T> {
  const client = await connectClient(payloadKeyFileOf(command));
  try {
    return await run(client);
  } catch (error) {
    throw failureOf(error);
  } finally {
    await client.connection.close();
  }
}

/** Runs a workflow of the control queue to its end. @throws the coded failure it ended with */
export async function executeWorkflow<T>(
  command: Command,
  name: string,
  workflowId: string,
  argument: object,
): Promise<T> {
  return withClient(
    command,
    async (client) =>
      (await client.workflow.execute(name, { workflowId, taskQueue: CONTROL_QUEUE, args: [argument] })) as T,
  );
}
