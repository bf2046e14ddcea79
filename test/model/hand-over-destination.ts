/**
 * The destination's agent in the hand-over's model: preparing, taking data in, taking the VM over, promising never to, and its
 * sweep. What it does when it starts is the same as what its sweep does behind a line; see there.
 */
import { isRefused } from '../../src/model/ownership-machine';
import { byte, GONE, LOADED, RUNS } from './hand-over-state';
import { ASKED_BY_SWEEP, ASKED_BY_SWITCHOVER, RELEASES } from './hand-over-switchover';
import type { Turn } from './hand-over-turn';

/** Who waits for the answer of a take-over, or of a promise; an answer finds nobody any more where it does not. */
export const BY_LINK = 1;
export const BY_TEMPORAL = 2;
export const FOR_WORKFLOW = 1;
export const FOR_SWEEP = 2;
export const FOR_NOBODY = 3;

export function destinationMoves(turn: Turn): void {
  if (!turn.destinationUp) return;
  prepares(turn);
  begins(turn);
  takesOver(turn);
  abandons(turn);
  lateData(turn);
}

function prepares(turn: Turn): void {
  const { w, m, a, b } = turn;
  const { t } = w;
  if (turn.of('promised') === 1)
    turn.fair('B: prepare: the promise is written', () => {
      if (w.destination(t, m) === 'none' || !w.holds('record first')) w.atDestination(m, 'prepare');
      w.set('record', m, 1);
      w.set('promised', m, 0);
      if (w.flow(t, m) === 'prepare destination') w.setFlow(m, w.get('cancel', m) === 1 ? 'roll back' : 'rounds');
    });
  else if (turn.flow === 'prepare destination')
    turn.fair('B: prepare: looks, the record is written', () => {
      const state = w.destination(t, m);
      w.set('asked', m, 1);
      if (state === 'mine' || state === 'installed') {
        w.setFlow(m, 'rounds');
        return;
      }
      if (isRefused(w.tables.destination[state].on.prepare) || byte(t, w.here + b) === 1) {
        w.setFlow(m, 'roll back');
        return;
      }
      if (w.isHeld(t, b, m) || (w.count > 1 && w.sourceOf(1 - m) === a && w.get('record', 1 - m) === 1)) return false;
      if (w.holds('record first')) w.set('record', m, 1);
      else w.atDestination(m, 'prepare');
      w.set('promised', m, 1);
      return true;
    });
}

/** What is asked of it, one thing at a time. */
function begins(turn: Turn): void {
  const { w, s, m } = turn;
  if (turn.of('take') > 0 || turn.of('abandon') > 0 || turn.of('promised') > 0) return;
  if (turn.of('takeSent') === 1)
    turn.fair('B: takes over, asked by the link', () => {
      w.set('takeSent', m, 0);
      w.set('take', m, 1);
      w.set('takeFor', m, BY_LINK);
    });
  if (turn.of('abandonSent') === 1)
    turn.fair('B: abandon begins, for the sweep of A', () => {
      w.set('abandonSent', m, 0);
      w.set('abandon', m, 1);
      w.set('abandonFor', m, FOR_SWEEP);
    });
  if (turn.of('record') === 0) return;
  const state = w.destination(s, m);
  const { atStart } = w.tables.destination[state];
  if (turn.isClosed && (state === 'none' || state === 'promised'))
    turn.fair('B: sweep: abandons', () => {
      w.set('abandon', m, 1);
      w.set('abandonFor', m, FOR_NOBODY);
    });
  if (atStart !== 'nothing')
    turn.fair('B: completes what is behind its line', () => {
      if (atStart === 'take_over') {
        w.set('take', m, 3);
        w.set('takeFor', m, FOR_NOBODY);
        return;
      }
      if (atStart === 'abandon') w.discard(m);
      w.forget(m);
    });
}

