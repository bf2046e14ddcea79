/**
 * Bundles the workflows once, at build time: `node dist/src/control/bundle-workflows.js`.
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { bundleWorkflowCode } from '@temporalio/worker';
import { WORKFLOW_BUNDLE } from './control-worker';

async function main(): Promise<void> {
  const silent = {
    log: () => undefined,
    trace: () => undefined,
    debug: () => undefined,
    info: () => undefined,
    warn: console.warn,
    error: console.error,
  };
  const { code } = await bundleWorkflowCode({
    workflowsPath: join(__dirname, '..', '..', 'workflows', 'index.js'),
    logger: silent,
  });
  writeFileSync(WORKFLOW_BUNDLE, code);
}

main().catch((error: unknown) => {
  console.error(error);
  process.exitCode = 1;
});
