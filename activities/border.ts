/**
 * The border that every activity of every worker stands behind. What an activity is given comes from Temporal, and whoever
 * reaches that can ask anything: it is held against the activity's schema (src/model/activity-inputs.ts) before any code of the
 * activity runs, and what does not fit is refused for good, with nothing done. On the way out an error of ours becomes a Temporal
 * failure (to-failure.ts), and a host's answer carries the signed head of its audit log, for the history to keep. A wrapper and no
 * interceptor of the SDK: it is in force wherever activities are made, in the simulation and in tests too, and the types hold each
 * activity to its schema.
 */
import { cancellationSignal } from '@temporalio/activity';
import { ACTIVITY_INPUTS, type ActivityInput, type ActivityName } from '../src/model/activity-inputs';
import { maySayMore } from '../src/model/activity-results';
import { AUDIT_HEAD } from '../src/model/audit-head';
import { DwcpError, messageOf } from '../src/model/errors';
import type { Side } from '../src/model/ids';
import type { Phase } from '../src/model/phases';
import { signedSchema } from '../src/model/warrant';
import type { WarrantJudge } from '../src/trust/warrant-judge';
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
  handedOverWord: 'switchover',
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

interface Guarded {
  readonly side: Side;
  /** Without one whoever reaches Temporal may ask: the control plane's own, and agents that prove nothing (insecureDataPlane). */
  readonly judge?: WarrantJudge | undefined;
  readonly auditHead?: AuditHeadNow | undefined;
}

/** The signed head of the host's audit log (src/trust/audit-heads.ts); of hosts that sign none, and before the first line, undefined. */
export type AuditHeadNow = () => string | undefined;

function withHead(name: ActivityName, answer: unknown, auditHead: AuditHeadNow | undefined): unknown {
  if (!maySayMore(name) || typeof answer !== 'object' || answer === null) return answer;
  const head = auditHead?.();
  return head === undefined ? answer : { ...answer, [AUDIT_HEAD]: head };
}

function parseOrNote(name: string, given: readonly unknown[], judge: WarrantJudge | undefined): unknown {
  try {
    return parseInput(name, given);
  } catch (error) {
    judge?.misfits(name, messageOf(error));
    throw error;
  }
}

/** The warrant stands beside what an activity takes. */
function apart(given: readonly unknown[]): { readonly warrant: string | undefined; readonly rest: readonly unknown[] } {
  const [input, ...more] = given;
  if (typeof input !== 'object' || input === null || !('warrant' in input)) return { warrant: undefined, rest: given };
  const { warrant, ...rest } = input;
  return { warrant: signedSchema.safeParse(warrant).data, rest: [rest, ...more] };
}

/**
 * Puts activities behind the border. Where one was told to stop, whatever it threw on the way out leaves as the reason for
 * stopping, which keeps pause, reset and shutdown apart from cancel: Temporal takes any error of a cancelled activity for its
 * answer to that.
 */
export function behindBorder<T extends Activities>(
  activities: T & WithSchema<T>,
  { side, judge, auditHead }: Guarded,
): T {
  const all: Readonly<Record<string, (input: never) => Promise<unknown>>> = activities;
  const guarded = Object.entries(all).map(([name, run]) => [
    name,
    async (...given: readonly unknown[]): Promise<unknown> => {
      let input: unknown;
      try {
        const { warrant, rest } = apart(given);
        input = parseOrNote(name, rest, judge);
        await judge?.assertMay(side, name as ActivityName, input, warrant);
      } catch (error) {
        throw toFailure(error, { side, phase: PHASE_OF[name] });
      }
      try {
        return withHead(name as ActivityName, await run(input as never), auditHead);
      } catch (error) {
        const signal = cancellationSignal();
        if (signal.aborted) throw signal.reason;
        throw toFailure(error, { side });
      }
    },
  ]);
  return Object.fromEntries(guarded) as T;
}
