/**
 * The clock, the chance and the order of a simulated world: one seeded generator, events that are ready, events that wait
 * for their time. Each step picks one, lets it act and then lets every promise that it settled run to its end. What an event
 * does is its poster's business; that a dead process does nothing any more is this file's.
 */

export interface Task {
  cancel(): void;
}

/** Whoever owns events: an agent's or a QEMU's one life, the control worker. Dead, it never acts again. */
export interface SimProcess {
  readonly name: string;
  readonly alive: boolean;
}

export interface Scheduler {
  readonly nowMs: number;
  /** Seeded, in [0, 1). */
  random(): number;
  pick<T>(items: readonly T[]): T;
  /** Something that can happen from now on (or from now + delayMs on); dropped when its owner is dead. */
  post(owner: SimProcess | undefined, label: string, act: () => void, delayMs?: number): Task;
  /** A line of the story, in words a person understands. */
  trace(text: string): void;
}

interface Event extends Task {
  readonly owner: SimProcess | undefined;
  readonly label: string;
  readonly act: () => void;
  readonly atMs: number;
  readonly number: number;
  dropped: boolean;
}

export interface SchedulerOptions {
  /** Keeps the story. Off, trace() costs nothing. */
  readonly traced?: boolean;
  /** Also tells every step. */
  readonly everyStep?: boolean;
  /** Of a hundred steps, how often something that waits for its time comes before what is ready: the ready ones stall. */
  readonly stallsPerHundred?: number;
}

/** Short stalls are as likely as long ones. */
const SHORTEST_STALL_MS = 0.1;
const LONGEST_STALLS = 20_000;

export const START_MS = Date.UTC(2031, 0, 1);

/** Runs what is in the queues of nextTick and of promises, to the last of it. Only from a macrotask. */
const runMicrotasks = (process as unknown as { _tickCallback: () => void })._tickCallback;

export class SimScheduler implements Scheduler {
  readonly traced: boolean;
  readonly story: string[] = [];
  /** The event that is acting, or acted last. */
  current: { readonly owner: SimProcess | undefined; readonly label: string } | undefined;
  /** Hears what an event throws; without it that ends the step. */
  onUncaught: ((error: unknown) => void) | undefined;
  readonly #everyStep: boolean;
  readonly #stalls: number;
  readonly #ready: Event[] = [];
  readonly #waiting: Event[] = [];
  #state: number;
  #nowMs = START_MS;
  #number = 0;
  #steps = 0;

  constructor(seed: number, { traced = false, everyStep = false, stallsPerHundred = 2 }: SchedulerOptions = {}) {
    this.traced = traced || everyStep;
    this.#everyStep = everyStep;
    this.#stalls = stallsPerHundred / 100;
    this.#state = Math.imul(seed ^ 0x9e3779b9, 0x85ebca6b) >>> 0;
  }

  get nowMs(): number {
    return this.#nowMs;
  }

  get steps(): number {
    return this.#steps;
  }

  /** mulberry32 */
  random(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let mixed = this.#state;
    mixed = Math.imul(mixed ^ (mixed >>> 15), mixed | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  }

  pick<T>(items: readonly T[]): T {
    if (items.length === 0) throw new Error('Nothing to pick from');
    return items[Math.floor(this.random() * items.length)] as T;
  }

  post(owner: SimProcess | undefined, label: string, act: () => void, delayMs = 0): Task {
    const event: Event = {
      owner,
      label,
      act,
      atMs: this.#nowMs + Math.max(0, delayMs),
      number: (this.#number += 1),
      dropped: false,
      cancel: () => (event.dropped = true),
    };
    if (event.atMs <= this.#nowMs) this.#ready.push(event);
    else this.#insert(event);
    return event;
  }

  trace(text: string): void {
    if (this.traced) this.story.push(`${((this.#nowMs - START_MS) / 1_000).toFixed(3).padStart(9)}  ${text}`);
  }

  /** One event, and all that follows from it at once. @returns false where nothing is left to happen */
  step(): boolean {
    const event = this.#take();
    if (!event) return false;
    this.#steps += 1;
    if (this.#everyStep) this.trace(`   . ${event.owner?.name ?? ''} ${event.label}`);
    this.current = event;
    try {
      event.act();
    } catch (error) {
      if (!this.onUncaught) throw error;
      this.onUncaught(error);
    }
    runMicrotasks();
    return true;
  }

  /** Runs what is due before it: only for what no event has begun (the building of a world). */
  settle(): void {
    runMicrotasks();
  }

  #take(): Event | undefined {
    for (;;) {
      const next = this.#firstWaiting();
      if (this.#ready.length === 0) {
        if (!next) return undefined;
        this.#advance(next.atMs);
        continue;
      }
      if (next && this.random() < this.#stalls)
        this.#advance(Math.min(next.atMs, this.#nowMs + SHORTEST_STALL_MS * LONGEST_STALLS ** this.random()));
      const at = this.#ready.length === 1 ? 0 : Math.floor(this.random() * this.#ready.length);
      const event = this.#ready[at] as Event;
      const last = this.#ready.pop() as Event;
      if (last !== event) this.#ready[at] = last;
      if (!event.dropped && event.owner?.alive !== false) return event;
    }
  }

  #advance(toMs: number): void {
    this.#nowMs = toMs;
    for (
      let next = this.#waiting[this.#waiting.length - 1];
      next && next.atMs <= toMs;
      next = this.#waiting[this.#waiting.length - 1]
    ) {
      this.#waiting.pop();
      this.#ready.push(next);
    }
  }

  #firstWaiting(): Event | undefined {
    for (let next = this.#waiting[this.#waiting.length - 1]; next; next = this.#waiting[this.#waiting.length - 1]) {
      if (!next.dropped && next.owner?.alive !== false) return next;
      this.#waiting.pop();
    }
    return undefined;
  }

  /** Latest first: the next to come is the last of the list. */
  #insert(event: Event): void {
    let low = 0;
    let high = this.#waiting.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      const other = this.#waiting[middle] as Event;
      if (other.atMs > event.atMs || (other.atMs === event.atMs && other.number > event.number)) low = middle + 1;
      else high = middle;
    }
    this.#waiting.splice(low, 0, event);
  }
}
