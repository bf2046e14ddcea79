/**
 * The hand-over of a running guest as a model for explore.ts: two agents with their journals and QEMUs, the workflow and its
 * attempts (an older one may still be at work), an operator, sweeps, late messages, crashes of agents, hosts and QEMUs. Every
 * line of a journal is written as the tables of src/model/ownership-machine.ts say, so it is they that are searched. What an
 * agent does between two lines, and what of it may be cut off, is written down here as the code does it.
 */
import {
  DESTINATION_STATES, DESTINATION_TABLE, type DestinationEvent, type DestinationState, isRefused, SOURCE_STATES, SOURCE_TABLE, type SourceEvent, type SourceState,
} from '../../src/model/ownership-machine';
import type { Kind, Model } from './explore';

/** How often each may happen. */
export interface Budget {
  readonly agentCrash?: number;
  readonly hostCrash?: number;
  readonly qemuDeath?: number;
  /** Temporal gives an attempt up, which goes on. */
  readonly zombie?: number;
  readonly terminate?: number;
  readonly reset?: number;
  readonly cancel?: number;
  readonly abort?: number;
  readonly acceptTwoCopies?: number;
  readonly diskFull?: number;
  readonly cannotStart?: number;
}
const BUDGETS = ['agentCrash', 'hostCrash', 'qemuDeath', 'zombie', 'terminate', 'reset', 'cancel', 'abort', 'acceptTwoCopies', 'diskFull', 'cannotStart'] as const;

export interface Configuration {
  readonly budget: Budget;
  /** A second migration of the VM, once the first one's workflow is closed: back, or again the same way. */
  readonly second?: 'back' | 'again';
  /** Rules that are left out, for the test that the search finds what they are for. */
  readonly without?: ReadonlySet<Rule>;
}

/** What holds the hand-over together beside the tables. */
export const RULES = ['one step at a time', 'only the last line lets run on', 'only what stands still', 'closed to data', 'memory compared', 'recovery at start', 'record first', 'roll back again'] as const;
export type Rule = (typeof RULES)[number];

const GONE = 0;
const RUNS = 1;
/** Stopped for the switchover; a cancel lets it run on. */
const PAUSED = 2;
/** Its migration has completed: only `cont` lets it run. */
const DONE = 3;
/** Arrived, paused. */
const LOADED = 4;
const QEMU_NAMES = ['no QEMU', 'RUNS', 'paused', 'completed', 'loaded'];

const FLOW = ['idle', 'prepare', 'prepare destination', 'rounds', 'switchover', 'take over by Temporal', 'release by Temporal', 'promise?', 'roll back', 'courtesy', 'DONE', 'FAILED', 'TERMINATED', 'parked'] as const;
type Flow = (typeof FLOW)[number];
const flowCode = (flow: Flow): number => FLOW.indexOf(flow);
const CLOSED: ReadonlySet<Flow> = new Set(['DONE', 'FAILED', 'TERMINATED']);

/** Steps of a source's agent, one at a time for a migration; what each is at is `pc`. */
const STEPS = ['-', 'prepare', 'rounds', 'switchover', 'release', 'roll back', 'sweep'] as const;
type Step = (typeof STEPS)[number];
const stepCode = (step: Step): number => STEPS.indexOf(step);

const PER_MIGRATION = [
  'flow', 'handedOver', 'asked', 'cancel', 'tries', 'step', 'pc', 'heard', 'next', 'live', 'late', 'promised', 'record', 'memory', 'started', 'takeSent', 'take', 'takeFor', 'abandonSent', 'abandon', 'abandonFor', 'dataLate', 'told',
] as const;
type Field = (typeof PER_MIGRATION)[number];

/** A bit each: what happened and counts for what may be expected. */
const OVERRIDE = 1;
const MAY_BE_LOST = 2;
const RESUMED_LATE = 4;

export interface HandOverModel extends Model {
  /** All is over: one runs, or it was lost with its QEMU or its host. */
  settled(state: Uint8Array): boolean;
  /** As settled, and nothing is left lying. */
  clean(state: Uint8Array): boolean;
  /** The workflow waits for its operator. */
  parked(state: Uint8Array): boolean;
  describe(state: Uint8Array): string;
}

