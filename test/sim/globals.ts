/**
 * The globals of a simulated process: timers, dates and clocks of the simulated time, chance of the seed, and what a process
 * may do to itself and to others. Everything is an event of its life.
 */
import { AsyncResource } from 'node:async_hooks';
import * as realCrypto from 'node:crypto';
import * as realOs from 'node:os';
import type { Module } from './fs-modules';
import { only } from './fs-modules';
import type { Life } from './life';
import type { Globals } from './loader';
import type { Scheduler, Task } from './scheduler';

class Timer {
  readonly #start: () => Task;
  #task: Task;

  constructor(start: () => Task) {
    this.#start = start;
    this.#task = start();
  }

  rearm(): void {
    this.#task = this.#start();
  }

  cancel(): void {
    this.#task.cancel();
  }

  ref(): this {
    return this;
  }

  unref(): this {
    return this;
  }

  hasRef(): boolean {
    return true;
  }

  refresh(): this {
    this.#task.cancel();
    this.#task = this.#start();
    return this;
  }

  close(): this {
    this.#task.cancel();
    return this;
  }

  [Symbol.dispose](): void {
    this.#task.cancel();
  }
}

/** A call back in the async context of now: an activity's heartbeats come from a timer of its own. */
function inContext(act: () => void): () => void {
  const resource = new AsyncResource('SimTimer');
  return () => resource.runInAsyncScope(act);
}

export interface ProcessPowers {
  /** Signals a process of the same host. @throws ESRCH */
  kill(pid: number, signal: string | number): void;
  readonly hostName: string;
  /** What the host's clock shows beyond the true time. */
  clockOffsetMs(): number;
}

export function createGlobals(life: Life, scheduler: Scheduler, powers: ProcessPowers): Globals {
  const setTimeout = (act: (...args: unknown[]) => void, ms = 0, ...args: unknown[]): Timer => {
    const bound = inContext(() => act(...args));
    return new Timer(() => life.post('timer', bound, Math.max(1, ms)));
  };
  const setInterval = (act: (...args: unknown[]) => void, ms = 0, ...args: unknown[]): Timer => {
    const bound = inContext(() => act(...args));
    const timer: Timer = new Timer(() =>
      life.post(
        'interval',
        () => {
          timer.rearm();
          bound();
        },
        Math.max(1, ms),
      ),
    );
    return timer;
  };
  const setImmediate = (act: (...args: unknown[]) => void, ...args: unknown[]): Timer => {
    const bound = inContext(() => act(...args));
    return new Timer(() => life.post('immediate', bound));
  };
  const clear = (timer: unknown): void => {
    if (timer instanceof Timer) timer.cancel();
  };
  const now = (): number => Math.floor(scheduler.nowMs + powers.clockOffsetMs());
  const SimDate = class extends Date {
    constructor(...args: readonly [] | readonly [string | number | Date]) {
      if (args.length === 0) super(now());
      else super(...(args as [string | number | Date]));
    }

    static override now(): number {
      return now();
    }
  };
  const performance = { now: () => scheduler.nowMs - life.startedAtMs, timeOrigin: life.startedAtMs };
  const process_ = Object.create(process, {
    pid: { value: life.pid },
    kill: {
      value: (pid: number, signal: string | number = 'SIGTERM') => {
        powers.kill(pid, signal);
        return true;
      },
    },
    on: { value: () => process_ },
    once: { value: () => process_ },
    exit: { value: () => life.kill() },
    hrtime: { value: Object.assign(() => [0, 0], { bigint: () => BigInt(Math.round(performance.now() * 1e6)) }) },
    uptime: { value: () => performance.now() / 1_000 },
    cpuUsage: { value: () => ({ user: 0, system: 0 }) },
    env: { value: {} },
    // Users and owners are not simulated: an agent that is not root leaves them alone.
    getuid: { value: () => 10_001 },
  }) as typeof process;
  return {
    setTimeout,
    clearTimeout: clear,
    setInterval,
    clearInterval: clear,
    setImmediate,
    clearImmediate: clear,
    Date: SimDate,
    performance,
    process: process_,
  };
}

/** Chance from the seed; what is a function of its input is the real thing. */
export function cryptoModule(scheduler: Scheduler): Module {
  const randomBytes = (count: number): Buffer => {
    const bytes = Buffer.alloc(count);
    for (let at = 0; at < count; at += 1) bytes[at] = Math.floor(scheduler.random() * 256);
    return bytes;
  };
  return {
    ...realCrypto,
    randomBytes,
    randomFillSync: (into: Buffer) => {
      randomBytes(into.length).copy(into);
      return into;
    },
    randomInt: (low: number, high: number) => low + Math.floor(scheduler.random() * (high - low)),
    randomUUID: () => {
      const hex = randomBytes(16).toString('hex');
      return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-4${hex.slice(13, 16)}-a${hex.slice(17, 20)}-${hex.slice(20)}`;
    },
  };
}

export function osModule(hostName: string): Module {
  return only('node:os', {
    hostname: () => hostName,
    homedir: () => '/root',
    tmpdir: () => '/tmp',
    availableParallelism: () => 1,
    cpus: () => [{ times: { user: 0, nice: 0, sys: 0, idle: 1, irq: 0 } }],
    setPriority: () => undefined,
    constants: realOs.constants,
    platform: () => 'linux',
    arch: () => 'x64',
    totalmem: () => 2 ** 34,
    freemem: () => 2 ** 33,
    loadavg: () => [0, 0, 0],
    userInfo: () => ({ username: 'root', uid: 0 }),
    EOL: '\n',
    networkInterfaces: () => ({}),
  });
}
