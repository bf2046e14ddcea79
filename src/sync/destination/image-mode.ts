/**
 * What a working image is at, and what may follow. A step that would come out of turn throws.
 *
 *   receiving -> comparing -> verified -> receiving      a source begins anew
 *       ^------------+                                   the roots differ (one that was verified before is so still)
 *   failed: from each of these, for good                 closed: from each but `comparing`, which is waited for
 */
import { DwcpError } from '../../model/errors';

type Step = 'receiving' | 'comparing' | 'verified' | 'failed' | 'closed';

const FROM: Readonly<Record<Step, readonly Step[]>> = {
  receiving: ['comparing', 'verified'],
  comparing: ['receiving', 'verified'],
  // Straight from `receiving`: an earlier agent had compared it.
  verified: ['comparing', 'receiving'],
  failed: ['receiving', 'comparing', 'verified'],
  closed: ['receiving', 'verified', 'failed'],
};

export class ImageMode {
  readonly #imageId: string;
  #step: Step = 'receiving';
  #verifiedRoot: string | undefined;
  #failure: DwcpError | undefined;
  #comparison: Promise<void> | undefined;

  constructor(imageId: string) {
    this.#imageId = imageId;
  }

  get step(): Step {
    return this.#step;
  }

  /** Kept when it is closed. */
  get verifiedRoot(): string | undefined {
    return this.#verifiedRoot;
  }

  /** Kept when it is closed. */
  get failure(): DwcpError | undefined {
    return this.#failure;
  }

  /** The end of the comparison that is under way, well or not; behind it another may have begun. */
  get comparison(): Promise<void> | undefined {
    return this.#comparison?.catch(() => undefined);
  }

  /** @returns false where nothing had been verified */
  receiveAgain(): boolean {
    if (this.#step !== 'verified') return false;
    this.#enter('receiving');
    this.#verifiedRoot = undefined;
    return true;
  }

  /**
   * Once another has ended.
   * @param compare whether the root is this one; throws where it is not, or cannot be told
   * @throws the failure it has had; SUPERSEDED where it is closed
   */
  async comparing(root: string, compare: () => Promise<void>): Promise<void> {
    while (this.#comparison) await this.comparison;
    if (this.#failure) throw this.#failure;
    if (this.#step === 'closed')
      throw new DwcpError('SUPERSEDED', `Image ${this.#imageId} is closed`, { side: 'destination' });
    const before = this.#step === 'verified' ? 'verified' : 'receiving';
    this.#enter('comparing');
    this.#comparison = compare();
    try {
      await this.#comparison;
      this.verified(root);
    } finally {
      if (this.step === 'comparing') this.#step = before;
      this.#comparison = undefined;
    }
  }

  verified(root: string): void {
    this.#enter('verified');
    this.#verifiedRoot = root;
  }

  /** @returns the first failure; one that comes when it is closed is only kept */
  fail(error: DwcpError): DwcpError {
    if (this.#step !== 'closed' && this.#step !== 'failed') {
      this.#enter('failed');
      this.#verifiedRoot = undefined;
    }
    this.#failure ??= error;
    return this.#failure;
  }

  /** @returns false where it is closed already */
  async close(): Promise<boolean> {
    while (this.#comparison) await this.comparison;
    if (this.#step === 'closed') return false;
    this.#enter('closed');
    return true;
  }

  #enter(step: Step): void {
    if (!FROM[step].includes(this.#step))
      throw new DwcpError('INTERNAL', `image ${this.#imageId} cannot go from "${this.#step}" to "${step}"`);
    this.#step = step;
  }
}
