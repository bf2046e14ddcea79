/**
 * The source's agent in the hand-over's model: the steps that the workflow or the sweep asks of it, cut where a crash or another
 * attempt may come between. The switchover and the release behind it are in hand-over-switchover.ts, what an agent does when it
 * starts in hand-over-faults.ts.
 */
import { isRefused } from '../../src/model/ownership-machine';
import { byte, DONE, type Flow, GONE, LOADED, PAUSED, RUNS, type Step, stepCode } from './hand-over-state';
import { lateSwitchover, RELEASES, release, switchover } from './hand-over-switchover';
import type { Turn } from './hand-over-turn';

/** What the workflow asks of the source where it is at. */
const WANTED: Readonly<Partial<Record<Flow, Step>>> = {
  prepare: 'prepare',
  rounds: 'rounds',
  switchover: 'switchover',
  'release by Temporal': 'release',
  'roll back': 'roll back',
};

export function sourceMoves(turn: Turn): void {
  const { w, s, m, a, flow, sourceUp, isClosed } = turn;
  const step = WANTED[flow];
  if (step && sourceUp && turn.of('heard') === 0) stepBegins(turn, step);
  if (flow === 'switchover' && !sourceUp && turn.of('heard') === 0)
    turn.fair('workflow: nobody takes the switchover: parks', () => w.setFlow(m, 'parked'));
  if (turn.of('heard') === 1 && turn.of('step') === 0)
    turn.fair('workflow: the attempt is lost with its agent', () => w.set('heard', m, 0));
  if (turn.of('heard') === 1)
    turn.fault('zombie', 'Temporal gives an attempt up, which goes on', () => w.set('heard', m, 0));
  if (!sourceUp) return;

  underWay(turn);
  if (turn.of('late') > 0) lateSwitchover(turn);
  if (!isClosed) return;
  const row = w.tables.source[w.source(s, m)];
  const isWanted = w.isLast(s, a, m) && row.whenClosed !== 'nothing';
  if (turn.of('step') === 0) {
    if (isWanted) turn.fair('A: sweep begins', () => w.begin(m, 'sweep'));
    if (turn.of('live') === 1 && !row.open)
      turn.fair('A: sweep ends what a closed migration has left in memory', () => w.endLive(m));
  } else if (isWanted && turn.of('heard') === 0 && w.step(s, m) !== 'sweep')
    turn.fair('A: sweep begins, the attempt under way makes way', () => {
      if (!w.holds('one step at a time') || !w.makesWay(m)) return false;
      w.begin(m, 'sweep');
      return true;
    });
}

function stepBegins(turn: Turn, step: Step): void {
  const { w, m } = turn;
  turn.fair(`A: ${step} begins`, () => {
    if (w.get('step', m) === 0) w.begin(m, step);
    else if (!w.holds('one step at a time')) {
      // Left out: the older one goes on beside it, as what comes late.
      if (w.get('late', m) !== 0 || w.get('step', m) !== stepCode('switchover')) return false;
      w.set('late', m, w.get('pc', m) + 1);
      w.begin(m, step);
    } else if (w.makesWay(m)) w.begin(m, step);
    else return false;
    return true;
  });
}

function underWay(turn: Turn): void {
  const { w, s, m } = turn;
  switch (w.step(s, m)) {
    case 'prepare':
      if (turn.of('pc') === 0)
        turn.fair('A: prepare: what an earlier attempt has begun ends', () => {
          w.endLive(m);
          w.set('pc', m, 1);
        });
      else turn.fair('A: prepare: claim', () => claim(turn));
      break;
    case 'rounds':
      rounds(turn);
      break;
    case 'switchover':
      switchover(turn);
      break;
    case 'release':
      release(turn, () => w.setFlow(m, 'DONE'));
      break;
    case 'roll back':
      rollBack(turn);
      break;
    case 'sweep':
      sweep(turn);
      break;
    default:
  }
}

function claim({ w, m, a }: Turn): void {
  const { t } = w;
  const state = w.source(t, m);
  const ends = (flow: Flow): void => w.stepEnds(m, () => w.setFlow(m, flow));
  if (state === 'released' || state === 'releasing') ends('DONE');
  else if (state === 'handed_over')
    w.stepEnds(m, () => {
      w.setFlow(m, 'switchover');
      w.set('handedOver', m, 1);
      w.set('tries', m, 0);
      w.set('asked', m, 1);
    });
  else if (w.isHeld(t, a, m) || byte(t, w.here + a) === 0 || isRefused(w.tables.source[state].on.claim))
    ends('roll back');
  // Gone with its QEMU: a stopped VM is another flow, which ends here. Stopped by an operator: refused.
  else if (byte(t, w.qemu + a) !== RUNS) ends('roll back');
  else {
    w.atSource(m, 'claim');
    ends('prepare destination');
  }
}

