/**
 * The switchover in the hand-over's model, as the source's agent does it: from the stopped guest to the line `handed_over` and
 * the asking behind it, and the release that follows on the destination's yes.
 */
import { byte, DONE, GONE, LOADED, PAUSED, RUNS } from './hand-over-state';
import type { Turn } from './hand-over-turn';

/** Where a switchover or a sweep is, as its `pc`: it has asked the destination, and releases once that says yes. */
export const ASKED_BY_SWITCHOVER = 7;
export const ASKED_BY_SWEEP = 6;
export const RELEASES = 8;

export function switchover(turn: Turn): void {
  const { w, s, m, a, b } = turn;
  const { t } = w;
  const to = (at: number): void => w.set('pc', m, at);
  const runsOn = (): void => {
    w.endLive(m);
    w.stepEnds(m, () => {
      w.set('handedOver', m, 0);
      w.setFlow(m, w.get('cancel', m) === 1 || w.get('tries', m) >= 2 ? 'roll back' : 'rounds');
      w.set('tries', m, w.get('tries', m) + 1);
    });
  };
  const lost = (): void => {
    w.endLive(m);
    w.stepEnds(m, () => {
      w.set('handedOver', m, 0);
      w.setFlow(m, 'roll back');
    });
  };
  const takesIt = turn.destinationUp && turn.of('record') === 1;
  switch (turn.of('pc')) {
    case 0:
      turn.fair('A: switchover: the journal is looked at', () => {
        const state = w.source(t, m);
        if (state === 'handed_over') to(6);
        else if (state === 'releasing' || state === 'released') to(RELEASES);
        else if (state !== 'claimed') w.stepEnds(m, () => w.setFlow(m, 'promise?'));
        else if (w.get('live', m) === 0) runsOn();
        else to(1);
      });
      break;
    case 1:
      if (byte(s, w.qemu + a) === GONE) turn.fair('A: switchover: the guest is lost', lost);
      else
        turn.fair('A: QEMU stops the guest', () => {
          t[w.qemu + a] = PAUSED;
          to(2);
        });
      break;
    case 2:
      if (byte(s, w.qemu + a) === GONE) turn.fair('A: switchover: the guest is lost', lost);
      else {
        if (takesIt)
          turn.fair('A: its migration completes, all is confirmed', () => {
            t[w.qemu + a] = DONE;
            to(3);
          });
        turn.fair('A: the pause takes too long: it runs on', runsOn);
      }
      break;
    case 3:
      if (takesIt && w.tables.destination[w.destination(s, m)].takesData)
        turn.fair('B: all is verified, QEMU has loaded it', () => {
          t[w.qemu + b] = LOADED;
          t[w.good + b] = 1;
          w.set('memory', m, 1);
          to(5);
        });
      turn.fair('A: the pause takes too long: it runs on', runsOn);
      break;
    case 5:
      turn.fault('diskFull', 'A: the line cannot be written: disk full', runsOn);
      turn.fair('A: hands over', () => {
        if (w.holds('only what stands still') && (byte(t, w.qemu + a) === RUNS || byte(t, w.qemu + a) === PAUSED))
          runsOn();
        else if (w.atSource(m, 'hand_over') !== undefined) w.stepEnds(m, () => w.setFlow(m, 'promise?'));
        else to(6);
      });
      break;
    case 6:
      turn.fair('A: take_over is sent', () => {
        w.set('takeSent', m, 1);
        to(ASKED_BY_SWITCHOVER);
      });
      break;
    case ASKED_BY_SWITCHOVER:
      turn.fair('A: no answer: in doubt', () =>
        w.stepEnds(m, () => {
          if (w.get('tries', m) >= 1) w.setFlow(m, 'take over by Temporal');
          else w.set('tries', m, w.get('tries', m) + 1);
        }),
      );
      break;
    default:
      release(turn, () => w.setFlow(m, 'DONE'));
  }
}

/**
 * An attempt beside the one that should be alone, where that rule is left out: it has paused the guest, and goes on to
 * hand over or lets it run on.
 */
export function lateSwitchover(turn: Turn): void {
  const { w, s, m, a, b } = turn;
  const { t } = w;
  const pc = turn.of('late') - 1;
  const loads =
    pc === 3 && turn.destinationUp && turn.of('record') === 1 && w.tables.destination[w.destination(s, m)].takesData;
  if (loads)
    turn.fair('B: loads it, for the older attempt', () => {
      t[w.qemu + b] = LOADED;
      t[w.good + b] = 1;
      w.set('memory', m, 1);
      w.set('late', m, 6);
    });
  if (pc === 5)
    turn.fair('A: the older attempt hands over', () => {
      if (w.holds('only what stands still') && (byte(t, w.qemu + a) === RUNS || byte(t, w.qemu + a) === PAUSED))
        w.set('late', m, 0);
      else w.set('late', m, w.atSource(m, 'hand_over') === undefined ? 7 : 0);
    });
  if (pc === 6)
    turn.fair('A: the older attempt sends take_over', () => {
      w.set('takeSent', m, 1);
      w.set('late', m, 0);
    });
  else
    turn.fair('A: the older attempt ends, what it has paused runs on', () => {
      w.set('late', m, 0);
      w.endLive(m);
    });
}

export function release(turn: Turn, then: () => void): void {
  const { w, m, a } = turn;
  const { t } = w;
  const to = (at: number): void => w.set('pc', m, at);
  const pc = turn.of('pc');
  switch (pc < RELEASES ? RELEASES : pc) {
    case RELEASES:
      turn.fair('A: release: the line', () => {
        if (w.source(t, m) === 'released') w.stepEnds(m, then);
        else if (!w.isLast(t, a, m) || w.atSource(m, 'taken_over') !== undefined)
          w.stepEnds(m, () => w.setFlow(m, 'promise?'));
        else to(9);
      });
      break;
    case 9:
      turn.fair('A: release: its QEMU is ended', () => {
        t[w.qemu + a] = GONE;
        to(10);
      });
      break;
    case 10:
      turn.fair('A: release: images become baselines', () => {
        if (byte(t, w.image + a) === 1) t[w.image + a] = 2;
        to(11);
      });
      break;
    case 11:
      turn.fair('A: release: the VM is away', () => {
        t[w.here + a] = 0;
        to(12);
      });
      break;
    case 12:
      turn.fair('A: release: done', () => {
        w.atSource(m, 'released');
        w.set('live', m, 0);
        w.stepEnds(m, then);
      });
      break;
    default:
  }
}
