/**
 * Bundles the workflows once, at build time: `node dist/src/control/bundle-workflows.js`. Twice over, since how a workflow's failure
 * becomes a payload is the bundle's: as plain text, or for the codec to encrypt.
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { bundleWorkflowCode } from '@temporalio/worker';
import { ENCODED_FAILURES_BUNDLE, WORKFLOW_BUNDLE } from './control-worker';

async function main(): Promise<void> {
  const silent = {
    log: () => undefined,
    trace: () => undefined,
    debug: () => undefined,
    info: () => undefined,
    warn: console.warn,
    error: console.error,
  };
  const workflowsPath = join(__dirname, '..', '..', 'workflows', 'index.js');
  const failureConverterPath = join(__dirname, 'failure-converter.js');
  const plain = await bundleWorkflowCode({ workflowsPath, logger: silent });
  const encoded = await bundleWorkflowCode({ workflowsPath, failureConverterPath, logger: silent });
  writeFileSync(ENCODED_FAILURES_BUNDLE, encoded.code);
  // Last: whether there is a build is told by it.
  writeFileSync(WORKFLOW_BUNDLE, plain.code);
}

main().catch((error: unknown) => {
  console.error(error);
  process.exitCode = 1;
});
