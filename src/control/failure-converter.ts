/**
 * Failures whose messages and stack traces are payloads, so that the codec encrypts them. Loaded by path, in workers and in the
 * workflows' bundle (bundle-workflows.ts): nothing of Node here.
 */
import { DefaultFailureConverter } from '@temporalio/common';

export const failureConverter = new DefaultFailureConverter({ encodeCommonAttributes: true });
