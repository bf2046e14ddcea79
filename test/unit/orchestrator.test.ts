/** What the library asks Temporal for. The server is a stand-in: only what is sent to it counts here. */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import type { Client } from '@temporalio/client';
import { createOrchestrator } from '../../src/control/orchestrator';
import { TrustFolder } from '../../src/trust/trust-folder';
import { temporaryFolder } from '../helpers/data';

it('signs by a trust folder that was made after it was created, as beside a control plane that is just starting', async () => {
  const sent: { readonly authorisation?: string }[] = [];
  const start = (_type: string, { args }: { readonly args: readonly [{ readonly authorisation?: string }] }) => {
    sent.push(args[0]);
    return Promise.resolve({ workflowId: 'w', firstExecutionRunId: 'r' });
  };
  const folder = temporaryFolder();
  mkdirSync(folder, { recursive: true });
  const trustDir = join(folder, 'trust');
  const orchestrator = await createOrchestrator({ client: { workflow: { start } } as unknown as Client, trustDir });
  await orchestrator.migrateVm('vm', 'a', 'b');
  TrustFolder.make(trustDir);
  await orchestrator.migrateVm('vm', 'a', 'b');
  expect(sent.map(({ authorisation }) => typeof authorisation)).toEqual(['undefined', 'string']);
});