function takesOver(turn: Turn): void {
  const { w, m, b } = turn;
  const { t } = w;
  const to = (at: number): void => w.set('take', m, at);
  const answered = (answer: 'ok' | 'refused' | 'error'): void => takeOverAnswered(turn, answer);
  const arrive = (good: number): void => {
    t[w.qemu + b] = LOADED;
    t[w.good + b] = good;
  };
  switch (turn.of('take')) {
    case 1:
      turn.fair('B: take over: looks', () => {
        const state = w.destination(t, m);
        const step = w.tables.destination[state].on.take_over;
        if (isRefused(step)) answered(step.refused === 'ABANDONED' ? 'refused' : 'error');
        else if (state === 'installed') {
          w.forget(m);
          answered('ok');
        } else if (state === 'mine') to(3);
        else if (w.get('record', m) === 0) answered('error');
        else if (w.count > 1 && m === 0 && w.get('flow', 1) !== 0 && byte(t, w.last + b) === 2) answered('refused');
        else if (w.get('memory', m) !== 1) answered('refused');
        else {
          if (byte(t, w.qemu + b) === GONE) arrive(1);
          if (byte(t, w.qemu + b) === LOADED) to(2);
          else answered('error');
        }
      });
      break;
    case 2:
      turn.fair('B: mine', () => (w.atDestination(m, 'take_over') === undefined ? to(3) : answered('error')));
      break;
    case 3:
      turn.fair('B: start: looks', () => {
        if (w.get('started', m) === 1) {
          if (byte(t, w.qemu + b) === LOADED) t[w.qemu + b] = RUNS;
          to(6);
        } else if (byte(t, w.qemu + b) !== LOADED && w.get('memory', m) !== 1 && w.holds('memory compared')) to(7);
        else {
          if (byte(t, w.qemu + b) !== LOADED) arrive(w.get('memory', m) === 1 ? 1 : 0);
          to(4);
        }
      });
      turn.fault('cannotStart', 'B: its QEMU does not take the guest', () => {
        if (w.get('started', m) === 1) return false;
        if (byte(t, w.qemu + b) === LOADED) t[w.qemu + b] = GONE;
        to(7);
        return true;
      });
      break;
    case 4:
      turn.fair('B: started is written', () => {
        w.set('started', m, 1);
        to(5);
      });
      break;
    case 5:
      turn.fair('B: cont', () => {
        if (byte(t, w.qemu + b) === LOADED) {
          t[w.qemu + b] = RUNS;
          to(6);
        } else answered('error');
      });
      break;
    case 6:
      turn.fair('B: files in place, installed', () => {
        t[w.here + b] = 1;
        t[w.image + b] = 1;
        w.atDestination(m, 'installed');
        to(8);
      });
      break;
    case 7:
      turn.fair('B: it cannot be started: given back', () => {
        w.atDestination(m, 'cannot_start');
        w.discard(m);
        w.forget(m);
        answered('refused');
      });
      break;
    case 8:
      turn.fair('B: the record is forgotten', () => {
        w.forget(m);
        answered('ok');
      });
      break;
    default:
  }
}

function takeOverAnswered({ w, m }: Turn, answer: 'ok' | 'refused' | 'error'): void {
  const asker = w.get('takeFor', m);
  w.set('take', m, 0);
  w.set('takeFor', m, 0);
  const [step, pc] = [w.step(w.t, m), w.get('pc', m)];
  if (asker === BY_LINK && step === 'switchover' && pc === ASKED_BY_SWITCHOVER && answer !== 'error') {
    if (answer === 'ok') w.set('pc', m, RELEASES);
    else w.stepEnds(m, () => w.setFlow(m, 'promise?'));
  }
  if (asker === BY_LINK && step === 'sweep' && pc === ASKED_BY_SWEEP) {
    if (answer === 'ok') w.set('pc', m, RELEASES);
    else w.stepEnds(m, () => undefined);
  }
  if (asker === BY_TEMPORAL && w.flow(w.t, m) === 'take over by Temporal')
    w.setFlow(m, answer === 'ok' ? 'release by Temporal' : answer === 'refused' ? 'promise?' : 'parked');
}

function abandons(turn: Turn): void {
  const { w, m } = turn;
  // Preparing holds the VM's lock from its look to its line.
  if (turn.of('promised') > 0) return;
  switch (turn.of('abandon')) {
    case 1:
      turn.fair('B: abandon: the line', () =>
        w.atDestination(m, 'abandon') === undefined ? w.set('abandon', m, 2) : promiseAnswered(turn, 'past'),
      );
      break;
    case 2:
      turn.fair('B: abandoned: its QEMU is ended, the record forgotten', () => {
        w.discard(m);
        w.forget(m);
        promiseAnswered(turn, 'ok');
      });
      break;
    default:
  }
}

function promiseAnswered({ w, m }: Turn, answer: 'ok' | 'past'): void {
  const asker = w.get('abandonFor', m);
  w.set('abandon', m, 0);
  w.set('abandonFor', m, 0);
  if (answer === 'ok') w.set('told', m, 1);
  const flow = w.flow(w.t, m);
  if (asker === FOR_WORKFLOW && flow === 'promise?') {
    w.setFlow(m, answer === 'ok' ? 'roll back' : 'switchover');
    if (answer === 'ok') w.set('handedOver', m, 1);
    else w.set('tries', m, 0);
  }
  if (asker === FOR_WORKFLOW && flow === 'courtesy') w.setFlow(m, 'FAILED');
  if (asker === FOR_SWEEP && w.step(w.t, m) === 'sweep' && w.get('pc', m) === 3)
    w.set('pc', m, answer === 'ok' ? 4 : 5);
}

/** Data that an older attempt has sent: where the VM is promised, that attempt's session has been ended with it. */
function lateData(turn: Turn): void {
  const { w, s, m, a, b } = turn;
  const { t } = w;
  const state = w.destination(s, m);
  if (turn.of('dataLate') === 1)
    turn.fair('B: data of an older attempt arrives', () => {
      w.set('dataLate', m, 0);
      if (w.get('record', m) === 0 || (w.holds('closed to data') && !w.tables.destination[state].takesData)) return;
      if (w.get('memory', m) === 1) w.set('memory', m, 3);
      if (byte(t, w.qemu + b) === LOADED) t[w.qemu + b] = GONE;
    });
  else if (
    turn.of('memory') === 1 &&
    byte(s, w.up + a) === 1 &&
    (!w.holds('closed to data') || (state !== 'promised' && w.tables.destination[state].takesData))
  )
    turn.fair('A: data of an older attempt is on its way', () => w.set('dataLate', m, 1));
}
