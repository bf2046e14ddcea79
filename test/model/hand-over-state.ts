/**
 * A state of the hand-over's model, as bytes: what is in it and how it is read; and what several parts of the model do to it,
 * above all the steps of a journal, as the tables say. What may follow a state is for hand-over-source, -destination, -flow and
 * -faults to say.
 */
import {
  DESTINATION_STATES,
  type DestinationEvent,
  type DestinationState,
  isRefused,
  SOURCE_STATES,
  type SourceEvent,
  type SourceState,
} from '../../src/model/ownership-machine';
import type { Kind } from './explore';
import { BUDGETS, type BudgetName, type Configuration, type Rule, TABLES, type Tables } from './hand-over-settings';

/** States of a QEMU. */
export const GONE = 0;
export const RUNS = 1;
/** Stopped for the switchover; a cancel lets it run on. */
export const PAUSED = 2;
/** Its migration has completed: only `cont` lets it run. */
export const DONE = 3;
/** Arrived, paused. */
export const LOADED = 4;

export const FLOW = [
  'idle',
  'prepare',
  'prepare destination',
  'rounds',
  'switchover',
  'take over by Temporal',
  'release by Temporal',
  'promise?',
  'roll back',
  'courtesy',
  'DONE',
  'FAILED',
  'TERMINATED',
  'parked',
] as const;
export type Flow = (typeof FLOW)[number];
export const flowCode = (flow: Flow): number => FLOW.indexOf(flow);
export const CLOSED: ReadonlySet<Flow> = new Set(['DONE', 'FAILED', 'TERMINATED']);

/** Steps of a source's agent, one at a time for a migration; what each is at is `pc`. */
const STEPS = ['-', 'prepare', 'rounds', 'switchover', 'release', 'roll back', 'sweep'] as const;
export type Step = (typeof STEPS)[number];
export const stepCode = (step: Step): number => STEPS.indexOf(step);

const PER_MIGRATION = [
  'flow',
  'handedOver',
  'asked',
  'cancel',
  'tries',
  'step',
  'pc',
  'promise',
  'heard',
  'live',
  'late',
  'promised',
  'record',
  'memory',
  'started',
  'takeSent',
  'take',
  'takeFor',
  'abandonSent',
  'abandon',
  'abandonFor',
  'dataLate',
  'told',
] as const;
export type Field = (typeof PER_MIGRATION)[number];

/** A bit each: what happened and counts for what may be expected. */
export const OVERRIDE = 1;
export const MAY_BE_LOST = 2;
export const RESUMED_LATE = 4;

export const byte = (s: Uint8Array, at: number): number => s[at] ?? 0;

export type Out = (next: Uint8Array, label: string, kind: Kind) => void;
/** Makes what follows from a state out of the world's buffer; `false`: nothing follows. */
export type Change = () => unknown;

export class World {
  readonly tables: Tables;
  /** How many migrations there are. */
  readonly count: number;
  readonly bytes: number;
  readonly initial: Uint8Array;
  /** One buffer for what follows. */
  readonly t: Uint8Array;
  // Where things are: one byte each for host A and host B.
  readonly up: number;
  readonly qemu: number;
  readonly good: number;
  readonly here: number;
  readonly image: number;
  readonly last: number;
  readonly recovering: number;
  readonly marks: number;
  readonly left: Readonly<Record<BudgetName, number>>;
  // One byte each for a migration.
  readonly #sourceLine: number;
  readonly #destinationLine: number;
  readonly #fields: Readonly<Record<Field, number>>;
  readonly #without: ReadonlySet<Rule>;
  readonly #isBack: boolean;

