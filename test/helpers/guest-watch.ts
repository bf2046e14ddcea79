/**
 * A watch over one guest on two hosts, from outside: both monitors, all the time, and both ownership journals. It says when a
 * state of the switchover is reached, writes down every moment at which somebody began or ceased to run the guest, and
 * whether two ever did at once.
 */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { findListener } from '../../src/hypervisor/qemu/process-table';
import { QmpClient } from '../../src/hypervisor/qemu/qmp-client';
import type { QmpEvent } from '../../src/hypervisor/qemu/qmp-schemas';
import type { GuestState } from '../../src/model/guest-states';
import { temporaryFolder } from './data';
import { monitorPath } from './guest-lab';
import type { MovingVm, Side } from './moving-vm';

export type Matches = (event: QmpEvent) => boolean;

export const isStop: Matches = ({ name }) => name === 'STOP';
export const isResume: Matches = ({ name }) => name === 'RESUME';
export const isCompleted: Matches = ({ name, data }) => name === 'MIGRATION' && data.status === 'completed';

interface Span {
  readonly side: Side;
  readonly fromMs: number;
  toMs: number;
}

const LOOK_EVERY_MS = 3;

export class GuestWatch {
  readonly spans: Span[] = [];
  readonly #vm: MovingVm;
  readonly #seen = new Set<GuestState>();
  readonly #wanted = new Map<GuestState, () => void>();
  readonly #timer: NodeJS.Timeout;
  readonly #connected = new Map<Side, QmpClient | 'connecting'>();
  readonly #pids = new Map<Side, number>();
  readonly #listeners = new Set<(side: Side, event: QmpEvent) => void>();
  #countAtPause = 0;
  #watched = false;
  #stopped = false;

  constructor(vm: MovingVm) {
    this.#vm = vm;
    this.#timer = setInterval(() => this.#look(), LOOK_EVERY_MS);
  }

