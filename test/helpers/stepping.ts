/**
 * A migration that is led from phase to phase and held in one: the control worker and the agents take turns, so that what the
 * workflow has asked for is not answered, or what was answered is not heard, until it is their turn. A stopped process has none.
 * What is done with a migration that is held is the test's.
 */
import { PHASES, type Phase } from '../../src/model/phases';
import type { Lab, LabProcess } from './lab';
import { until } from './waiting';

const EACH_MS = 30_000;
const AGENTS: readonly LabProcess[] = ['source agent', 'destination agent'];

/** Those that may be held: `select_level` is a rule without a wait, passed before anybody could be heard of. */
export type HeldPhase = Exclude<
  { [P in Phase]: (typeof PHASES)[P]['mayRollBack'] extends true ? P : never }[Phase],
  'select_level'
>;

/** Every phase that a cancel leads back from, and in which the flow waits for anything. */
export const HELD_PHASES = (Object.keys(PHASES) as Phase[]).filter(
  (phase): phase is HeldPhase => PHASES[phase].mayRollBack && phase !== 'select_level',
);

function signal(lab: Lab, processes: readonly LabProcess[], name: 'SIGSTOP' | 'SIGCONT'): void {
  for (const each of processes) lab.processOf(each)?.process.kill(name);
}

/** Activities of a VM's workflow that have been asked for, and how many of them have been answered. */
async function activitiesOf(lab: Lab, vmId: string): Promise<{ readonly asked: number; readonly answered: number }> {
  const { events } = await lab.client.workflow.getHandle(`migrate-vm:${vmId}`).fetchHistory();
  const all = events ?? [];
  return {
    asked: all.filter((event) => event.activityTaskScheduledEventAttributes).length,
    answered: all.filter((event) => event.activityTaskCompletedEventAttributes).length,
  };
}

/**
 * Starts a migration and leads it into a phase, where it waits for agents that stand still.
 * @returns its id, and what lets everybody go on
 */
export async function heldIn(
  lab: Lab,
  vmId: string,
  phase: HeldPhase,
  options: Parameters<Lab['migrate']>[1] = {},
): Promise<{ readonly id: string; readonly letGo: () => void }> {
  signal(lab, AGENTS, 'SIGSTOP');
  const letGo = (): void => signal(lab, [...AGENTS, 'control worker'], 'SIGCONT');
  try {
    const id = await lab.migrate(vmId, options);
    for (;;) {
      let pending = 0;
      await until(EACH_MS, 'an activity that was asked for', async () => {
        const { asked, answered } = await activitiesOf(lab, vmId);
        pending = asked;
        return asked > answered;
      });
      const { progress, state } = await lab.orchestrator.getMigrationStatus(id);
      if (progress?.phase === phase) return { id, letGo };
      if (state !== 'running' || progress?.parked)
        throw new Error(`not to be led into ${phase}: ${progress?.phase ?? state}`);
      signal(lab, ['control worker'], 'SIGSTOP');
      signal(lab, AGENTS, 'SIGCONT');
      await until(
        EACH_MS,
        `the end of ${progress?.phase ?? 'a phase'}`,
        async () => (await activitiesOf(lab, vmId)).answered === pending,
      );
      signal(lab, AGENTS, 'SIGSTOP');
      signal(lab, ['control worker'], 'SIGCONT');
    }
  } catch (error) {
    letGo();
    throw error;
  }
}
