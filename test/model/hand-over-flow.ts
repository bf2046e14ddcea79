/**
 * The workflow by itself in the hand-over's model, and those who steer it: an operator, and who terminates or resets it. What
 * the workflow asks of the source begins in hand-over-source.ts.
 */
import { BY_TEMPORAL, FOR_NOBODY, FOR_WORKFLOW } from './hand-over-destination';
import { type Flow, flowCode, OVERRIDE } from './hand-over-state';
import type { Turn } from './hand-over-turn';

const RESET_TO = ['prepare', 'rounds', 'switchover'] as const;
const MAY_BE_CANCELLED: readonly Flow[] = ['prepare', 'prepare destination', 'rounds', 'switchover'];

export function flowMoves(turn: Turn): void {
  byItself(turn);
  steered(turn);
}

function byItself(turn: Turn): void {
  const { w, m, destinationUp } = turn;
  const asksForPromise = (): void => {
    w.set('abandon', m, 1);
    w.set('abandonFor', m, FOR_WORKFLOW);
  };
  switch (turn.flow) {
    case 'prepare destination':
      if (!destinationUp)
        turn.fair('workflow: no agent at the destination: rolls back', () => w.setFlow(m, 'roll back'));
      break;
    case 'promise?':
      if (!destinationUp)
        turn.fair('workflow: no promise: the switchover is asked again', () => w.setFlow(m, 'switchover'));
      else if (turn.of('abandonFor') === 0 && turn.of('abandon') === 0)
        turn.fair('B: abandon begins, for the workflow', asksForPromise);
      break;
    case 'courtesy':
      if (!destinationUp) turn.fair('workflow: ends without the courtesy', () => w.setFlow(m, 'FAILED'));
      else if (turn.of('abandon') === 0) turn.fair('B: abandon begins, as a courtesy', asksForPromise);
      break;
    case 'take over by Temporal':
      if (!destinationUp) turn.fair('workflow: nobody takes over: parks', () => w.setFlow(m, 'parked'));
      else if (turn.of('take') === 0)
        turn.fair('B: takes over, asked by Temporal', () => {
          w.set('take', m, 1);
          w.set('takeFor', m, BY_TEMPORAL);
        });
      break;
    case 'parked':
      turn.fair('workflow: asks again by itself', () => {
        w.setFlow(m, 'switchover');
        w.set('tries', m, 0);
      });
      turn.fault('abort', 'the operator aborts', () => w.setFlow(m, 'promise?'), 'operator');
      turn.fault('acceptTwoCopies', 'the operator aborts, accepting two copies', () => {
        w.mark(OVERRIDE);
        w.setFlow(m, 'roll back');
        w.set('handedOver', m, 1);
      });
      break;
    default:
  }
}

function steered(turn: Turn): void {
  const { w, s, m, flow, isClosed } = turn;
  if (MAY_BE_CANCELLED.includes(flow) && turn.of('cancel') === 0)
    turn.fault('cancel', 'the operator cancels', () => {
      w.set('cancel', m, 1);
      if (flow !== 'switchover' && w.get('heard', m) === 0) w.setFlow(m, 'roll back');
    });
  if (flow === 'idle') return;
  if (!isClosed)
    turn.fault('terminate', 'the workflow is terminated', () => {
      w.setFlow(m, 'TERMINATED');
      forgetAsked(turn);
    });
  // A newer migration has the workflow's name.
  if (m === 0 && w.count > 1 && w.flow(s, 1) !== 'idle') return;
  for (const target of RESET_TO) {
    if (target !== 'prepare' && turn.of('asked') === 0) continue;
    if (isClosed || turn.of('flow') > flowCode(target))
      turn.fault('reset', `the workflow is reset to ${target}`, () => {
        w.setFlow(m, target);
        forgetAsked(turn);
        w.set('handedOver', m, target === 'switchover' ? 1 : 0);
        for (const name of ['cancel', 'tries'] as const) w.set(name, m, 0);
        if (target === 'prepare') w.set('asked', m, 0);
      });
  }
}

/** What was asked for the workflow goes on for nobody. */
function forgetAsked({ w, m }: Turn): void {
  w.set('heard', m, 0);
  if (w.get('abandonFor', m) === FOR_WORKFLOW) w.set('abandonFor', m, FOR_NOBODY);
  if (w.get('takeFor', m) === BY_TEMPORAL) w.set('takeFor', m, FOR_NOBODY);
}