  constructor({ budget, second, without = new Set(), tables = TABLES }: Configuration) {
    this.tables = tables;
    this.count = second ? 2 : 1;
    this.#isBack = second === 'back';
    this.#without = without;
    let bytes = 0;
    const place = (width = 1): number => (bytes += width) - width;
    [this.up, this.qemu, this.good, this.here, this.image, this.last, this.recovering] = [
      place(2),
      place(2),
      place(2),
      place(2),
      place(2),
      place(2),
      place(2),
    ];
    this.#sourceLine = place(this.count);
    this.#destinationLine = place(this.count);
    this.#fields = Object.fromEntries(PER_MIGRATION.map((name) => [name, place(this.count)])) as Record<Field, number>;
    this.left = Object.fromEntries(BUDGETS.map((name) => [name, place()])) as Record<BudgetName, number>;
    this.marks = place();
    this.bytes = bytes;
    this.t = new Uint8Array(bytes);
    this.initial = new Uint8Array(bytes);
    this.initial.set([1, 1], this.up);
    this.initial.set([RUNS, GONE], this.qemu);
    this.initial.set([1, 1], this.good);
    this.initial.set([1, 0], this.here);
    this.initial.set([1, 0], this.image);
    for (const name of BUDGETS) this.initial[this.left[name]] = budget[name] ?? 0;
    this.initial[this.#fields.flow] = flowCode('prepare');
  }

  holds(rule: Rule): boolean {
    return !this.#without.has(rule);
  }

  /** The host that a migration leaves, A 0 and B 1. */
  sourceOf(m: number): number {
    return m === 1 && this.#isBack ? 1 : 0;
  }

  // ---- what is in a state

  of(s: Uint8Array, name: Field, m: number): number {
    return s[this.#fields[name] + m] ?? 0;
  }

  source(s: Uint8Array, m: number): SourceState {
    return SOURCE_STATES[byte(s, this.#sourceLine + m)] ?? 'none';
  }

  destination(s: Uint8Array, m: number): DestinationState {
    return DESTINATION_STATES[byte(s, this.#destinationLine + m)] ?? 'none';
  }

  flow(s: Uint8Array, m: number): Flow {
    return FLOW[this.of(s, 'flow', m)] ?? 'idle';
  }

  step(s: Uint8Array, m: number): Step {
    return STEPS[this.of(s, 'step', m)] ?? '-';
  }

  isLast(s: Uint8Array, host: number, m: number): boolean {
    return byte(s, this.last + host) === m + 1;
  }

  /** Whether a migration's line on a host leaves the VM in its hands. */
  isOpen(s: Uint8Array, host: number, m: number, tables: Tables = this.tables): boolean {
    return (this.sourceOf(m) === host ? tables.source[this.source(s, m)] : tables.destination[this.destination(s, m)])
      .open;
  }

  /** Another migration still has the VM in its hands on a host. */
  isHeld(s: Uint8Array, host: number, m: number): boolean {
    const other = byte(s, this.last + host) - 1;
    return other >= 0 && other !== m && this.isOpen(s, host, other);
  }

  // ---- what is done to the buffer

  get(name: Field, m: number): number {
    return this.of(this.t, name, m);
  }

  set(name: Field, m: number, value: number): void {
    this.t[this.#fields[name] + m] = value;
  }

  setFlow(m: number, flow: Flow): void {
    this.set('flow', m, flowCode(flow));
  }

  mark(bit: number): void {
    this.t[this.marks] = byte(this.t, this.marks) | bit;
  }

  /** @returns what the table refuses it with; the line is written otherwise, where there is one */
  atSource(m: number, event: SourceEvent): string | undefined {
    const state = this.source(this.t, m);
    const step = this.tables.source[state].on[event];
    if (isRefused(step)) return step.refused;
    if (step.to !== state) {
      this.t[this.#sourceLine + m] = SOURCE_STATES.indexOf(step.to);
      this.t[this.last + this.sourceOf(m)] = m + 1;
    }
    return undefined;
  }

  /** As atSource(). */
  atDestination(m: number, event: DestinationEvent): string | undefined {
    const state = this.destination(this.t, m);
    const step = this.tables.destination[state].on[event];
    if (isRefused(step)) return step.refused;
    if (step.to !== state) {
      this.t[this.#destinationLine + m] = DESTINATION_STATES.indexOf(step.to);
      // A promise about a migration that has never been here is kept, and is not the VM's last line (OwnershipJournal.last).
      if (state !== 'none' || event !== 'abandon') this.t[this.last + (1 - this.sourceOf(m))] = m + 1;
    }
    return undefined;
  }

  /** `cont`, or a cancelled migration, under the VM's lock: the guest does not stand still for a migration any more, where it may run. */
  letRunOn(m: number): void {
    const { t } = this;
    const a = this.sourceOf(m);
    if (
      this.holds('only the last line lets run on') &&
      !(this.isLast(t, a, m) && this.tables.source[this.source(t, m)].mayRun)
    )
      return;
    if (byte(t, this.qemu + a) !== PAUSED && byte(t, this.qemu + a) !== DONE) return;
    t[this.qemu + a] = RUNS;
    const there = this.destination(t, m);
    if ((there === 'mine' || there === 'installed') && (byte(t, this.marks) & OVERRIDE) === 0) this.mark(RESUMED_LATE);
  }

  /** SourceHub.endLive: what moves the guest ends, and it runs on where it may. */
  endLive(m: number): void {
    if (this.get('live', m) === 0) return;
    this.set('live', m, 0);
    this.letRunOn(m);
  }

  /** What it is told of a promise is what the workflow knows now. */
  begin(m: number, step: Step): void {
    this.set('step', m, stepCode(step));
    this.set('pc', m, 0);
    this.set('promise', m, step === 'roll back' ? this.get('handedOver', m) : 0);
    this.set('heard', m, 1);
  }

  /** The end of a source's step: the workflow hears of it where it still waits for this attempt. */
  stepEnds(m: number, then: () => void): void {
    const heard = this.get('heard', m) === 1;
    for (const name of ['step', 'pc', 'promise', 'heard'] as const) this.set(name, m, 0);
    if (heard) then();
  }

  /**
   * An older attempt is told to end, and has ended, before a newer begins. Those in the middle of a release, or of
   * asking, end by themselves or are not waited for.
   */
  makesWay(m: number): boolean {
    const [step, pc] = [this.step(this.t, m), this.get('pc', m)];
    if (step === '-') return true;
    if ((step === 'switchover' && pc >= 1 && pc <= 5) || step === 'rounds') {
      this.endLive(m);
      return true;
    }
    if (step === 'switchover' && pc === 7) return true;
    return pc === 0;
  }

  /** At the destination: only what the migration's own record tells of is ended, another may have begun since. */
  discard(m: number): void {
    const b = 1 - this.sourceOf(m);
    if (this.get('record', m) === 1 && byte(this.t, this.qemu + b) === LOADED) this.t[this.qemu + b] = GONE;
  }

  forget(m: number): void {
    for (const name of ['record', 'memory', 'started'] as const) this.set(name, m, 0);
  }
}