  /** Resolves as soon as a state is seen to have been reached. */
  reached(state: GuestState): Promise<void> {
    if (this.#seen.has(state)) return Promise.resolve();
    return new Promise((resolve) => this.#wanted.set(state, resolve));
  }

  /** The next event of this kind. @param act done the moment it comes, before anything else */
  next(side: Side, matches: Matches, act: () => void = () => undefined): Promise<QmpEvent> {
    return new Promise((resolve) => {
      const listener = (from: Side, event: QmpEvent): void => {
        if (from !== side || !matches(event)) return;
        this.#listeners.delete(listener);
        act();
        resolve(event);
      };
      this.#listeners.add(listener);
    });
  }

  monitor(side: Side): QmpClient {
    const qmp = this.#connected.get(side);
    if (!qmp || qmp === 'connecting') throw new Error(`the watch has no monitor of the ${side}`);
    return qmp;
  }

  /** Sends a signal to a side's QEMU, where there is one. */
  signal(side: Side, signal: NodeJS.Signals): void {
    const pid = this.#pids.get(side);
    if (pid === undefined) return;
    this.#vm.note(`${signal} to the ${side}’s QEMU`);
    try {
      process.kill(pid, signal);
    } catch {
      this.#pids.delete(side); // It has ended.
    }
  }

  /** How far the guest has counted; a guest that was only booted again elsewhere has counted less. */
  async countAt(side: Side): Promise<number> {
    const file = join(temporaryFolder(), 'page');
    await this.monitor(side).execute('pmemsave', { val: 0x20_0000, size: 4096, filename: file });
    return readFileSync(file).readUInt32LE(0);
  }

  /** How far it had counted when it was paused at the source last: nobody may go on from an earlier moment. */
  get countAtPause(): number {
    return this.#countAtPause;
  }

  /** Moments at which both ran it. */
  get overlaps(): string[] {
    const ofSource = this.spans.filter(({ side }) => side === 'source');
    return this.spans
      .filter(({ side }) => side === 'destination')
      .flatMap((there) =>
        ofSource
          .filter((here) => here.fromMs < there.toMs && there.fromMs < here.toMs)
          .map((here) => `source ${here.fromMs}-${here.toMs}, destination ${there.fromMs}-${there.toMs}`),
      );
  }

  get running(): Side[] {
    return this.spans.filter(({ toMs }) => toMs === Infinity).map(({ side }) => side);
  }

  stop(): void {
    this.#stopped = true;
    clearInterval(this.#timer);
    for (const qmp of this.#connected.values()) if (qmp !== 'connecting') qmp.close();
  }

  #look(): void {
    for (const side of ['source', 'destination'] as const) {
      const path = monitorPath(this.#vm.hostOf(side), this.#vm.vmId);
      if (!this.#connected.has(side) && existsSync(path)) void this.#connect(side, path);
    }
    const destination = this.#vm.statesOf('destination');
    if (this.#vm.statesOf('source').includes('handed_over')) this.#reach('handedOver');
    if (destination.includes('mine')) this.#reach('mine');
    if (destination.includes('installed')) this.#reach('installed');
  }

  async #connect(side: Side, path: string): Promise<void> {
    this.#connected.set(side, 'connecting');
    try {
      const qmp = await QmpClient.connect(path);
      if (this.#stopped) {
        qmp.close();
        return;
      }
      this.#connected.set(side, qmp);
      const pid = findListener(path)?.pid;
      if (pid !== undefined) this.#pids.set(side, pid);
      qmp.onEvent((event) => this.#event(side, event));
      qmp.onEnd(() => {
        this.#connected.delete(side);
        this.#pids.delete(side);
        if (!this.#stopped) this.#ran(side, false, Date.now(), 'its QEMU is gone');
      });
      if ((await qmp.execute('query-status')).running) this.#ran(side, true, Date.now(), 'runs');
      while (side === 'source' && !this.#watched && !qmp.ended) {
        const blocks = await qmp.execute('query-block');
        const jobs = await qmp.execute('query-block-jobs');
        if (jobs.length > 0 || blocks.some(({ inserted }) => (inserted?.['dirty-bitmaps']?.length ?? 0) > 0))
          this.#watched = true;
        else await new Promise((resolve) => setTimeout(resolve, LOOK_EVERY_MS));
      }
      if (side === 'source') this.#reach('disks');
    } catch {
      this.#connected.delete(side);
    }
  }

  #event(side: Side, event: QmpEvent): void {
    const { name, data, atMs } = event;
    for (const listener of [...this.#listeners]) listener(side, event);
    this.#vm.note(`${side} ${name} ${JSON.stringify(data)}`);
    if (name === 'RESUME') this.#ran(side, true, atMs, 'RESUME');
    if (name === 'STOP' || name === 'SHUTDOWN') this.#ran(side, false, atMs, name);
    const status = name === 'MIGRATION' ? String(data.status) : '';
    if (side === 'source' && this.#watched) {
      if (status === 'active') setTimeout(() => this.#reach('memory'), 60);
      if (name === 'STOP') {
        this.#reach('paused');
        this.countAt('source').then(
          (count) => (this.#countAtPause = count),
          () => undefined,
        );
      }
      if (status === 'completed') this.#reach('completed');
    }
    if (side === 'destination' && status === 'completed') this.#reach('loaded');
    if (side === 'destination' && name === 'RESUME') this.#reach('started');
  }

  #ran(side: Side, runs: boolean, atMs: number, why: string): void {
    const open = this.spans.find((span) => span.side === side && span.toMs === Infinity);
    if (runs === (open !== undefined)) return;
    this.#vm.note(`${side} ${runs ? 'begins to run' : 'ceases to run'} (${why})`);
    if (open) open.toMs = atMs;
    else this.spans.push({ side, fromMs: atMs, toMs: Infinity });
  }

  /** What its journals and events do not show, from the migration's own status. */
  say(state: GuestState): void {
    this.#reach(state);
  }

  #reach(state: GuestState): void {
    if (this.#seen.has(state)) return;
    this.#seen.add(state);
    this.#vm.note(`state ${state}`);
    this.#wanted.get(state)?.();
  }
}
