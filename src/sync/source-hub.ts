/**
 * The sending half of an agent: the migrations that leave this host, one object each, and the rule that of two attempts
 * at the same step the newer wins: the older is told to stop and has stopped before the newer begins. Everything that touches
 * a migration's guest, or who owns its VM, is one such step, whoever asks: activities, the sweep, the agent's own end.
 */
import { onAbort } from '../model/abort';
import { DwcpError } from '../model/errors';
import { forgetOldest } from '../model/forget-oldest';
import type { GuestHeadStart } from './guest/guest-head-start';
import { type GuestMove, reportOf } from './guest/guest-move';
import type { LiveMigration } from './guest/live-migration';
import type { ClaimedVm } from './hand-over/source-ownership';
import type { Destination, SourceContext, TransferLimits } from './source/source-context';
import { SourceMigration } from './source/source-migration';
import { Spent } from './source/spent';

/** What this host has found of a VM for a migration; what workflows say of it is not taken instead. */
export type FoundVm = Pick<ClaimedVm, 'images' | 'guest'> & { readonly vmId: string };

/** Found again where it is not known any more. */
const MAX_FOUND = 256;

interface Attempt {
  readonly abort: AbortController;
  readonly ended: Promise<unknown>;
}

export class SourceHub {
  readonly context: SourceContext;
  readonly spent = new Spent();
  readonly #migrations = new Map<string, SourceMigration>();
  readonly #attempts = new Map<string, Attempt>();
  readonly #lives = new Map<string, GuestMove>();
  readonly #aheads = new Map<string, LiveMigration>();
  readonly #headStarts = new Map<string, GuestHeadStart>();
  readonly #found = new Map<string, FoundVm>();

  constructor(context: SourceContext) {
    this.context = context;
  }

  get migrations(): readonly SourceMigration[] {
    return [...this.#migrations.values()];
  }

  find(migrationId: string): SourceMigration | undefined {
    return this.#migrations.get(migrationId);
  }

  /** The migration of an id; made on first use, given the newest grant on every later one. */
  open(migrationId: string, destination: Destination, limits: TransferLimits): SourceMigration {
    const known = this.#migrations.get(migrationId);
    if (known) {
      known.renew(destination);
      return known;
    }
    const migration = new SourceMigration(migrationId, destination, limits, this.context);
    this.#migrations.set(migrationId, migration);
    return migration;
  }

  /** Ends a migration here: its guest runs on unless it was handed over, its streams go back to the pool. */
  async close(migrationId: string): Promise<void> {
    await this.#endTransfers(migrationId);
    await this.endLive(migrationId);
    this.#headStarts.delete(migrationId);
    this.#found.delete(migrationId);
    this.spent.forget(migrationId);
    this.#migrations.get(migrationId)?.close();
    this.#migrations.delete(migrationId);
  }

  /** The step that claims, moves, hands over, releases or rolls back: one attempt at a time for each migration. */
  ownershipStep<T>(migrationId: string, signal: AbortSignal, run: (signal: AbortSignal) => Promise<T>): Promise<T> {
    return this.attempt(`${migrationId}/ownership`, signal, run);
  }

  /** The transfer of one image that nothing writes. */
  transferStep<T>(
    migrationId: string,
    imageId: string,
    signal: AbortSignal,
    run: (signal: AbortSignal) => Promise<T>,
  ): Promise<T> {
    return this.attempt(`${migrationId}/transfer/${imageId}`, signal, run);
  }

  async #endTransfers(migrationId: string): Promise<void> {
    for (const [step, { abort, ended }] of [...this.#attempts]) {
      if (!step.startsWith(`${migrationId}/transfer/`)) continue;
      abort.abort(new DwcpError('SUPERSEDED', 'The migration ends here'));
      await ended.catch(() => undefined);
    }
  }

  /** Runs an attempt at a step after the one before it has stopped. The signal given ends with either. */
  async attempt<T>(step: string, signal: AbortSignal, run: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const earlier = this.#attempts.get(step);
    const abort = new AbortController();
    const stopListening = onAbort(signal, () => abort.abort(signal.reason));
    const running = (async (): Promise<T> => {
      earlier?.abort.abort(new DwcpError('SUPERSEDED', `A newer attempt takes over ${step}`));
      await earlier?.ended.catch(() => undefined);
      abort.signal.throwIfAborted();
      return run(abort.signal);
    })();
    const attempt = { abort, ended: running };
    this.#attempts.set(step, attempt);
    try {
      return await running;
    } finally {
      stopListening();
      if (this.#attempts.get(step) === attempt) this.#attempts.delete(step);
    }
  }

  noteFound(migrationId: string, found: FoundVm): void {
    this.#found.delete(migrationId);
    this.#found.set(migrationId, found);
    forgetOldest(this.#found, MAX_FOUND);
  }

  found(migrationId: string, vmId: string): FoundVm | undefined {
    const found = this.#found.get(migrationId);
    return found?.vmId === vmId ? found : undefined;
  }

  /** @returns false where it has been begun before */
  beginHeadStart(migrationId: string, begin: () => GuestHeadStart): boolean {
    if (this.#headStarts.has(migrationId) || this.#aheads.has(migrationId)) return false;
    this.#headStarts.set(migrationId, begin());
    return true;
  }

  /** A guest whose stream has been set going before its link stands. */
  setAhead(migrationId: string, live: LiveMigration): void {
    this.#aheads.set(migrationId, live);
  }

  ahead(migrationId: string): LiveMigration | undefined {
    return this.#aheads.get(migrationId);
  }

  takeAhead(migrationId: string): LiveMigration | undefined {
    const live = this.#aheads.get(migrationId);
    this.#aheads.delete(migrationId);
    return live;
  }

  /** For one use: what is written afterwards it does not know of. */
  takeHeadStart(migrationId: string): GuestHeadStart | undefined {
    const headStart = this.#headStarts.get(migrationId);
    this.#headStarts.delete(migrationId);
    return headStart;
  }

  /** The running guest of a migration, once its rounds have begun here. */
  live(migrationId: string): GuestMove | undefined {
    return this.#lives.get(migrationId);
  }

  setLive(migrationId: string, live: GuestMove): void {
    this.#lives.set(migrationId, live);
  }

  /** Migrations whose guest's rounds have begun here. */
  get liveIds(): readonly string[] {
    return [...new Set([...this.#lives.keys(), ...this.#aheads.keys()])];
  }

  /**
   * Ends what a migration does with its guest; before the hand-over the guest runs on here. Its session ends too: what belongs
   * to it at the destination is broken off there, and refused afterwards.
   * @throws what keeps the guest from running on; asked again it is tried again
   */
  async endLive(migrationId: string): Promise<void> {
    const moves = [this.takeAhead(migrationId), this.#lives.get(migrationId)].filter((move) => move !== undefined);
    this.#lives.delete(migrationId);
    if (moves.length === 0) return;
    try {
      for (const move of moves) await move.breakOff();
    } finally {
      for (const move of moves) this.spent.note(migrationId, reportOf(move, this.spent.of(migrationId)));
      this.#migrations.get(migrationId)?.endSession();
    }
  }

  /** The agent ends: guests that were not handed over run on. */
  async closeAll(): Promise<void> {
    const never = new AbortController().signal;
    for (const id of new Set([...this.liveIds, ...this.#migrations.keys()]))
      await this.ownershipStep(id, never, () => this.close(id)).catch(() => undefined);
  }
}
