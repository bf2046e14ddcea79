/**
 * The source QEMU's side of a live migration: QEMU sends its stream to a UNIX socket of ours, at the pace at which we read,
 * and goes no further than we let it. What is done with the pages, and when rounds end, is the caller's business.
 *
 *   start -> active (rounds; the guest runs) -> letSwitchOver -> pre-switchover (the guest is stopped) -> complete -> completed
 *              +-------------- cancel ----------------+-> cancelled: the guest runs on, by QEMU's own doing
 *
 * QEMU lets its guest go on by itself when the stream breaks before `completed`, and behind it never: so a destination may not
 * start before. Seen on QEMU 7.2 and 10.0; MigrationStatus in qapi/migration.json.
 */
import { rmSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { DwcpError, toDwcpError } from '../../model/errors';
import { cannotBeMovedLive } from '../../model/guest-refusals';
import type { Convergence } from '../contract';
import { untilHinted } from './free-page-hints';
import { GuestNews } from './guest-news';
import { giveSocket } from './guest-places';
import type { GuestIds } from './guest-user';
import type { QmpClient } from './qmp-client';
import type { MigrationInfo, QmpEvent } from './qmp-schemas';

/**
 * The least that makes QEMU look at its dirty log again before it stops the guest (migration.c, migration_iteration_run:
 * only what is below the limit is measured exactly). A guest that hardly writes may still come to its stop by itself.
 */
const AS_LATE_AS_MAY_BE_MS = 1;
/**
 * Where the switchover cannot be held back, for this long nothing is read: a first pass that is through before QEMU has
 * taken its first measurement (100 ms) counts as converged, whatever is dirty by then (tried, 10.0.2).
 */
const FIRST_MEASUREMENT_MS = 250;
/** Longer than any guest takes to send what it has: the switchover comes with the next iteration. */
const AT_ONCE_MS = 2_000_000;
/** Our reading is the brake, not QEMU's own limit. */
const NO_LIMIT_BYTES_PER_SECOND = 2 ** 40;
/** How long QEMU may be stuck in a write, and what it may send after that: at least a page in each tenth of a second. */
const HOLD_AT_MOST_MS = 250;
const TRICKLE_BYTES_PER_SECOND = 4096;
/** QEMU judges by the pace at which we read, and would throttle guests that we only keep waiting: not before we say so. */
const HARDLY_THROTTLED = { 'cpu-throttle-initial': 1, 'cpu-throttle-increment': 1, 'max-cpu-throttle': 1 };
const THROTTLED = { 'cpu-throttle-initial': 20, 'cpu-throttle-increment': 10, 'max-cpu-throttle': 99 };
const STATE_TIMEOUT_MS = 120_000;
/** Run states in which a guest stands still for its migration; in any other somebody else has stopped it. */
const STOPPED_FOR_MIGRATION: ReadonlySet<string> = new Set(['running', 'finish-migrate', 'postmigrate']);
/**
 * What a destination says on the return path (be16 type, be16 length, data; migration.c, mig_rp_message_type): that it is
 * ready for the switchover, and that it says no more. Held back, the first keeps a guest that writes nothing from being
 * stopped before we are ready; QEMU has it from 8.1 on.
 */
const SWITCHOVER_ACK = Buffer.from([0, 7, 0, 0]);
const SAYS_NO_MORE = Buffer.from([0, 1, 0, 4, 0, 0, 0, 0]);

/** Takes QEMU's stream as it comes; a throw breaks it off, and the guest runs on. */
export interface StreamTaker {
  feed(chunk: Buffer): void;
}

export interface OutgoingOptions extends Partial<Convergence> {
  /** As whom QEMU runs, where that is another than this process. */
  readonly peer?: GuestIds | undefined;
  /** The guest says what is free: it is given a moment for that. */
  readonly hints?: boolean;
}

export class OutgoingMigration {
  readonly #qmp: QmpClient;
  readonly #path: string;
  readonly #stream: StreamTaker;
  #server: Server | undefined;
  #socket: Socket | undefined;
  #held = false;
  #holdTimer: NodeJS.Timeout | undefined;
  #trickling = false;
  /** QEMU sends next to nothing until the guest has said which pages are free. */
  #hearing: boolean;
  #acknowledges = false;
  /** When QEMU was told that it may stop the guest; by the clock of its events, which is this host's. */
  #mayStopFromMs = Infinity;
  #status = 'none';
  #stopped: QmpEvent | undefined;
  /** A stop has been heard of, and QEMU is asked what for. */
  #lookingAtStop: Promise<void> = Promise.resolve();
  #onStopped: ((atMs: number) => void) | undefined;
  #failed: ((error: DwcpError) => void) | undefined;
  #stopListening: (() => void) | undefined;
  readonly #news: GuestNews;
  readonly #autoConverge: boolean;
  readonly #peer: GuestIds | undefined;
  /** Resolves when QEMU has closed its stream: everything it sent has been read. */
  readonly #streamEnded: Promise<void>;
  #endStream: () => void = () => undefined;

  /**
   * @param path a place for the socket, in a folder where nobody else can put anything
   */
  constructor(
    qmp: QmpClient,
    path: string,
    stream: StreamTaker,
    { autoConverge = false, peer, hints = false }: OutgoingOptions = {},
  ) {
    this.#peer = peer;
    this.#hearing = hints;
    this.#qmp = qmp;
    this.#path = path;
    this.#stream = stream;
    this.#autoConverge = autoConverge;
    this.#news = new GuestNews(qmp, (asleep) => this.#fail(asleep));
    this.#streamEnded = new Promise((resolve) => (this.#endStream = resolve));
  }

  /** Called once where the stream breaks or cannot be understood; the migration has been cancelled in QEMU then. */
  onFailure(handler: (error: DwcpError) => void): void {
    this.#failed = handler;
  }

  /** Sets QEMU going. @throws QEMU_REFUSED where the guest cannot be migrated, with QEMU's own reason */
  async start(): Promise<void> {
    await this.#listen();
    this.#stopListening = this.#qmp.onEvent((event) => {
      if (event.name === 'MIGRATION') this.#noteStatus(String(event.data.status));
      if (event.name === 'STOP') this.#lookingAtStop = this.#noteStop(event);
    });
    const present = await this.#qmp.execute('query-migrate-capabilities');
    this.#acknowledges = present.some(({ capability }) => capability === 'switchover-ack');
    const wanted: Readonly<Record<string, boolean>> = {
      events: true,
      'pause-before-switchover': true,
      'auto-converge': this.#autoConverge,
      'return-path': this.#acknowledges,
      'switchover-ack': this.#acknowledges,
    };
    const capabilities = present
      .filter(({ capability, state }) => state !== (wanted[capability] ?? false))
      .map(({ capability, state }) => ({ capability, state: !state }));
    if (capabilities.length > 0) await this.#qmp.execute('migrate-set-capabilities', { capabilities });
    await this.#qmp.execute('migrate-set-parameters', {
      'max-bandwidth': this.#hearing ? TRICKLE_BYTES_PER_SECOND : NO_LIMIT_BYTES_PER_SECOND,
      'downtime-limit': AS_LATE_AS_MAY_BE_MS,
      ...HARDLY_THROTTLED,
    });
    await this.#qmp.execute('migrate', { uri: `unix:${this.#path}` });
    if (this.#hearing) void untilHinted(this.#qmp).then(() => this.#hintsAreOver());
  }

  /**
   * Stops reading: QEMU waits, the guest runs on. When it takes longer, QEMU is told to send next to nothing and that is
   * read: a QEMU that is stuck in a write keeps the lock of its dirty bitmaps, and with auto-converge its main loop wants
   * that lock every five seconds (cpu-throttle.c, 9.2 and newer) - the guest would stand still until somebody reads.
   */
  hold(): void {
    this.#held = true;
    this.#socket?.pause();
    this.#holdTimer ??= setTimeout(() => this.#trickle(), HOLD_AT_MOST_MS);
  }

  release(): void {
    this.#held = false;
    clearTimeout(this.#holdTimer);
    this.#holdTimer = undefined;
    if (this.#trickling && !this.#hearing) this.#setBandwidth(NO_LIMIT_BYTES_PER_SECOND);
    this.#trickling = false;
    this.#socket?.resume();
  }

  #hintsAreOver(): void {
    this.#hearing = false;
    if (!this.#trickling) this.#setBandwidth(NO_LIMIT_BYTES_PER_SECOND);
  }

  /** From now on QEMU may slow the guest down until its rounds shrink. Where `autoConverge` was not asked for, nothing. */
  async allowThrottle(): Promise<void> {
    await this.#qmp.execute('migrate-set-parameters', THROTTLED);
  }

  info(): Promise<MigrationInfo> {
    return this.#qmp.execute('query-migrate');
  }

  /**
   * Lets QEMU stop the guest at the end of the round it is in. The stream must be read meanwhile.
   * @param stopped hears of QEMU's time of the guest's stop, where downtime begins, before QEMU is ready to go on
   * @throws GUEST_PAUSED where the guest had been stopped by somebody else
   */
  async letSwitchOver(stopped: (atMs: number) => void): Promise<void> {
    this.#onStopped = stopped;
    this.#mayStopFromMs = Date.now();
    if (this.#stopped) stopped(this.#stopped.atMs);
    if (this.#status !== 'pre-switchover') {
      const reached = this.#reaches('pre-switchover');
      if (this.#acknowledges) this.#socket?.write(Buffer.concat([SWITCHOVER_ACK, SAYS_NO_MORE]));
      await Promise.all([reached, this.#qmp.execute('migrate-set-parameters', { 'downtime-limit': AT_ONCE_MS })]);
    }
    await this.#lookingAtStop;
    // QEMU says nothing of the stop of a guest that stands still already.
    if (!this.#stopped) throw this.#whyStopped();
  }

  /**
   * QEMU stops the guest for its migration, or an operator does: then the migration ends, and the guest stays as it is. Which one
   * it was the run state says too late: a guest that was stopped needs no acknowledgement, and is at its switchover in a moment
   * (migration.c, migration_can_switchover). Where that is held back, QEMU stops none by itself before it is told that it may.
   */
  async #noteStop(event: QmpEvent): Promise<void> {
    const mayBeOurs = !this.#acknowledges || event.atMs >= this.#mayStopFromMs;
    const status = await this.#qmp.execute('query-status').then(
      (answer) => answer.status,
      () => undefined,
    );
    const wasStopped = this.#news.stopped;
    if (status === undefined || (mayBeOurs && !wasStopped && STOPPED_FOR_MIGRATION.has(status))) {
      this.#stopped = event;
      this.#onStopped?.(event.atMs);
      return;
    }
    this.#fail(this.#whyStopped());
  }

  /** QEMU has not come as far as its stream: what it says of that is said at once, and nobody waits for it. */
  #noteStatus(status: string): void {
    this.#status = status;
    if (status !== 'failed' || this.#socket) return;
    const reason = this.info().then(
      (info) => info['error-desc'],
      () => undefined,
    );
    void reason.then((why) => this.#fail(notReached(why ?? 'it gives no reason')));
  }

  #whyStopped(): DwcpError {
    return this.#news.stopped ?? pausedByOthers();
  }

  #fail(error: DwcpError): void {
    this.#failed?.(error);
    this.#failed = undefined;
  }

  /** From `pre-switchover`: the last pages and the device state. Past this QEMU never starts the guest by itself. */
  async complete(): Promise<void> {
    const completed = this.#reaches('completed');
    await Promise.all([
      completed,
      this.#streamEnded,
      this.#qmp.execute('migrate-continue', { state: 'pre-switchover' }),
    ]);
    this.#close();
  }

  /** Ends it before `complete`: the guest runs on at the source. Idempotent. */
  async cancel(): Promise<void> {
    try {
      const { status } = await this.info();
      if (status !== undefined && !['none', 'cancelled', 'failed', 'completed'].includes(status)) {
        // In its last moments, with the device state on its way, a migration is through before a cancel reaches it.
        const cancelled = this.#reaches('cancelled', 'failed', 'completed');
        this.release();
        await Promise.all([cancelled, this.#qmp.execute('migrate_cancel')]);
      }
    } finally {
      // Nobody listens any more for a QEMU that has ended either.
      this.#close();
    }
  }

  /** Waits for one of these states. @throws QEMU_REFUSED where QEMU's migration fails instead, with its reason */
  async #reaches(...wanted: readonly string[]): Promise<void> {
    const isState = ({ name, data }: QmpEvent): boolean =>
      name === 'MIGRATION' && (wanted.includes(String(data.status)) || data.status === 'failed');
    const { data } = await this.#qmp.event(`migration state ${wanted.join(' or ')}`, isState, STATE_TIMEOUT_MS);
    if (wanted.includes(String(data.status))) return;
    const info = await this.info();
    throw new DwcpError('QEMU_REFUSED', `QEMU's migration failed: ${info['error-desc'] ?? 'it gives no reason'}`, {
      side: 'source',
    });
  }

  #trickle(): void {
    this.#trickling = true;
    this.#socket?.resume();
    this.#setBandwidth(TRICKLE_BYTES_PER_SECOND);
  }

  /** Best effort: a QEMU that is gone is noticed elsewhere. */
  #setBandwidth(bytesPerSecond: number): void {
    this.#qmp.execute('migrate-set-parameters', { 'max-bandwidth': bytesPerSecond }).catch(() => undefined);
  }

  async #listen(): Promise<void> {
    rmSync(this.#path, { force: true });
    const server = createServer((socket) => this.#accept(socket));
    this.#server = server;
    await new Promise<void>((resolve, reject) => server.once('error', reject).listen(this.#path, resolve));
    giveSocket(this.#path, this.#peer);
  }

  #accept(socket: Socket): void {
    this.#socket = socket;
    socket.pause();
    setTimeout(
      () => {
        if (!this.#held) socket.resume();
      },
      this.#acknowledges ? 0 : FIRST_MEASUREMENT_MS,
    );
    socket.on('error', () => undefined);
    socket.on('end', () => this.#endStream());
    socket.on('data', (chunk: Buffer) => {
      try {
        this.#stream.feed(chunk);
      } catch (error) {
        this.#giveUp(toDwcpError(error, 'INTERNAL', { side: 'source' }));
      }
    });
  }

  /** QEMU sees its stream break, and the guest runs on. */
  #giveUp(error: DwcpError): void {
    this.#close();
    this.#fail(error);
  }

  #close(): void {
    clearTimeout(this.#holdTimer);
    this.#stopListening?.();
    this.#news.close();
    this.#socket?.destroy();
    this.#server?.close();
    this.#server = undefined;
    rmSync(this.#path, { force: true });
  }
}

function pausedByOthers(): DwcpError {
  return new DwcpError('GUEST_PAUSED', 'Somebody has paused the guest while it was being moved; it stays as it is', {
    side: 'source',
  });
}

/** A QEMU that runs as another, or sees other folders, does not come to a socket of the agent's. */
function notReached(why: string): DwcpError {
  return cannotBeMovedLive(`its QEMU cannot connect to the agent: ${why}`, {
    hint: 'Start it with `dwcp vm start`, or as the agent’s user and without -runas, -chroot or namespaces of its own',
  });
}
