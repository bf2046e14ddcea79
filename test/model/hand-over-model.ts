/**
 * The hand-over of a running guest as a model for explore.ts: two agents with their journals and QEMUs, the workflow and its
 * attempts (an older one may still be at work), an operator, sweeps, late messages, crashes of agents, hosts and QEMUs. Every
 * line of a journal is written as the tables of src/model/ownership-machine.ts say, so it is they that are searched. What an
 * agent does between two lines, and what of it may be cut off, the parts write down as the code does it: hand-over-source,
 * -switchover, -destination, -flow, -faults. This puts them together and says what must hold.
 */
import type { Model } from './explore';
import { destinationMoves } from './hand-over-destination';
import { faults } from './hand-over-faults';
import { flowMoves } from './hand-over-flow';
import { type Configuration, TABLES } from './hand-over-settings';
import { sourceMoves } from './hand-over-source';
import {
  byte,
  CLOSED,
  flowCode,
  GONE,
  MAY_BE_LOST,
  type Out,
  OVERRIDE,
  RESUMED_LATE,
  RUNS,
  World,
} from './hand-over-state';
import { Turn } from './hand-over-turn';

const QEMU_NAMES = ['no QEMU', 'RUNS', 'paused', 'completed', 'loaded'];
const HOSTS = [0, 1] as const;

export interface HandOverModel extends Model {
  /** All is over: one runs, or it was lost with its QEMU or its host. */
  settled(state: Uint8Array): boolean;
  /** As settled, and nothing is left lying. */
  clean(state: Uint8Array): boolean;
  /** A migration has reached what it is for. */
  moved(state: Uint8Array): boolean;
  /** The workflow waits for its operator. */
  parked(state: Uint8Array): boolean;
  describe(state: Uint8Array): string;
}

export function handOverModel(configuration: Configuration): HandOverModel {
  const w = new World(configuration);
  const migrations = Array.from({ length: w.count }, (_, m) => m);
  return {
    bytes: w.bytes,
    initial: w.initial,
    next: (s, out) => follows(w, s, out),
    violated: (s) => violated(w, s),
    settled: (s) => isSettled(w, s),
    clean: (s) => isSettled(w, s) && migrations.every((m) => w.of(s, 'record', m) === 0),
    moved: (s) => migrations.some((m) => w.flow(s, m) === 'DONE'),
    parked: (s) => migrations.some((m) => w.flow(s, m) === 'parked'),
    describe: (s) =>
      [
        ...HOSTS.map(
          (host) =>
            `${'AB'[host] ?? ''}: ${byte(s, w.up + host) === 1 ? 'up' : 'down'}, ` +
            `${QEMU_NAMES[byte(s, w.qemu + host)] ?? ''}, ${byte(s, w.here + host) === 1 ? 'here' : 'away'}`,
        ),
        ...migrations.map(
          (m) =>
            `M${m + 1}: ${w.flow(s, m)}; source ${w.source(s, m)} (${w.step(s, m)} ${w.of(s, 'pc', m)}), destination ` +
            `${w.destination(s, m)}; ` +
            (['record', 'memory', 'started', 'live'] as const).map((name) => `${name} ${w.of(s, name, m)}`).join(', '),
        ),
      ].join('\n'),
  };
}

function follows(w: World, s: Uint8Array, out: Out): void {
  for (let m = 0; m < w.count; m += 1) {
    const turn = new Turn(w, s, m, out);
    sourceMoves(turn);
    destinationMoves(turn);
    flowMoves(turn);
  }
  if (w.count > 1 && w.flow(s, 1) === 'idle' && CLOSED.has(w.flow(s, 0)) && byte(s, w.here + w.sourceOf(1)) === 1) {
    w.t.set(s);
    w.set('flow', 1, flowCode('prepare'));
    out(w.t, 'the second migration is started', 'fault');
  }
  for (const host of HOSTS) faults(w, s, host, out);
}

function violated(w: World, s: Uint8Array): string[] {
  const bad: string[] = [];
  const marks = byte(s, w.marks);
  const override = (marks & OVERRIDE) !== 0;
  if (byte(s, w.qemu) === RUNS && byte(s, w.qemu + 1) === RUNS && !override) bad.push('two run');
  for (let m = 0; m < w.count; m += 1) {
    const a = w.sourceOf(m);
    const b = 1 - a;
    const there = w.destination(s, m);
    const taken = there === 'mine' || there === 'installed';
    const mayRun = w.isLast(s, a, m) && w.tables.source[w.source(s, m)].mayRun;
    const livesThere = w.isLast(s, b, m) && there === 'installed';
    if (mayRun && w.isLast(s, b, m) && taken && !override) bad.push('both sides may run it');
    if (w.of(s, 'told', m) === 1 && taken) bad.push('a promise was given and broken');
    if (byte(s, w.qemu + b) === RUNS && byte(s, w.good + b) === 0)
      bad.push('a guest runs with memory that is not its own');
    if (mayRun && byte(s, w.here + a) === 1 && byte(s, w.image + a) === 2) bad.push('an owner’s images may be pruned');
    if (livesThere && byte(s, w.image + b) === 2) bad.push('the new owner’s images may be pruned');
    if (livesThere && byte(s, w.here + b) === 0)
      bad.push('its journal says that the VM is here, its registry that it is away');
  }
  if ((marks & RESUMED_LATE) !== 0) bad.push('the source’s guest ran on behind the point of no return');
  return bad;
}

/** Nobody has anything left to do; what counts as such the code's own tables say, whichever are searched. */
function isOver(w: World, s: Uint8Array): boolean {
  for (let m = 0; m < w.count; m += 1) {
    const flow = w.flow(s, m);
    if (flow !== 'idle' && !CLOSED.has(flow)) return false;
    for (const name of ['step', 'take', 'abandon', 'promised', 'live', 'late'] as const)
      if (w.of(s, name, m) !== 0) return false;
  }
  return HOSTS.every((host) => {
    const m = byte(s, w.last + host) - 1;
    if (byte(s, w.up + host) === 0 || byte(s, w.recovering + host) === 1) return false;
    return m < 0 || !w.isOpen(s, host, m, TABLES);
  });
}

function isSettled(w: World, s: Uint8Array): boolean {
  if (!isOver(w, s)) return false;
  const marks = byte(s, w.marks);
  const states = HOSTS.map((host) => byte(s, w.qemu + host));
  const running = states.filter((state) => state === RUNS).length;
  if (running === 0) return states.every((state) => state === GONE) && (marks & MAY_BE_LOST) !== 0;
  return running === 1 || (marks & OVERRIDE) !== 0;
}
