/**
 * Has the SDK download its Temporal CLI into a folder and prints where it is: a program of its own, started by
 * temporal-binary.ts, so that a download which hangs can be ended.
 */
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { TestWorkflowEnvironment } from '@temporalio/testing';
import { messageOf } from '../model/errors';

async function main(downloadDir: string): Promise<void> {
  const environment = await TestWorkflowEnvironment.createLocal({
    server: { executable: { type: 'cached-download', downloadDir } },
  });
  await environment.teardown();
  const name = (await readdir(downloadDir)).find(
    (entry) => /^temporal-(cli|sdk)/.test(entry) && !entry.endsWith('.downloading'),
  );
  if (name === undefined) throw new Error('the SDK left no file');
  process.stdout.write(`${join(downloadDir, name)}\n`);
}

main(process.argv[2] ?? '.').then(
  () => process.exit(0),
  (error: unknown) => {
    console.error(messageOf(error));
    process.exit(1);
  },
);
