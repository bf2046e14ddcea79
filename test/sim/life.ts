/**
 * One life of a process in the simulated world: it acts while it is alive and not suspended, and what it has asked of the
 * operating system ends with it. What it runs (an agent's modules, a QEMU) is for others.
 */
import type { Scheduler, SimProcess, Task } from './scheduler';

export class Life implements SimProcess {
  readonly name: string;
  readonly pid: number;
  readonly startedAtMs: number;
  readonly #scheduler: Scheduler;
  readonly #endings: (() => void)[] = [];
  readonly #deferred: (() => void)[] = [];
  /** Calls that the kernel has begun and not answered: some of them happen although who asked is dead. */
  readonly inFlight = new Set<() => unknown>();
  #alive = true;
  #suspended = false;

  constructor(name: string, pid: number, scheduler: Scheduler) {
    this.name = name;
    this.pid = pid;
    this.#scheduler = scheduler;
    this.startedAtMs = scheduler.nowMs;
  }

  get alive(): boolean {
    return this.#alive;
  }

  get suspended(): boolean {
    return this.#suspended;
  }

  /** An event of this life; while it is suspended, what comes due waits. */
  post(label: string, act: () => void, delayMs = 0): Task {
    return this.#scheduler.post(this, label, () => this.run(act), delayMs);
  }

  run(act: () => void): void {
    if (!this.#alive) return;
    if (this.#suspended) this.#deferred.push(act);
    else act();
  }

  onEnd(ending: () => void): void {
    this.#endings.push(ending);
  }

  suspend(): void {
    this.#suspended = true;
  }

  resume(): void {
    this.#suspended = false;
    for (const act of this.#deferred.splice(0)) this.post('what had waited', act);
  }

  /** It is gone at once: nothing of it acts any more, but for calls that the kernel was in the middle of. */
  kill(): void {
    if (!this.#alive) return;
    this.#alive = false;
    for (const call of this.inFlight) if (this.#scheduler.random() < 0.5) attempt(call);
    this.inFlight.clear();
    for (const ending of this.#endings.splice(0)) ending();
  }
}

/** Nobody hears of its failure. */
function attempt(call: () => unknown): void {
  try {
    call();
  } catch {
    return;
  }
}
