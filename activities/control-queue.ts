/**
 * Activities of the control worker: counting outcomes for its metrics, knowing the hosts. Light, on the control queue.
 */
import type { MigrationResult } from '../src/model/migration';
import { withFailures } from './to-failure';

export interface Outcome {
  readonly migrationId: string;
  readonly outcome: MigrationResult['outcome'] | 'failed';
  readonly path: MigrationResult['path'];
  readonly fallbackReason?: string;
  readonly speedup: number;
  readonly totalSeconds: number;
}

export function createControlActivities(record: (outcome: Outcome) => void, hosts: () => Promise<string[]>) {
  return withFailures(
    {
      recordOutcome: (outcome: Outcome): Promise<void> => {
        record(outcome);
        return Promise.resolve();
      },
      /** Hosts that recent migrations have named. */
      knownHosts: (): Promise<string[]> => hosts(),
    },
    { side: 'control' },
  );
}

export type ControlActivities = ReturnType<typeof createControlActivities>;
