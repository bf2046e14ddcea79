/**
 * How a migration can end from where its two journals stand: by the tables of src/model/ownership-machine.ts alone, over all orders
 * of what the two sides may do. The crash matrix may expect nothing else.
 */
import {
  DESTINATION_TABLE,
  type DestinationEvent,
  type DestinationState,
  isRefused,
  SOURCE_TABLE,
  type SourceEvent,
  type SourceState,
} from '../../src/model/ownership-machine';

export interface Standing {
  readonly source: SourceState;
  readonly destination: DestinationState;
  /** The guest has run at the destination, or nothing has to be started there: it cannot be given back. */
  readonly hasRun: boolean;
}

export type Ending = 'moved' | 'stayed';

const TAKEN: ReadonlySet<DestinationState> = new Set(['mine', 'installed']);
const PROMISES: ReadonlySet<DestinationState> = new Set(['abandoned', 'given_back']);

/** What each event needs of the other side, which its own table cannot say. */
const SOURCE_NEEDS: Partial<Record<SourceEvent, (at: Standing) => boolean>> = {
  hand_over: ({ source }) => source === 'claimed',
  // It answers when the guest runs and the files are in place, not before.
  taken_over: ({ destination }) => destination === 'installed',
  roll_back_promised: ({ destination }) => PROMISES.has(destination),
  // A claim behind a roll-back begins another migration.
  claim: () => false,
};
const DESTINATION_NEEDS: Partial<Record<DestinationEvent, (at: Standing) => boolean>> = {
  take_over: ({ source }) => source === 'handed_over',
  cannot_start: ({ destination, hasRun }) => destination === 'mine' && !hasRun,
};

function next(at: Standing): Standing[] {
  const sources = (Object.keys(SOURCE_TABLE[at.source].on) as SourceEvent[]).flatMap((event) => {
    const step = SOURCE_TABLE[at.source].on[event];
    return isRefused(step) || SOURCE_NEEDS[event]?.(at) === false ? [] : [{ ...at, source: step.to }];
  });
  const destinations = (Object.keys(DESTINATION_TABLE[at.destination].on) as DestinationEvent[]).flatMap((event) => {
    const step = DESTINATION_TABLE[at.destination].on[event];
    return isRefused(step) || DESTINATION_NEEDS[event]?.(at) === false ? [] : [{ ...at, destination: step.to }];
  });
  return [...sources, ...destinations];
}

/** @throws where the tables let both sides have it, or neither */
export function endingsFrom(start: Standing): ReadonlySet<Ending> {
  const endings = new Set<Ending>();
  const seen = new Set<string>();
  for (const open = [start]; open.length > 0; ) {
    const at = open.pop() as Standing;
    const name = `${at.source}/${at.destination}`;
    if (seen.has(name)) continue;
    seen.add(name);
    const isBack = at.source === 'rolled_back';
    if (isBack && TAKEN.has(at.destination)) throw new Error(`${name}: both have it`);
    if (at.source === 'released' && !TAKEN.has(at.destination)) throw new Error(`${name}: nobody has it`);
    if (isBack) endings.add('stayed');
    if (at.source === 'released' && at.destination === 'installed') endings.add('moved');
    open.push(...next(at));
  }
  return endings;
}
