/**
 * Searches one configuration of the hand-over's model and says what it finds: what is violated, and where nothing leads on to a
 * good end any more. Which configurations, and what must be found, is for its callers: the test, and `npm run bench -- model`.
 */
import { explore, type Kind } from './explore';
import { handOverModel } from './hand-over-model';
import type { Configuration } from './hand-over-settings';

export const STUCK = 'nothing fair leads to an end, nor to its operator';
export const STUCK_WITH_OPERATOR = 'nothing leads to an end, not even with its operator';
export const NEVER_CLEAN = 'something is left lying for ever';
export const NEVER_MOVES = 'no way to what a migration is for';

export interface Finding {
  /** A property that is violated, or one of the above. */
  readonly what: string;
  readonly states: number;
  /** The shortest way there, in words, and the state it ends in where nothing leads on. */
  readonly story: readonly string[];
}

export interface Checked {
  readonly states: number;
  readonly transitions: number;
  /** False where the limit cut it off, or the first violation: then what is stuck was not looked for. */
  readonly complete: boolean;
  readonly violations: readonly Finding[];
  readonly stuck: readonly Finding[];
  readonly neverClean: readonly Finding[];
  /** All of them. */
  readonly findings: readonly Finding[];
}

export function check(
  configuration: Configuration,
  options: { readonly limit?: number; readonly untilViolated?: boolean } = {},
): Checked {
  const model = handOverModel(configuration);
  const { states, transitions, complete, violations, cannotReach } = explore(model, options);
  const lost = (what: string, good: (state: Uint8Array) => boolean, kinds: readonly Kind[]): Finding[] => {
    if (!complete) return [];
    const found = cannotReach(good, kinds);
    return found.last
      ? [{ what, states: found.states, story: [...told(found.story), model.describe(found.last)] }]
      : [];
  };
  const told = (story: readonly string[]): string[] =>
    story.map((line) => (configuration.second === 'back' && line.startsWith('M2') ? swapped(line) : line));
  const violated = violations.map(({ property, states: count, story }) => ({
    what: property,
    states: count,
    story: told(story),
  }));
  const stuck = [
    ...lost(STUCK, (state) => model.settled(state) || model.parked(state), ['fair']),
    ...lost(STUCK_WITH_OPERATOR, (state) => model.settled(state), ['fair', 'operator']),
  ];
  const neverClean = lost(NEVER_CLEAN, (state) => model.clean(state), ['fair', 'operator']);
  // From where nothing has happened yet.
  const neverMoves = lost(NEVER_MOVES, (state) => model.moved(state), ['fair']).filter(
    ({ story }) => story.length === 1,
  );
  return {
    states,
    transitions,
    complete,
    violations: violated,
    stuck,
    neverClean,
    findings: [...violated, ...stuck, ...neverClean, ...neverMoves],
  };
}

/** In the model's words A is the host that a migration leaves; of one that goes back that is the other. */
function swapped(line: string): string {
  return line.replace(/\b[AB]\b/g, (name) => (name === 'A' ? 'B' : 'A'));
}
