/**
 * The border that every activity of every worker stands behind. What an activity is given comes from Temporal, and whoever
 * reaches that can ask anything: it is held against the activity's schema (src/model/activity-inputs.ts) before any code of the
 * activity runs, and what does not fit is refused for good, with nothing done. On the way out an error of ours becomes a Temporal
 * failure (to-failure.ts). A wrapper and no interceptor of the SDK: it is in force wherever activities are made, in the
 * simulation and in tests too, and the types hold each activity to its schema.
 */
import { cancellationSignal } from '@temporalio/activity';
import { ACTIVITY_INPUTS, type ActivityInput, type ActivityName } from '../src/model/activity-inputs';
import { DwcpError, type DwcpErrorFields } from '../src/model/errors';
import type { Phase } from '../src/model/phases';
import { toFailure } from './to-failure';

type Activities = { readonly [N in ActivityName]?: (input: ActivityInput<N>) => Promise<unknown> };
type WithSchema<T> = { readonly [N in Exclude<keyof T, ActivityName>]: never };

const MAX_TOLD = 500;

/** Where in a migration an activity is asked for; others stand in none. */
const PHASE_OF: Partial<Record<string, Phase>> = {
  prepareSource: 'start',
  prepareDestination: 'initialise_amst',
  establishStreams: 'establish_streams',
  detectTier: 'detect_tier',
  checkBaseline: 'check_baseline',
  computePlan: 'compute_plan',
  transferImage: 'transfer',
  guestRounds: 'transfer',
  standardTransferImage: 'standard_transfer',
  switchover: 'switchover',
  guestSwitchover: 'switchover',
  handOver: 'switchover',
  handedOverRoots: 'switchover',
  takeOver: 'switchover',
  release: 'switchover',
  releaseGuest: 'switchover',
  rollBackSource: 'roll_back',
  keepWarm: 'complete',
  recordOutcome: 'complete',
};

/** What an activity of that name was given, in its shape. @throws INVALID_INPUT, also for a name that has no schema */
export function parseInput(name: string, given: readonly unknown[]): unknown {
  const refused = (what: string): DwcpError =>
    new DwcpError('INVALID_INPUT', `${name} was asked with what it does not take: ${what}`.slice(0, MAX_TOLD), {
      hint: 'Bring control worker and agents to one release. Where they are, somebody else has asked: look who reaches Temporal',
    });
  if (!Object.hasOwn(ACTIVITY_INPUTS, name)) throw refused('it has no schema');
  if (given.length > 1) throw refused(`${given.length} arguments`);
  const parsed = ACTIVITY_INPUTS[name as ActivityName].safeParse(given[0]);
  if (parsed.success) return parsed.data;
  const issues = parsed.error.issues.map(({ path, message }) => `${path.map(String).join('.') || 'input'}: ${message}`);
  throw refused(issues.slice(0, 3).join('; '));
}

/**
 * Puts activities behind the border. Where one was told to stop, whatever it threw on the way out leaves as the reason for
 * stopping, which keeps pause, reset and shutdown apart from cancel: Temporal takes any error of a cancelled activity for its
 * answer to that.
 */
export function behindBorder<T extends Activities>(
  activities: T & WithSchema<T>,
  { side }: Pick<DwcpErrorFields, 'side'>,
): T {
  const all: Readonly<Record<string, (input: never) => Promise<unknown>>> = activities;
  const guarded = Object.entries(all).map(([name, run]) => [
    name,
    async (...given: readonly unknown[]): Promise<unknown> => {
      let input: unknown;
      try {
        input = parseInput(name, given);
      } catch (error) {
        throw toFailure(error, { side, phase: PHASE_OF[name] });
      }
      try {
        return await run(input as never);
      } catch (error) {
        const signal = cancellationSignal();
        if (signal.aborted) throw signal.reason;
        throw toFailure(error, { side });
      }
    },
  ]);
  return Object.fromEntries(guarded) as T;
}
