/**
 * What the real @temporalio/workflow expects of its sandbox, given to it in this realm: AsyncLocalStorage as a global, and
 * the activator of "the" workflow, which here is that of whichever run is being carried out. Imported before
 * @temporalio/workflow is; sdk.ts sees to that.
 */
import { AsyncLocalStorage } from 'node:async_hooks';
import type { Activator } from '@temporalio/workflow/lib/internals';

const activators = new AsyncLocalStorage<Activator>();

Object.assign(globalThis, { AsyncLocalStorage });
Object.defineProperty(globalThis, '__TEMPORAL_ACTIVATOR__', { configurable: true, get: () => activators.getStore() });

/** Runs `work`, and all that it sets going, as the workflow of that activator. */
export function asWorkflow<T>(activator: Activator, work: () => T): T {
  return activators.run(activator, work);
}

export function currentActivator(): Activator | undefined {
  return activators.getStore();
}

const runQueues = (process as unknown as { _tickCallback: () => void })._tickCallback;

/** Runs every promise that can go on, to the last of it. @throws where the caller is itself run by a promise: nothing would run then */
export function runMicrotasks(): void {
  let ran = false;
  void Promise.resolve().then(() => (ran = true));
  runQueues();
  if (!ran)
    throw new Error('A step of the simulation was made from within a promise; make it from a macrotask (setImmediate)');
}
