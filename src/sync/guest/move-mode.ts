/**
 * What the move of a running guest is at, and what may follow: one step behind the other, and the end from anywhere. A step that
 * would come out of turn throws; behind the end nothing that is still under way gets any further.
 *
 *   disks -> memory -> converged -> paused -> completed -> loaded          ended: from each, once
 */
import { DwcpError } from '../../model/errors';
import type { GuestState } from '../../model/guest-states';

/** Of the states of src/model/guest-states.ts those that a move goes through by itself; the hand-over has the rest. */
type Step = Extract<GuestState, 'disks' | 'memory' | 'converged' | 'paused' | 'completed' | 'loaded'>;

const BEFORE: Readonly<Record<Step, Step | undefined>> = {
  disks: undefined,
  memory: 'disks',
  converged: 'memory',
  paused: 'converged',
  completed: 'paused',
  loaded: 'completed',
};

export class MoveMode {
  readonly #ending = new AbortController();
  #step: Step = 'disks';

  /** The last step, also of one that has ended. */
  get step(): Step {
    return this.#step;
  }

  get ended(): boolean {
    return this.#ending.signal.aborted;
  }

  /** Says when it ends. */
  get ending(): AbortSignal {
    return this.#ending.signal;
  }

  /** @throws SUPERSEDED where it has ended; INTERNAL where another step has to come before */
  enter(step: Step): void {
    this.throwIfEnded();
    if (BEFORE[step] !== this.#step)
      throw new DwcpError('INTERNAL', `the move of a guest cannot go from "${this.#step}" to "${step}"`);
    this.#step = step;
  }

  /** @param error whoever waits hears of it @returns false where it had ended before */
  end(error = superseded()): boolean {
    if (this.ended) return false;
    this.#ending.abort(error);
    return true;
  }

  throwIfEnded(): void {
    if (this.ended) throw superseded();
  }
}

function superseded(): DwcpError {
  return new DwcpError('SUPERSEDED', 'The move of the guest was broken off');
}