function rounds(turn: Turn): void {
  const { w, m, a, b } = turn;
  const { t } = w;
  switch (turn.of('pc')) {
    case 0:
      turn.fair('A: rounds: claim looked at, an earlier attempt ends', () => {
        w.endLive(m);
        if (w.source(t, m) !== 'claimed' || byte(t, w.here + a) === 0 || byte(t, w.qemu + a) === GONE) {
          w.stepEnds(m, () => w.setFlow(m, 'roll back'));
          return;
        }
        w.set('pc', m, 1);
      });
      break;
    case 1:
      turn.fair('A: rounds: the guest runs, its memory is sent', () => {
        w.letRunOn(m);
        if (byte(t, w.qemu + a) !== RUNS) {
          w.stepEnds(m, () => undefined);
          return;
        }
        w.set('live', m, 1);
        // The destination's QEMU is begun anew; what was verified is open again.
        if (
          w.get('record', m) === 1 &&
          byte(t, w.up + b) === 1 &&
          w.tables.destination[w.destination(t, m)].takesData
        ) {
          if (byte(t, w.qemu + b) === LOADED) t[w.qemu + b] = GONE;
          if (w.get('memory', m) !== 0) w.set('memory', m, 3);
        }
        w.set('pc', m, 2);
      });
      break;
    case 2:
      turn.fair('A: rounds converge', () =>
        w.stepEnds(m, () => {
          w.setFlow(m, w.get('cancel', m) === 1 ? 'roll back' : 'switchover');
          if (w.get('cancel', m) === 0) w.set('handedOver', m, 1);
        }),
      );
      turn.fair('A: rounds break off', () => {
        w.endLive(m);
        w.stepEnds(m, () => undefined);
      });
      break;
    default:
  }
}

function rollBack(turn: Turn): void {
  const { w, s, m, a } = turn;
  const then = (): void => w.setFlow(m, w.get('asked', m) === 1 ? 'courtesy' : 'FAILED');
  switch (turn.of('pc')) {
    case 0:
      turn.fair('A: roll back: what moves the guest ends', () => {
        w.endLive(m);
        w.set('pc', m, 1);
      });
      break;
    case 1:
      turn.fair('A: roll back: the line', () => {
        const before = w.source(s, m);
        const refused = w.atSource(m, turn.of('promise') === 1 ? 'roll_back_promised' : 'roll_back');
        if (refused !== undefined) {
          w.stepEnds(m, () =>
            w.setFlow(m, refused === 'HANDOVER_IN_DOUBT' || refused === 'ALREADY_PAST_RETURN' ? 'prepare' : 'FAILED'),
          );
          return;
        }
        if (w.source(w.t, m) === 'none' || before === 'rolled_back') {
          w.stepEnds(m, then);
          return;
        }
        w.set('pc', m, w.holds('roll back again') ? 2 : 3);
        if (!w.holds('roll back again')) w.atSource(m, 'runs_again');
      });
      break;
    case 2:
      turn.fair('A: roll back: the guest runs on', () => {
        w.letRunOn(m);
        w.atSource(m, 'runs_again');
        w.stepEnds(m, then);
      });
      break;
    default:
      turn.fair('A: roll back: the guest runs on, behind the last line', () => {
        if (byte(w.t, w.qemu + a) === PAUSED || byte(w.t, w.qemu + a) === DONE) w.t[w.qemu + a] = RUNS;
        w.stepEnds(m, then);
      });
  }
}

/** A sweep ends here. */
const OVER = -1;

/** The workflow is closed: the journals decide. */
function sweep(turn: Turn): void {
  const { w, m } = turn;
  const over = (): void => w.stepEnds(m, () => undefined);
  const to = (at: number): void => (at === OVER ? over() : w.set('pc', m, at));
  switch (turn.of('pc')) {
    case 0:
      turn.fair('A: sweep: what is under way ends', () => {
        w.endLive(m);
        to(1);
      });
      break;
    case 1:
      turn.fair('A: sweep: the journal is looked at', () => {
        const { whenClosed } = w.tables.source[w.source(w.t, m)];
        if (whenClosed === 'roll_back') to(w.atSource(m, 'roll_back') === undefined ? 2 : OVER);
        else if (whenClosed === 'taken_over') to(RELEASES);
        else if (whenClosed === 'ask the destination') {
          w.set('abandonSent', m, 1);
          to(3);
        } else to(OVER);
      });
      break;
    case 2:
      turn.fair('A: sweep: the guest runs on', () => {
        w.letRunOn(m);
        w.atSource(m, 'runs_again');
        over();
      });
      break;
    case 3:
      turn.fair('A: sweep: no answer', over);
      break;
    case 4:
      turn.fair('A: sweep: promised: rolls back', () =>
        to(w.atSource(m, 'roll_back_promised') === undefined ? 2 : OVER),
      );
      break;
    case 5:
      turn.fair('A: sweep: the destination has it: take_over is sent', () => {
        w.set('takeSent', m, 1);
        to(6);
      });
      break;
    case 6:
      turn.fair('A: sweep: no answer', over);
      break;
    default:
      release(turn, () => undefined);
  }
}
