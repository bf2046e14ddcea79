/**
 * By what a workflow asks hosts for anything: a warrant of the control plane, got when it is first needed, taken anew before its time is
 * over or where a host says that it is. Histories from before there were warrants go on without.
 */
import { CancellationScope, patched } from '@temporalio/workflow';
import type { ActivityInput } from '../src/model/activity-inputs';
import { type Authority as Authorising, type Call, onControl } from './activity-proxies';

type Wanted = Omit<ActivityInput<'authorise'>, 'previous' | 'twoCopies'> & { readonly twoCopies?: string | undefined };

/** Steps may wait this long for a host before they begin. */
const RENEW_BEFORE_MS = 5 * 60_000;

export class Authority implements Authorising {
  #wanted: Wanted;
  #granted: Wanted | undefined;
  #signed: string | undefined;
  #renewAtMs = 0;
  #asked = 0;
  #asking: Promise<string | undefined> | undefined;

  constructor(wanted: Wanted) {
    this.#wanted = wanted;
  }

  get isInForce(): boolean {
    return patched('warrants');
  }

  /** From now on more is asked for. */
  extend(more: Partial<Wanted>): void {
    this.#wanted = { ...this.#wanted, ...more };
    this.expire();
  }

  /** The one at hand is of no use any more. */
  expire(): void {
    this.#renewAtMs = 0;
  }

  /** @returns undefined where the control plane signs none */
  async current(): Promise<string | undefined> {
    if (Date.now() < this.#renewAtMs) return this.#signed;
    this.#asking ??= CancellationScope.nonCancellable(() => this.#ask()).finally(() => (this.#asking = undefined));
    return this.#asking;
  }

  /** Until what was asked for is what is wanted: it may have become more meanwhile. */
  async #ask(): Promise<string | undefined> {
    for (;;) {
      const wanted = this.#wanted;
      const { twoCopies, ...of } = wanted;
      const { warrant, expiresAtMs } = await onControl(this.#call())
        .authorise({
          ...of,
          ...(twoCopies !== undefined && { twoCopies }),
          ...(this.#signed !== undefined && { previous: this.#signed }),
        })
        .catch((error: unknown) => {
          // What was granted before stands: by it the source is rolled back.
          if (this.#granted !== undefined && wanted === this.#wanted) this.#wanted = this.#granted;
          throw error;
        });
      this.#signed = warrant;
      this.#granted = wanted;
      if (wanted !== this.#wanted) continue;
      this.#renewAtMs = expiresAtMs - RENEW_BEFORE_MS;
      return warrant;
    }
  }

  #call(): Call {
    const { mode, sourceHost = '' } = this.#wanted;
    this.#asked += 1;
    // Of several that a workflow has at a time each is of one host.
    const host = mode === 'upkeep' ? `${sourceHost}-` : '';
    return { activityId: `authorise-${host}${this.#asked}`, summary: `Sign what hosts may do: ${mode}` };
  }
}
