/**
 * What dies in the hand-over's model, and comes back: agents, hosts, QEMUs; and an agent's recovery, before it hears of Temporal.
 * What was in memory is gone, the journals stay.
 */
import { BY_TEMPORAL } from './hand-over-destination';
import { byte, GONE, MAY_BE_LOST, type Out, type World } from './hand-over-state';

const OF_SOURCE = ['step', 'pc', 'promise', 'live', 'late'] as const;
const OF_DESTINATION = [
  'take',
  'takeFor',
  'abandon',
  'abandonFor',
  'abandonSent',
  'takeSent',
  'promised',
  'dataLate',
] as const;

export function faults(w: World, s: Uint8Array, host: number, out: Out): void {
  const { t } = w;
  const name = 'AB'[host] ?? '';
  const fault = (budget: 'agentCrash' | 'hostCrash' | 'qemuDeath', label: string, change: () => void): void => {
    const left = byte(s, w.left[budget]);
    if (left === 0) return;
    t.set(s);
    t[w.left[budget]] = left - 1;
    change();
    out(t, label, 'fault');
  };
  if (byte(s, w.up + host) === 1) fault('agentCrash', `${name}'s agent dies`, () => agentDies(w, host));
  else {
    t.set(s);
    t[w.up + host] = 1;
    t[w.recovering + host] = 1;
    out(t, `${name}'s agent starts`, 'fair');
  }
  if (byte(s, w.recovering + host) === 1) {
    t.set(s);
    recovers(w, host);
    out(t, `${name}: recovery, before it hears of Temporal`, 'fair');
  }
  fault('hostCrash', `host ${name} goes down`, () => {
    agentDies(w, host);
    if (byte(t, w.qemu + host) !== GONE) w.mark(MAY_BE_LOST);
    t[w.qemu + host] = GONE;
    // The RAM image was never synced.
    for (let m = 0; m < w.count; m += 1) if (w.sourceOf(m) !== host && w.get('memory', m) !== 0) w.set('memory', m, 2);
  });
  if (byte(s, w.qemu + host) !== GONE)
    fault('qemuDeath', `${name}'s QEMU dies`, () => {
      w.mark(MAY_BE_LOST);
      t[w.qemu + host] = GONE;
    });
}

function agentDies(w: World, host: number): void {
  w.t[w.up + host] = 0;
  w.t[w.recovering + host] = 0;
  for (let m = 0; m < w.count; m += 1) {
    if (w.sourceOf(m) === host) for (const field of OF_SOURCE) w.set(field, m, 0);
    else {
      if (w.get('takeFor', m) === BY_TEMPORAL && w.flow(w.t, m) === 'take over by Temporal') w.setFlow(m, 'parked');
      for (const field of OF_DESTINATION) w.set(field, m, 0);
    }
  }
}

/** The source's side, as the table says; the destination's is its sweep's first round. */
function recovers(w: World, host: number): void {
  const { t } = w;
  t[w.recovering + host] = 0;
  const m = byte(t, w.last + host) - 1;
  if (m < 0 || w.sourceOf(m) !== host) return;
  switch (w.tables.source[w.source(t, m)].atStart) {
    case 'let the guest run on':
      w.letRunOn(m);
      break;
    case 'roll_back':
      w.letRunOn(m);
      w.atSource(m, 'runs_again');
      break;
    case 'taken_over':
      t[w.qemu + host] = GONE;
      if (byte(t, w.image + host) === 1) t[w.image + host] = 2;
      t[w.here + host] = 0;
      w.atSource(m, 'released');
      break;
    default:
  }
}
