/**
 * Activities of the control worker: counting outcomes for its metrics, knowing the hosts. Light, on the control queue.
 */
import type { ActivityInput } from '../src/model/activity-inputs';
import { behindBorder } from './border';

export type Outcome = ActivityInput<'recordOutcome'>;

export function createControlActivities(record: (outcome: Outcome) => void, hosts: () => Promise<string[]>) {
  return behindBorder(
    {
      recordOutcome: (outcome): Promise<void> => {
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
