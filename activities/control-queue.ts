/**
 * Activities of the control worker: counting outcomes for its metrics, knowing the hosts, signing warrants. Light, on the control queue.
 */
import type { ActivityInput } from '../src/model/activity-inputs';
import type { ActivityResult } from '../src/model/activity-results';
import { behindBorder } from './border';

export type Outcome = ActivityInput<'recordOutcome'>;

/** @param authorise signs what hosts may do */
export function createControlActivities(
  record: (outcome: Outcome) => void,
  hosts: () => Promise<string[]>,
  authorise: (wanted: ActivityInput<'authorise'>) => Promise<ActivityResult<'authorise'>>,
) {
  return behindBorder(
    {
      recordOutcome: (outcome): Promise<void> => {
        record(outcome);
        return Promise.resolve();
      },
      authorise: (wanted): Promise<ActivityResult<'authorise'>> => authorise(wanted),
      /** Hosts that recent migrations have named. */
      knownHosts: (): Promise<string[]> => hosts(),
    },
    { side: 'control' },
  );
}

export type ControlActivities = ReturnType<typeof createControlActivities>;
