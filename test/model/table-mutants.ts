/**
 * The tables of the hand-over with one thing wrong in each, for the test that the search finds what it does. `finds` is where
 * it shows, the cheapest configuration of IN_CI; what a second wall keeps harmless is not among them.
 */
import type {
  DestinationEvent,
  DestinationRow,
  DestinationState,
  SourceEvent,
  SourceRow,
  SourceState,
} from '../../src/model/ownership-machine';
import { IN_CI } from './configurations';
import { type Configuration, TABLES, type Tables } from './hand-over-settings';

export interface Mutant {
  readonly wrong: string;
  readonly tables: Tables;
  readonly finds: Configuration;
}

type Wrong<Row, Event extends string> = Partial<Omit<Row, 'on' | 'meaning'>> & {
  readonly on?: Partial<Record<Event, Row extends { readonly on: Readonly<Record<Event, infer Step>> } ? Step : never>>;
};

function source(state: SourceState, { on, ...rest }: Wrong<SourceRow, SourceEvent>): Tables {
  const row = TABLES.source[state];
  return { ...TABLES, source: { ...TABLES.source, [state]: { ...row, ...rest, on: { ...row.on, ...on } } } };
}

function destination(state: DestinationState, { on, ...rest }: Wrong<DestinationRow, DestinationEvent>): Tables {
  const row = TABLES.destination[state];
  return { ...TABLES, destination: { ...TABLES.destination, [state]: { ...row, ...rest, on: { ...row.on, ...on } } } };
}

const to = <S>(state: S): { readonly to: S; readonly effects: readonly [] } => ({ to: state, effects: [] });
const NO = { refused: 'ABANDONED' } as const;

const { terminate, resetHost, disk, override, again } = IN_CI;

export const MUTANTS: readonly Mutant[] = [
  { wrong: 'nothing can be handed over', tables: source('claimed', { on: { hand_over: NO } }), finds: override },
  { wrong: 'a claimed VM may not run', tables: source('claimed', { mayRun: false }), finds: disk },
  { wrong: 'a claim keeps no other migration away', tables: source('claimed', { open: false }), finds: again },
  {
    wrong: 'a claim stays when its workflow is closed',
    tables: source('claimed', { whenClosed: 'nothing' }),
    finds: terminate,
  },
  {
    wrong: 'handed over, and rolled back without a promise',
    tables: source('handed_over', { on: { roll_back: to('rolling_back') } }),
    finds: resetHost,
  },
  {
    wrong: 'handed over, and rolled back once its workflow is closed',
    tables: source('handed_over', { whenClosed: 'roll_back', on: { roll_back: to('rolling_back') } }),
    finds: terminate,
  },
  { wrong: 'handed over, and it may run', tables: source('handed_over', { mayRun: true }), finds: terminate },
  {
    wrong: 'handed over, and nobody asks the destination once its workflow is closed',
    tables: source('handed_over', { whenClosed: 'nothing' }),
    finds: terminate,
  },
  { wrong: 'being released, and it may run', tables: source('releasing', { mayRun: true }), finds: disk },
  {
    wrong: 'nobody completes a release',
    tables: source('releasing', { atStart: 'nothing', whenClosed: 'nothing' }),
    finds: terminate,
  },
  {
    wrong: 'released, and rolled back',
    tables: source('released', { on: { roll_back: to('rolling_back'), roll_back_promised: to('rolling_back') } }),
    finds: resetHost,
  },
  {
    wrong: 'nobody repeats a roll-back',
    tables: source('rolling_back', { open: false, atStart: 'nothing', whenClosed: 'nothing' }),
    finds: terminate,
  },
  { wrong: 'rolling back, and it may not run', tables: source('rolling_back', { mayRun: false }), finds: override },
  {
    wrong: 'unknown, and the promise is not remembered',
    tables: destination('none', { on: { abandon: to('none') } }),
    finds: resetHost,
  },
  {
    wrong: 'promised, and the promise never to start it is not remembered',
    tables: destination('promised', { on: { abandon: to('promised') } }),
    finds: terminate,
  },
  {
    wrong: 'promised, and it cannot be given up',
    tables: destination('promised', { on: { abandon: NO } }),
    finds: terminate,
  },
  {
    wrong: 'promised, and no data is taken in',
    tables: destination('promised', { takesData: false }),
    finds: override,
  },
  { wrong: 'taken over, and given up', tables: destination('mine', { on: { abandon: to('abandoned') } }), finds: disk },
  { wrong: 'taken over, and data is taken in', tables: destination('mine', { takesData: true }), finds: override },
  { wrong: 'nobody completes a take-over', tables: destination('mine', { atStart: 'nothing' }), finds: override },
  {
    wrong: 'taken over, and it cannot be given back',
    tables: destination('mine', { on: { cannot_start: NO } }),
    finds: disk,
  },
  {
    wrong: 'installed, and given up',
    tables: destination('installed', { on: { abandon: to('abandoned') } }),
    finds: disk,
  },
  {
    wrong: 'installed, and it does not say so',
    tables: destination('installed', { on: { take_over: NO } }),
    finds: resetHost,
  },
  {
    wrong: 'given up, and taken over',
    tables: destination('abandoned', { on: { take_over: to('mine') } }),
    finds: resetHost,
  },
  {
    wrong: 'given up, and what has arrived is left lying',
    tables: destination('abandoned', { atStart: 'nothing' }),
    finds: terminate,
  },
  {
    wrong: 'given back, and taken over',
    tables: destination('given_back', { on: { take_over: to('mine') } }),
    finds: resetHost,
  },
];
