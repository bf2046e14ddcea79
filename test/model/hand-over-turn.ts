/**
 * One migration's turn in a state of the hand-over's model: what its parts ask of the state, and how they say what may follow.
 */
import type { Kind } from './explore';
import type { BudgetName } from './hand-over-settings';
import { byte, type Change, CLOSED, type Field, type Flow, type Out, type World } from './hand-over-state';

/** What may happen next to a migration in a state: the parts of the model say it one by one. */
export class Turn {
  readonly a: number;
  readonly b: number;
  readonly flow: Flow;
  readonly isClosed: boolean;
  /** Its source's agent is up and through with its recovery. */
  readonly sourceUp: boolean;
  readonly destinationUp: boolean;
  readonly #out: Out;
  readonly #tag: string;

  constructor(
    readonly w: World,
    readonly s: Uint8Array,
    readonly m: number,
    out: Out,
  ) {
    this.a = w.sourceOf(m);
    this.b = 1 - this.a;
    this.flow = w.flow(s, m);
    this.isClosed = CLOSED.has(this.flow);
    this.sourceUp = byte(s, w.up + this.a) === 1 && byte(s, w.recovering + this.a) === 0;
    this.destinationUp = byte(s, w.up + this.b) === 1;
    this.#out = out;
    this.#tag = w.count > 1 ? `M${m + 1} ` : '';
  }

  of(name: Field): number {
    return this.w.of(this.s, name, this.m);
  }

  fair(label: string, change: Change): void {
    this.#go(label, 'fair', change);
  }

  /** Where it may still happen. */
  fault(name: BudgetName, label: string, change: Change, kind: Kind = 'fault'): void {
    const { w } = this;
    const left = byte(this.s, w.left[name]);
    if (left === 0) return;
    this.#go(label, kind, () => {
      w.t[w.left[name]] = left - 1;
      return change();
    });
  }

  #go(label: string, kind: Kind, change: Change): void {
    this.w.t.set(this.s);
    if (change() !== false) this.#out(this.w.t, this.#tag + label, kind);
  }
}