export function handOverModel({ budget, second, without = new Set() }: Configuration): HandOverModel {
  const holds = (rule: Rule): boolean => !without.has(rule);
  const count = second ? 2 : 1;
  const sourceOf = (m: number): number => (m === 1 && second === 'back' ? 1 : 0);
  let bytes = 0;
  const place = (width = 1): number => (bytes += width) - width;
  const [up, qemu, good, here, image, last, recovering] = [place(2), place(2), place(2), place(2), place(2), place(2), place(2)];
  const sourceLine = place(count);
  const destinationLine = place(count);
  const fields = Object.fromEntries(PER_MIGRATION.map((name) => [name, place(count)])) as Record<Field, number>;
  const left = Object.fromEntries(BUDGETS.map((name) => [name, place()])) as Record<(typeof BUDGETS)[number], number>;
  const marks = place();

  const initial = new Uint8Array(bytes);
  initial.set([1, 1], up);
  initial.set([RUNS, GONE], qemu);
  initial.set([1, 1], good);
  initial.set([1, 0], here);
  initial.set([1, 0], image);
  for (const name of BUDGETS) initial[left[name]] = budget[name] ?? 0;
  initial[fields.flow] = flowCode('prepare');

  // One buffer for what follows; `s` is what it follows from.
  const t = new Uint8Array(bytes);
  const of = (s: Uint8Array, name: Field, m: number): number => s[fields[name] + m] ?? 0;
  const byte = (s: Uint8Array, at: number): number => s[at] ?? 0;
  const sourceOfLine = (s: Uint8Array, m: number): SourceState => SOURCE_STATES[byte(s, sourceLine + m)] ?? 'none';
  const destinationOfLine = (s: Uint8Array, m: number): DestinationState => DESTINATION_STATES[byte(s, destinationLine + m)] ?? 'none';
  const flowOf = (s: Uint8Array, m: number): Flow => FLOW[of(s, 'flow', m)] ?? 'idle';
  const stepOf = (s: Uint8Array, m: number): Step => STEPS[of(s, 'step', m)] ?? '-';
  const isLast = (s: Uint8Array, host: number, m: number): boolean => byte(s, last + host) === m + 1;
  /** Another migration still has the VM in its hands on a host. */
  const isHeld = (s: Uint8Array, host: number, m: number): boolean => {
    const other = byte(s, last + host) - 1;
    if (other < 0 || other === m) return false;
    return sourceOf(other) === host ? SOURCE_TABLE[sourceOfLine(s, other)].open : DESTINATION_TABLE[destinationOfLine(s, other)].open;
  };

  const next = (s: Uint8Array, out: (next: Uint8Array, label: string, kind: Kind) => void): void => {
    const go = (label: string, kind: Kind, change: () => unknown): void => {
      t.set(s);
      if (change() !== false) out(t, label, kind);
    };
    for (let m = 0; m < count; m += 1) migration(s, go, m);
    if (second && of(s, 'flow', 1) === 0 && CLOSED.has(flowOf(s, 0)) && byte(s, here + sourceOf(1)) === 1) go('the second migration is started', 'fault', () => (t[fields.flow + 1] = flowCode('prepare')));
    for (const host of [0, 1]) crashes(s, go, host);
  };
  type Go = (label: string, kind: Kind, change: () => unknown) => void;

  const set = (name: Field, m: number, value: number): void => void (t[fields[name] + m] = value);
  const get = (name: Field, m: number): number => of(t, name, m);
  const setFlow = (m: number, flow: Flow): void => set('flow', m, flowCode(flow));

  /** @returns what the table refuses it with; the line is written otherwise, where there is one */
  const atSource = (m: number, event: SourceEvent): string | undefined => {
    const state = sourceOfLine(t, m);
    const step = SOURCE_TABLE[state].on[event];
    if (isRefused(step)) return step.refused;
    if (step.to !== state) {
      t[sourceLine + m] = SOURCE_STATES.indexOf(step.to);
      t[last + sourceOf(m)] = m + 1;
    }
    return undefined;
  };
  const atDestination = (m: number, event: DestinationEvent): string | undefined => {
    const state = destinationOfLine(t, m);
    const step = DESTINATION_TABLE[state].on[event];
    if (isRefused(step)) return step.refused;
    if (step.to !== state) {
      t[destinationLine + m] = DESTINATION_STATES.indexOf(step.to);
      t[last + (1 - sourceOf(m))] = m + 1;
    }
    return undefined;
  };

  /** `cont`, or a cancelled migration, under the VM's lock. @returns whether the guest does not stand still for a migration any more */
  const letRunOn = (m: number): void => {
    const a = sourceOf(m);
    if (holds('only the last line lets run on') && !(isLast(t, a, m) && SOURCE_TABLE[sourceOfLine(t, m)].mayRun)) return;
    if (byte(t, qemu + a) !== PAUSED && byte(t, qemu + a) !== DONE) return;
    t[qemu + a] = RUNS;
    if (['mine', 'installed'].includes(destinationOfLine(t, m)) && (byte(t, marks) & OVERRIDE) === 0) t[marks] = byte(t, marks) | RESUMED_LATE;
  };
  /** SourceHub.endLive: what moves the guest ends, and it runs on where it may. */
  const endLive = (m: number): void => {
    if (get('live', m) === 0) return;
    set('live', m, 0);
    letRunOn(m);
  };

  /** The end of a source's step: the workflow hears of it where it still waits for this attempt. */
  const stepEnds = (m: number, then: () => void): void => {
    const heard = get('heard', m) === 1;
    set('step', m, get('next', m));
    set('pc', m, 0);
    set('heard', m, get('next', m) === 0 ? 0 : 1);
    set('next', m, 0);
    if (heard) then();
  };
  const begin = (m: number, step: Step): void => {
    set('step', m, stepCode(step));
    set('pc', m, 0);
    set('heard', m, 1);
  };

  /** An older attempt is told to end, and has ended, before a newer begins. Those in the middle of a release, or of asking, end by themselves or are not waited for. */
  const makesWay = (m: number): boolean => {
    const [step, pc] = [STEPS[get('step', m)] ?? '-', get('pc', m)];
    if (step === '-') return true;
    if (step === 'switchover' && pc >= 1 && pc <= 5) {
      endLive(m);
      return true;
    }
    if (step === 'switchover' && pc === 7) return true;
    if (step === 'rounds') {
      endLive(m);
      return true;
    }
    return pc === 0;
  };

  function migration(s: Uint8Array, go: Go, m: number): void {
    const [a, b] = [sourceOf(m), 1 - sourceOf(m)];
    const tag = count > 1 ? `M${m + 1} ` : '';
    const fair = (label: string, change: () => unknown): void => go(tag + label, 'fair', change);
    const fault = (name: (typeof BUDGETS)[number], label: string, change: () => unknown, kind: Kind = 'fault'): void => {
      if (byte(s, left[name]) > 0) go(tag + label, kind, () => {
        t[left[name]] = byte(t, left[name]) - 1;
        return change();
      });
    };
    const flow = flowOf(s, m);
    const [sourceUp, destinationUp] = [byte(s, up + a) === 1 && byte(s, recovering + a) === 0, byte(s, up + b) === 1];

    // ---- what the workflow asks of the source: a step, when its turn has come
    const wanted: Partial<Record<Flow, Step>> = { prepare: 'prepare', rounds: 'rounds', switchover: 'switchover', 'release by Temporal': 'release', 'roll back': 'roll back' };
    const step = wanted[flow];
    if (step && sourceUp && of(s, 'heard', m) === 0) {
      fair(`A: ${step} begins`, () => {
        if (get('step', m) === 0) begin(m, step);
        else if (!holds('one step at a time')) {
          // Left out: the older one goes on beside it, as what comes late.
          if (get('late', m) !== 0 || get('step', m) !== stepCode('switchover')) return false;
          set('late', m, get('pc', m) + 1);
          begin(m, step);
        } else if (makesWay(m)) begin(m, step);
        else return false;
        return true;
      });
    }
    if (flow === 'switchover' && !sourceUp && of(s, 'heard', m) === 0) fair('workflow: nobody takes the switchover: parks', () => setFlow(m, 'parked'));
    if (of(s, 'heard', m) === 1 && of(s, 'step', m) === 0) fair('workflow: the attempt is lost with its agent', () => set('heard', m, 0));
    if (of(s, 'heard', m) === 1) fault('zombie', 'Temporal gives an attempt up, which goes on', () => set('heard', m, 0));

    if (sourceUp) sourceStep(s, m, fair, fault);
    if (sourceUp && of(s, 'late', m) > 0) lateStep(s, m, fair);
    if (sourceUp && CLOSED.has(flow) && of(s, 'step', m) === 0 && (isLast(s, a, m) ? SOURCE_TABLE[sourceOfLine(s, m)].whenClosed !== 'nothing' : false)) fair('A: sweep begins', () => begin(m, 'sweep'));
    if (sourceUp && CLOSED.has(flow) && of(s, 'heard', m) === 0 && of(s, 'step', m) !== 0 && stepOf(s, m) !== 'sweep' && isLast(s, a, m) && SOURCE_TABLE[sourceOfLine(s, m)].whenClosed !== 'nothing') fair('A: sweep begins, the attempt under way makes way', () => {
      if (!holds('one step at a time') || !makesWay(m)) return false;
      begin(m, 'sweep');
      return true;
    });
    if (sourceUp && CLOSED.has(flow) && of(s, 'live', m) === 1 && of(s, 'step', m) === 0 && !SOURCE_TABLE[sourceOfLine(s, m)].open) fair('A: sweep ends what a closed migration has left in memory', () => endLive(m));

    // ---- the destination
    if (flow === 'prepare destination' && destinationUp && of(s, 'promised', m) === 0) fair('B: prepare: looks, the record is written', () => {
      const state = destinationOfLine(t, m);
      set('asked', m, 1);
      if (state === 'mine' || state === 'installed') { setFlow(m, 'rounds'); return true; }
      if (isRefused(DESTINATION_TABLE[state].on.prepare) || byte(t, here + b) === 1) { setFlow(m, 'roll back'); return true; }
      if (isHeld(t, b, m) || (count > 1 && sourceOf(1 - m) === a && get('record', 1 - m) === 1)) return false;
      if (holds('record first')) set('record', m, 1);
      else atDestination(m, 'prepare');
      set('promised', m, 1);
      return true;
    });
    if (destinationUp && of(s, 'promised', m) === 1) fair('B: prepare: the promise is written', () => {
      if (destinationOfLine(t, m) === 'none' || !holds('record first')) atDestination(m, 'prepare');
      set('record', m, 1);
      set('promised', m, 0);
      if (flowOf(t, m) === 'prepare destination') setFlow(m, get('cancel', m) ? 'roll back' : 'rounds');
    });
    if (flow === 'prepare destination' && !destinationUp) fair('workflow: no agent at the destination: rolls back', () => setFlow(m, 'roll back'));
    destination(s, m, fair, fault);
    if (of(s, 'dataLate', m) === 1 && destinationUp) fair('B: data of an older attempt arrives', () => {
      set('dataLate', m, 0);
      if (get('record', m) === 0 || (holds('closed to data') && !DESTINATION_TABLE[destinationOfLine(t, m)].takesData)) return;
      if (get('memory', m) === 1) set('memory', m, 3);
      if (byte(t, qemu + b) === LOADED) t[qemu + b] = GONE;
    });

    // ---- the workflow by itself, and those who steer it
    if (flow === 'promise?') {
      if (destinationUp && of(s, 'abandonFor', m) === 0 && of(s, 'abandon', m) === 0) fair('B: abandon begins, for the workflow', () => { set('abandon', m, 1); set('abandonFor', m, 1); });
      else if (!destinationUp) fair('workflow: no promise: the switchover is asked again', () => setFlow(m, 'switchover'));
    }
    if (flow === 'courtesy') {
      if (destinationUp && of(s, 'abandon', m) === 0) fair('B: abandon begins, as a courtesy', () => { set('abandon', m, 1); set('abandonFor', m, 1); });
      else if (!destinationUp) fair('workflow: ends without the courtesy', () => setFlow(m, 'FAILED'));
    }
    if (flow === 'take over by Temporal') {
      if (destinationUp && of(s, 'take', m) === 0) fair('B: takes over, asked by Temporal', () => { set('take', m, 1); set('takeFor', m, 2); });
      else if (!destinationUp) fair('workflow: nobody takes over: parks', () => setFlow(m, 'parked'));
    }
    if (flow === 'parked') {
      fair('workflow: asks again by itself', () => { setFlow(m, 'switchover'); set('tries', m, 0); });
      fault('abort', 'the operator aborts', () => setFlow(m, 'promise?'), 'operator');
      fault('acceptTwoCopies', 'the operator aborts, accepting two copies', () => { t[marks] = byte(t, marks) | OVERRIDE; setFlow(m, 'roll back'); set('handedOver', m, 1); });
    }
    if (['prepare', 'prepare destination', 'rounds', 'switchover'].includes(flow) && of(s, 'cancel', m) === 0) fault('cancel', 'the operator cancels', () => {
      set('cancel', m, 1);
      if (flow !== 'switchover' && get('heard', m) === 0) setFlow(m, 'roll back');
    });
    if (flow !== 'idle' && !CLOSED.has(flow)) fault('terminate', 'the workflow is terminated', () => { setFlow(m, 'TERMINATED'); forgetAsked(m); });
    if (flow !== 'idle' && !(m === 0 && count > 1 && flowOf(s, 1) !== 'idle')) for (const target of ['prepare', 'rounds', 'switchover'] as const) {
      if (target !== 'prepare' && of(s, 'asked', m) === 0) continue;
      if (CLOSED.has(flow) || of(s, 'flow', m) > flowCode(target)) fault('reset', `the workflow is reset to ${target}`, () => {
        setFlow(m, target);
        forgetAsked(m);
        set('handedOver', m, target === 'switchover' ? 1 : 0);
        for (const name of ['cancel', 'tries'] as const) set(name, m, 0);
        if (target === 'prepare') set('asked', m, 0);
      });
    }
  }

  /** What was asked for the workflow goes on for nobody. */
  function forgetAsked(m: number): void {
    set('heard', m, 0);
    if (get('abandonFor', m) === 1) set('abandonFor', m, 3);
    if (get('takeFor', m) === 2) set('takeFor', m, 3);
  }

  type Fair = (label: string, change: () => unknown) => void;
  type Fault = (name: (typeof BUDGETS)[number], label: string, change: () => unknown) => void;

  function afterClaim(m: number): void {
    const a = sourceOf(m);
    const state = sourceOfLine(t, m);
    if (state === 'released' || state === 'releasing') return void stepEnds(m, () => setFlow(m, 'DONE'));
    if (state === 'handed_over') return void stepEnds(m, () => { setFlow(m, 'switchover'); set('handedOver', m, 1); set('tries', m, 0); set('asked', m, 1); });
    if (isHeld(t, a, m) || byte(t, here + a) === 0 || SOURCE_TABLE[state].on.claim === undefined || isRefused(SOURCE_TABLE[state].on.claim)) return void stepEnds(m, () => setFlow(m, 'roll back'));
    // Gone with its QEMU: a stopped VM is another flow, which ends here. Stopped by an operator: refused.
    if (byte(t, qemu + a) !== RUNS) return void stepEnds(m, () => setFlow(m, 'roll back'));
    atSource(m, 'claim');
    stepEnds(m, () => setFlow(m, 'prepare destination'));
  }

  function sourceStep(s: Uint8Array, m: number, fair: Fair, fault: Fault): void {
    const a = sourceOf(m);
    const pc = of(s, 'pc', m);
    const to = (at: number): void => set('pc', m, at);
    const runsOn = (): void => {
      endLive(m);
      stepEnds(m, () => { set('handedOver', m, 0); setFlow(m, get('cancel', m) === 1 || get('tries', m) >= 2 ? 'roll back' : 'rounds'); set('tries', m, get('tries', m) + 1); });
    };
    switch (stepOf(s, m)) {
      case 'prepare':
        if (pc === 0) fair('A: prepare: what an earlier attempt has begun ends', () => { endLive(m); to(1); });
        else fair('A: prepare: claim', () => afterClaim(m));
        return;
      case 'rounds':
        if (pc === 0) fair('A: rounds: claim looked at, an earlier attempt ends', () => {
          endLive(m);
          if (sourceOfLine(t, m) !== 'claimed' || byte(t, here + a) === 0) return void stepEnds(m, () => setFlow(m, 'roll back'));
          if (byte(t, qemu + a) === GONE) return void stepEnds(m, () => setFlow(m, 'roll back'));
          to(1);
        });
        if (pc === 1) fair('A: rounds: the guest runs, its memory is sent', () => {
          letRunOn(m);
          if (byte(t, qemu + a) !== RUNS) return void stepEnds(m, () => undefined);
          set('live', m, 1);
          // The destination's QEMU is begun anew; what was verified is open again.
          if (get('record', m) === 1 && byte(t, up + 1 - a) === 1 && DESTINATION_TABLE[destinationOfLine(t, m)].takesData) {
            if (byte(t, qemu + 1 - a) === LOADED) t[qemu + 1 - a] = GONE;
            if (get('memory', m) !== 0) set('memory', m, 3);
          }
          to(2);
        });
        if (pc === 2) {
          fair('A: rounds converge', () => stepEnds(m, () => { setFlow(m, get('cancel', m) === 1 ? 'roll back' : 'switchover'); if (get('cancel', m) === 0) set('handedOver', m, 1); }));
          fair('A: rounds break off', () => { endLive(m); stepEnds(m, () => undefined); });
        }
        return;
      case 'switchover':
        switchover(s, m, fair, fault, runsOn, to);
        return;
      case 'release':
        release(s, m, fair, () => setFlow(m, 'DONE'));
        return;
      case 'roll back':
        rollBack(s, m, fair, of(s, 'handedOver', m) === 1, () => setFlow(m, get('asked', m) === 1 ? 'courtesy' : 'FAILED'), (refused) => {
          if (refused === 'HANDOVER_IN_DOUBT' || refused === 'ALREADY_PAST_RETURN') setFlow(m, 'prepare');
          else setFlow(m, 'FAILED');
        });
        return;
      case 'sweep':
        sweep(s, m, fair);
        return;
      default:
    }
  }

  function switchover(s: Uint8Array, m: number, fair: Fair, fault: Fault, runsOn: () => void, to: (pc: number) => void): void {
    const [a, b] = [sourceOf(m), 1 - sourceOf(m)];
    const lost = (): void => { endLive(m); stepEnds(m, () => { set('handedOver', m, 0); setFlow(m, 'roll back'); }); };
    switch (of(s, 'pc', m)) {
      case 0: fair('A: switchover: the journal is looked at', () => {
        const state = sourceOfLine(t, m);
        if (state === 'handed_over') to(6);
        else if (state === 'releasing' || state === 'released') to(8);
        else if (state !== 'claimed') stepEnds(m, () => setFlow(m, 'promise?'));
        else if (get('live', m) === 0) runsOn();
        else to(1);
      }); break;
      case 1:
        if (byte(s, qemu + a) === GONE) fair('A: switchover: the guest is lost', lost);
        else fair('A: QEMU stops the guest', () => { t[qemu + a] = PAUSED; to(2); });
        break;
      case 2:
        if (byte(s, qemu + a) === GONE) fair('A: switchover: the guest is lost', lost);
        else {
          if (byte(s, up + b) === 1 && of(s, 'record', m) === 1) fair('A: its migration completes, all is confirmed', () => { t[qemu + a] = DONE; to(3); });
          fair('A: the pause takes too long: it runs on', runsOn);
        }
        break;
      case 3:
        if (byte(s, up + b) === 1 && of(s, 'record', m) === 1 && DESTINATION_TABLE[destinationOfLine(s, m)].takesData) fair('B: all is verified, QEMU has loaded it', () => { t[qemu + b] = LOADED; t[good + b] = 1; set('memory', m, 1); to(5); });
        fair('A: the pause takes too long: it runs on', runsOn);
        break;
      case 5:
        fault('diskFull', 'A: the line cannot be written: disk full', runsOn);
        fair('A: hands over', () => {
          if (holds('only what stands still') && (byte(t, qemu + a) === RUNS || byte(t, qemu + a) === PAUSED)) return void runsOn();
          if (atSource(m, 'hand_over') !== undefined) return void stepEnds(m, () => setFlow(m, 'promise?'));
          to(6);
        });
        break;
      case 6: fair('A: take_over is sent', () => { set('takeSent', m, 1); to(7); }); break;
      case 7: fair('A: no answer: in doubt', () => stepEnds(m, () => { if (get('tries', m) >= 1) setFlow(m, 'take over by Temporal'); else set('tries', m, get('tries', m) + 1); })); break;
      default: release(s, m, fair, () => setFlow(m, 'DONE'));
    }
  }

  /** An attempt beside the one that should be alone, where that rule is left out: it has paused the guest and goes on to hand over. */
  function lateStep(s: Uint8Array, m: number, fair: Fair): void {
    const [a, b] = [sourceOf(m), 1 - sourceOf(m)];
    const pc = of(s, 'late', m) - 1;
    if (pc === 3 && byte(s, up + b) === 1 && of(s, 'record', m) === 1) fair('B: loads it, for the older attempt', () => { t[qemu + b] = LOADED; t[good + b] = 1; set('memory', m, 1); set('late', m, 6); });
    else if (pc === 5) fair('A: the older attempt hands over', () => {
      if (holds('only what stands still') && byte(t, qemu + a) === RUNS) return void set('late', m, 0);
      set('late', m, atSource(m, 'hand_over') === undefined ? 7 : 0);
    });
    else if (pc === 6) fair('A: the older attempt sends take_over', () => { set('takeSent', m, 1); set('late', m, 0); });
    else if (pc !== 3) fair('A: the older attempt ends', () => set('late', m, 0));
  }

  function release(s: Uint8Array, m: number, fair: Fair, then: () => void): void {
    const a = sourceOf(m);
    const pc = of(s, 'pc', m);
    const to = (at: number): void => set('pc', m, at);
    const at = pc < 8 ? 8 : pc;
    if (at === 8) fair('A: release: the line', () => {
      if (sourceOfLine(t, m) === 'released') return void stepEnds(m, then);
      if (!isLast(t, a, m) || atSource(m, 'taken_over') !== undefined) return void stepEnds(m, () => setFlow(m, 'promise?'));
      to(9);
    });
    if (at === 9) fair('A: release: its QEMU is ended', () => { t[qemu + a] = GONE; to(10); });
    if (at === 10) fair('A: release: images become baselines', () => { if (byte(t, image + a) === 1) t[image + a] = 2; to(11); });
    if (at === 11) fair('A: release: the VM is away', () => { t[here + a] = 0; to(12); });
    if (at === 12) fair('A: release: done', () => { atSource(m, 'released'); set('live', m, 0); stepEnds(m, then); });
  }

  function rollBack(s: Uint8Array, m: number, fair: Fair, promised: boolean, then: () => void, refusedWith: (refused: string) => void): void {
    const a = sourceOf(m);
    const to = (at: number): void => set('pc', m, at);
    const state = sourceOfLine(s, m);
    switch (of(s, 'pc', m)) {
      case 0: fair('A: roll back: what moves the guest ends', () => { endLive(m); to(1); }); break;
      case 1: fair('A: roll back: the line', () => {
        const refused = atSource(m, promised ? 'roll_back_promised' : 'roll_back');
        if (refused !== undefined) return void stepEnds(m, () => refusedWith(refused));
        if (sourceOfLine(t, m) === 'none' || state === 'rolled_back') return void stepEnds(m, then);
        to(holds('roll back again') ? 2 : 3);
        if (!holds('roll back again')) atSource(m, 'runs_again');
      }); break;
      case 2: fair('A: roll back: the guest runs on', () => { letRunOn(m); atSource(m, 'runs_again'); stepEnds(m, then); }); break;
      default: fair('A: roll back: the guest runs on, behind the last line', () => { if (byte(t, qemu + a) === PAUSED || byte(t, qemu + a) === DONE) t[qemu + a] = RUNS; stepEnds(m, then); });
    }
  }

  function sweep(s: Uint8Array, m: number, fair: Fair): void {
    const to = (at: number): void => set('pc', m, at);
    const over = (): void => stepEnds(m, () => undefined);
    const pc = of(s, 'pc', m);
    if (pc >= 8 && pc < 20) return release(s, m, fair, () => undefined);
    switch (pc) {
      case 0: fair('A: sweep: what is under way ends', () => { endLive(m); to(1); }); break;
      case 1: fair('A: sweep: the journal is looked at', () => {
        const { whenClosed } = SOURCE_TABLE[sourceOfLine(t, m)];
        if (whenClosed === 'roll_back') { if (atSource(m, 'roll_back') !== undefined) return void over(); return void to(2); }
        if (whenClosed === 'taken_over') return void to(8);
        if (whenClosed === 'ask the destination') { set('abandonSent', m, 1); return void to(3); }
        over();
      }); break;
      case 2: fair('A: sweep: the guest runs on', () => { letRunOn(m); atSource(m, 'runs_again'); over(); }); break;
      case 3: fair('A: sweep: no answer', over); break;
      case 4: fair('A: sweep: promised: rolls back', () => { if (atSource(m, 'roll_back_promised') !== undefined) return void over(); to(2); }); break;
      case 5: fair('A: sweep: the destination has it: take_over is sent', () => { set('takeSent', m, 1); to(6); }); break;
      case 6: fair('A: sweep: no answer', over); break;
      default:
    }
  }

  function destination(s: Uint8Array, m: number, fair: Fair, fault: Fault): void {
    const [a, b] = [sourceOf(m), 1 - sourceOf(m)];
    if (byte(s, up + b) === 0) return;
    const busy = of(s, 'take', m) > 0 || of(s, 'abandon', m) > 0 || of(s, 'promised', m) > 0;
    if (!busy) {
      if (of(s, 'takeSent', m) === 1) fair('B: takes over, asked by the link', () => { set('takeSent', m, 0); set('take', m, 1); set('takeFor', m, 1); });
      if (of(s, 'abandonSent', m) === 1) fair('B: abandon begins, for the sweep of A', () => { set('abandonSent', m, 0); set('abandon', m, 1); set('abandonFor', m, 2); });
      const state = destinationOfLine(s, m);
      if (of(s, 'record', m) === 1 && CLOSED.has(flowOf(s, m)) && (state === 'none' || state === 'promised')) fair('B: sweep: abandons', () => { set('abandon', m, 1); set('abandonFor', m, 3); });
      if (of(s, 'record', m) === 1 && DESTINATION_TABLE[state].atStart !== 'nothing' && (holds('recovery at start') || CLOSED.has(flowOf(s, m)))) fair('B: completes what is behind its line', () => { if (DESTINATION_TABLE[state].atStart === 'take_over') { set('take', m, 3); set('takeFor', m, 3); } else { if (DESTINATION_TABLE[state].atStart === 'abandon') discard(m); forget(m); } });
    }
    const answered = (answer: 'ok' | 'refused' | 'error'): void => {
      const asker = get('takeFor', m);
      set('take', m, 0);
      set('takeFor', m, 0);
      const [step, pc] = [STEPS[get('step', m)] ?? '-', get('pc', m)];
      if (asker === 1 && step === 'switchover' && pc === 7 && answer !== 'error') {
        if (answer === 'ok') set('pc', m, 8);
        else stepEnds(m, () => setFlow(m, 'promise?'));
      }
      if (asker === 1 && step === 'sweep' && pc === 6) { if (answer === 'ok') set('pc', m, 8); else stepEnds(m, () => undefined); }
      if (asker === 2 && flowOf(t, m) === 'take over by Temporal') setFlow(m, answer === 'ok' ? 'release by Temporal' : answer === 'refused' ? 'promise?' : 'parked');
    };
    const state = destinationOfLine(s, m);
    switch (of(s, 'take', m)) {
      case 1: fair('B: take over: looks', () => {
        const step = DESTINATION_TABLE[destinationOfLine(t, m)].on.take_over;
        if (isRefused(step)) return void answered(step.refused === 'ABANDONED' ? 'refused' : 'error');
        if (state === 'installed') { forget(m); return void answered('ok'); }
        if (state === 'mine') return void set('take', m, 3);
        if (get('record', m) === 0) return void answered('error');
        if (count > 1 && m === 0 && get('flow', 1) !== 0 && byte(t, last + b) === 2) return void answered('refused');
        if (get('memory', m) !== 1) return void answered('refused');
        if (byte(t, qemu + b) === GONE) { t[qemu + b] = LOADED; t[good + b] = 1; }
        if (byte(t, qemu + b) !== LOADED) return void answered('error');
        set('take', m, 2);
      }); break;
      case 2: fair('B: mine', () => { if (atDestination(m, 'take_over') !== undefined) return void answered('error'); set('take', m, 3); }); break;
      case 3:
        fair('B: start: looks', () => {
          if (get('started', m) === 1) { if (byte(t, qemu + b) === LOADED) t[qemu + b] = RUNS; return void set('take', m, 6); }
          if (byte(t, qemu + b) !== LOADED) {
            if (get('memory', m) === 1) { t[qemu + b] = LOADED; t[good + b] = 1; }
            else if (holds('memory compared')) return void set('take', m, 7);
            else { t[qemu + b] = LOADED; t[good + b] = 0; }
          }
          set('take', m, 4);
        });
        fault('cannotStart', 'B: its QEMU does not take the guest', () => { if (get('started', m) === 1) return false; if (byte(t, qemu + b) === LOADED) t[qemu + b] = GONE; set('take', m, 7); return true; });
        break;
      case 4: fair('B: started is written', () => { set('started', m, 1); set('take', m, 5); }); break;
      case 5: fair('B: cont', () => { if (byte(t, qemu + b) !== LOADED) return void answered('error'); t[qemu + b] = RUNS; set('take', m, 6); }); break;
      case 6: fair('B: files in place, installed', () => { t[here + b] = 1; t[image + b] = 1; atDestination(m, 'installed'); set('take', m, 8); }); break;
      case 7: fair('B: it cannot be started: given back', () => { atDestination(m, 'cannot_start'); discard(m); forget(m); answered('refused'); }); break;
      case 8: fair('B: the record is forgotten', () => { forget(m); answered('ok'); }); break;
      default:
    }
    const promised = (answer: 'ok' | 'past'): void => {
      const asker = get('abandonFor', m);
      set('abandon', m, 0);
      set('abandonFor', m, 0);
      if (answer === 'ok') set('told', m, 1);
      if (asker === 1 && flowOf(t, m) === 'promise?') { if (answer === 'ok') { setFlow(m, 'roll back'); set('handedOver', m, 1); } else { setFlow(m, 'switchover'); set('tries', m, 0); } }
      if (asker === 1 && flowOf(t, m) === 'courtesy') setFlow(m, 'FAILED');
      if (asker === 2 && STEPS[get('step', m)] === 'sweep' && get('pc', m) === 3) set('pc', m, answer === 'ok' ? 4 : 5);
    };
    switch (of(s, 'abandon', m)) {
      case 1: fair('B: abandon: the line', () => {
        if (isRefused(DESTINATION_TABLE[destinationOfLine(t, m)].on.abandon)) return void promised('past');
        atDestination(m, 'abandon');
        set('abandon', m, 2);
      }); break;
      case 2: fair('B: abandoned: its QEMU is ended, the record forgotten', () => { discard(m); forget(m); promised('ok'); }); break;
      default:
    }
    if (of(s, 'dataLate', m) === 0 && of(s, 'memory', m) === 1 && !holds('closed to data') && byte(s, up + a) === 1) fair('A: data of an older attempt is on its way', () => set('dataLate', m, 1));
  }

  /** Only what the migration's own record tells of is ended: another may have begun since. */
  function discard(m: number): void {
    const b = 1 - sourceOf(m);
    if (get('record', m) === 1 && byte(t, qemu + b) === LOADED) t[qemu + b] = GONE;
  }

  function forget(m: number): void {
    for (const name of ['record', 'memory', 'started'] as const) set(name, m, 0);
  }

  function crashes(s: Uint8Array, go: Go, host: number): void {
    const name = 'AB'[host] ?? '';
    const agentGone = (): void => {
      t[up + host] = 0;
      t[recovering + host] = 0;
      for (let m = 0; m < count; m += 1) {
        if (sourceOf(m) === host) for (const field of ['step', 'pc', 'next', 'live', 'late'] as const) set(field, m, 0);
        else {
          if (get('takeFor', m) === 2 && flowOf(t, m) === 'take over by Temporal') setFlow(m, 'parked');
          for (const field of ['take', 'takeFor', 'abandon', 'abandonFor', 'abandonSent', 'takeSent', 'promised', 'dataLate'] as const) set(field, m, 0);
        }
      }
    };
    if (byte(s, up + host) === 1) {
      if (byte(s, left.agentCrash) > 0) go(`${name}'s agent dies`, 'fault', () => { t[left.agentCrash] = byte(t, left.agentCrash) - 1; agentGone(); });
    } else go(`${name}'s agent starts`, 'fair', () => { t[up + host] = 1; t[recovering + host] = holds('recovery at start') ? 1 : 0; });
    if (byte(s, recovering + host) === 1) go(`${name}: recovery, before it hears of Temporal`, 'fair', () => {
      t[recovering + host] = 0;
      const m = byte(t, last + host) - 1;
      if (m < 0 || sourceOf(m) !== host) return;
      const { atStart } = SOURCE_TABLE[sourceOfLine(t, m)];
      if (atStart === 'let the guest run on') letRunOn(m);
      if (atStart === 'roll_back') { letRunOn(m); atSource(m, 'runs_again'); }
      if (atStart === 'taken_over') { t[qemu + host] = GONE; if (byte(t, image + host) === 1) t[image + host] = 2; t[here + host] = 0; atSource(m, 'released'); }
    });
    if (byte(s, left.hostCrash) > 0) go(`host ${name} goes down`, 'fault', () => {
      t[left.hostCrash] = byte(t, left.hostCrash) - 1;
      agentGone();
      if (byte(t, qemu + host) !== GONE) t[marks] = byte(t, marks) | MAY_BE_LOST;
      t[qemu + host] = GONE;
      // The RAM image was never synced.
      for (let m = 0; m < count; m += 1) if (1 - sourceOf(m) === host && get('memory', m) !== 0) set('memory', m, 2);
    });
    if (byte(s, left.qemuDeath) > 0 && byte(s, qemu + host) !== GONE) go(`${name}'s QEMU dies`, 'fault', () => { t[left.qemuDeath] = byte(t, left.qemuDeath) - 1; t[marks] = byte(t, marks) | MAY_BE_LOST; t[qemu + host] = GONE; });
  }

  const violated = (s: Uint8Array): string[] => {
    const bad: string[] = [];
    const override = (byte(s, marks) & OVERRIDE) !== 0;
    if (byte(s, qemu) === RUNS && byte(s, qemu + 1) === RUNS && !override) bad.push('two run');
    for (let m = 0; m < count; m += 1) {
      const [a, b] = [sourceOf(m), 1 - sourceOf(m)];
      const [source, there] = [sourceOfLine(s, m), destinationOfLine(s, m)];
      const taken = there === 'mine' || there === 'installed';
      if (isLast(s, a, m) && isLast(s, b, m) && taken && SOURCE_TABLE[source].mayRun && !override) bad.push('both sides may run it');
      if (of(s, 'told', m) === 1 && taken) bad.push('a promise was given and broken');
      if (byte(s, qemu + b) === RUNS && byte(s, good + b) === 0) bad.push('a guest runs with memory that is not its own');
      if (isLast(s, a, m) && SOURCE_TABLE[source].mayRun && byte(s, here + a) === 1 && byte(s, image + a) === 2) bad.push('an owner’s images may be pruned');
      if (isLast(s, b, m) && there === 'installed' && byte(s, image + b) === 2) bad.push('the new owner’s images may be pruned');
      if (isLast(s, b, m) && there === 'installed' && byte(s, here + b) === 0) bad.push('its journal says that the VM is here, its registry that it is away');
    }
    if ((byte(s, marks) & RESUMED_LATE) !== 0) bad.push('the source’s guest ran on behind the point of no return');
    return bad;
  };

  const isOver = (s: Uint8Array): boolean => {
    for (let m = 0; m < count; m += 1) {
      const flow = flowOf(s, m);
      if (flow !== 'idle' && !CLOSED.has(flow)) return false;
      for (const name of ['step', 'take', 'abandon', 'promised', 'live', 'late'] as const) if (of(s, name, m) !== 0) return false;
    }
    return [0, 1].every((host) => {
      const m = byte(s, last + host) - 1;
      if (byte(s, up + host) === 0 || byte(s, recovering + host) === 1) return false;
      return m < 0 || !(sourceOf(m) === host ? SOURCE_TABLE[sourceOfLine(s, m)].open : DESTINATION_TABLE[destinationOfLine(s, m)].open);
    });
  };
  const settled = (s: Uint8Array): boolean => {
    if (!isOver(s)) return false;
    const states = [byte(s, qemu), byte(s, qemu + 1)];
    const running = states.filter((state) => state === RUNS).length;
    return running === 1 || (running === 0 && states.every((state) => state === GONE) && (byte(s, marks) & MAY_BE_LOST) !== 0) || (running === 2 && (byte(s, marks) & OVERRIDE) !== 0);
  };
  const hasRecords = (s: Uint8Array): boolean => Array.from({ length: count }, (_, m) => of(s, 'record', m)).some((record) => record === 1);

  return {
    bytes, initial, next, violated, settled,
    clean: (s) => settled(s) && !hasRecords(s),
    parked: (s) => Array.from({ length: count }, (_, m) => flowOf(s, m)).includes('parked'),
    describe: (s) => [
      ...[0, 1].map((host) => `${'AB'[host] ?? ''}: ${byte(s, up + host) === 1 ? 'up' : 'down'}, ${QEMU_NAMES[byte(s, qemu + host)] ?? ''}, ${byte(s, here + host) === 1 ? 'here' : 'away'}`),
      ...Array.from({ length: count }, (_, m) => `M${m + 1}: ${flowOf(s, m)}; source ${sourceOfLine(s, m)} (${stepOf(s, m)} ${of(s, 'pc', m)}), destination ${destinationOfLine(s, m)}; record ${of(s, 'record', m)}, memory ${of(s, 'memory', m)}, started ${of(s, 'started', m)}, live ${of(s, 'live', m)}`),
    ].join('\n'),
  };
}
