/**
 * The rounds of a running guest's memory, judged by one rule (src/model/convergence.ts) whichever way it is moved. It counts the
 * rounds, remembers the decision, and lets the guest be slowed down where the rule says so; what a round brought is told to it.
 */
import type { GuestPort } from '../../hypervisor/contract';
import { type ConvergenceDecision, decideRound, type RoundMeasurement } from '../../model/convergence';
import { DwcpError } from '../../model/errors';
import type { MigrationOptions } from '../../model/options';

/** What a round brought. */
export type RoundMeasured = Omit<RoundMeasurement, 'round' | 'remainingBytesBefore'>;

export class RoundJudge {
  readonly #options: MigrationOptions;
  readonly #guest: Pick<GuestPort, 'allowThrottle'>;
  /** QEMU's count when the last round was judged: it rises when QEMU looks at its dirty log, the first time before the first round. */
  #counted = 1;
  #round = 0;
  #remainingBytes: number | undefined;
  #decision: ConvergenceDecision | undefined;

  constructor(options: MigrationOptions, guest: Pick<GuestPort, 'allowThrottle'>) {
    this.#options = options;
    this.#guest = guest;
  }

  /** Rounds judged so far; QEMU itself counts how often it has looked at its dirty log. */
  get round(): number {
    return this.#round;
  }

  get decision(): ConvergenceDecision | undefined {
    return this.#decision;
  }

  /** @param counted rounds that QEMU has begun */
  isOver(counted: number): boolean {
    return counted > this.#counted;
  }

  /** A round is over. @returns true where the guest may be paused @throws GUEST_NOT_CONVERGING */
  async judge(counted: number, measured: RoundMeasured): Promise<boolean> {
    this.#counted = counted;
    this.#round += 1;
    const { maxDowntimeMs, memoryIterations, dirtyPageThreshold, autoConverge } = this.#options;
    const limits = { maxDowntimeMs, memoryIterations, dirtyPageThreshold, mayThrottle: autoConverge };
    const decision = decideRound(
      { ...measured, round: this.#round, remainingBytesBefore: this.#remainingBytes },
      limits,
    );
    this.#remainingBytes = measured.remainingBytes;
    this.#decision = decision;
    if (decision.next === 'throttle') await this.#guest.allowThrottle();
    if (decision.next === 'cannot converge')
      throw new DwcpError('GUEST_NOT_CONVERGING', decision.reason, { phase: 'transfer', side: 'source' });
    return decision.next === 'switch over';
  }
}
