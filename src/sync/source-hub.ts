/**
 * The sending half of an agent: the migrations that leave this host, one object each, and the rule that of two attempts
 * at the same step the newer wins: the older is told to stop and has stopped before the newer begins.
 */
import { DwcpError } from '../model/errors';
import type { GuestHeadStart } from './guest-head-start';
import type { GuestMove } from './guest-move';
import type { LiveMigration } from './live-migration';
import { type Destination, type SourceContext, SourceMigration, type TransferLimits } from './source-migration';

interface Attempt {
  readonly abort: AbortController;
  readonly ended: Promise<unknown>;
}

export class SourceHub {
  readonly context: SourceContext;
  readonly #migrations = new Map<string, SourceMigration>();
  readonly #attempts = new Map<string, Attempt>();
  readonly #lives = new Map<string, GuestMove>();
  readonly #aheads = new Map<string, LiveMigration>();
  readonly #headStarts = new Map<string, GuestHeadStart>();

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
    await this.endLive(migrationId);
    this.#headStarts.delete(migrationId);
    this.#migrations.get(migrationId)?.close();
    this.#migrations.delete(migrationId);
  }

  /** Runs an attempt at a step after the one before it has stopped. The signal given ends with either. */
  async attempt<T>(step: string, signal: AbortSignal, run: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const earlier = this.#attempts.get(step);
    const abort = new AbortController();
    const forward = (): void => abort.abort(signal.reason);
    signal.addEventListener('abort', forward);
    if (signal.aborted) forward();
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
      signal.removeEventListener('abort', forward);
      if (this.#attempts.get(step) === attempt) this.#attempts.delete(step);
    }
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

  /** Ends what a migration does with its guest; before the hand-over the guest runs on here. */
  async endLive(migrationId: string): Promise<void> {
    const live = this.#lives.get(migrationId);
    this.#lives.delete(migrationId);
    await this.takeAhead(migrationId)?.breakOff();
    await live?.breakOff();
  }

  async closeAll(): Promise<void> {
    for (const id of new Set([...this.#lives.keys(), ...this.#aheads.keys(), ...this.#migrations.keys()])) await this.close(id);
  }
}
