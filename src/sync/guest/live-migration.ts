/**
 * A running guest on its way, as its source sees it: disks first, then memory with disk rounds beside it, until the rule says
 * that the pause is short enough; then the switchover. Anything that goes wrong before the hand-over ends with the guest
 * running on here.
 *
 *   ahead():  memory, before the link stands, where no disk has to go before it; sendAhead(): and its sending, once it does
 *   rounds():  disks -> memory -> converged           switchOver(): last disk round -> pause -> last pages, device state
 *      ^                             |                     -> all confirmed, roots equal, loaded -> hand over -> take over
 *      +--- GUEST_RUNS_ON ----- broken off ----------------------+
 */
import type { GuestPort } from '../../hypervisor/contract';
import { DwcpError, toDwcpError } from '../../model/errors';
import { MEMORY_IMAGE_ID } from '../../model/guest';
import type { ImageSpec, VmImage } from '../../model/image';
import type { ImageProgress } from '../../model/migration';
import { formatDuration, KIB } from '../../model/units';
import { type Looking, until, wait } from '../../system/wait';
import { blankPagesOf } from '../codec/blank-pages';
import { FeedLag } from './destination-lag';
import { DiskRounds } from './disk-rounds';
import type { GuestMove, ReadyToHandOver } from './guest-move';
import { letRunOn, type PauseBudget, pauseWithin, runsOn } from './guest-pause';
import { GuestPauses } from './guest-pauses';
import type { GuestSender } from './guest-sender';
import { LiveBacklog } from './live-backlog';
import { LiveDisks } from './live-disks';
import { type LinkKnown, type LiveRequest, LiveSending } from './live-sending';
import { MemoryStream } from './memory-stream';
import { MoveMode } from './move-mode';
import { RoundJudge } from './round-judge';

const LOOK_EVERY_MS = 100;
/** Towards the end of a round. */
const LOOK_OFTEN_MS = 20;
/** At what comes within moments. */
const LOOK_CLOSELY_MS = 10;
/** Batches larger than this were packed before the end came into sight. */
const SMALL_BATCH_BYTES = 96 * KIB;
/** How long rounds go on for the destination's QEMU to be given what has arrived. */
const FEED_PATIENCE_MS = 20_000;
/** Behind this much patience what is still on the way goes over with the guest stopped. */
const DRAIN_ROUND_TRIPS = 4;
const DRAIN_PATIENCE_MS = 200;
/** What has come up since the rounds ended, and would make the pause too long, is sent before it, or the rounds begin anew. */
const FIT_PATIENCE_MS = 20_000;
/** A stream begun ahead does not wait longer for its link: QEMU keeps a log of what the guest writes meanwhile. */
const AHEAD_PATIENCE_MS = 30_000;

export class LiveMigration implements GuestMove {
  readonly pauses = new GuestPauses();
  readonly #request: LiveRequest;
  readonly #guest: GuestPort;
  readonly #memoryImage: ImageSpec & VmImage;
  readonly #memory: MemoryStream;
  readonly #disks = new LiveDisks();
  readonly #sending: LiveSending;
  readonly #feedLag = new FeedLag();
  #link: LinkKnown | undefined;
  #ahead: Promise<void> | undefined;
  #begun: Promise<void> | undefined;
  #aheadTimer: NodeJS.Timeout | undefined;
  #failure: DwcpError | undefined;
  readonly #mode = new MoveMode();
  readonly #judge: RoundJudge;
  readonly #diskRounds: DiskRounds;
  readonly #backlog: LiveBacklog;
  #breakingOff: Promise<void> | undefined;

  constructor(request: LiveRequest, guest: GuestPort) {
    this.#request = request;
    this.#guest = guest;
    const memory = request.images.find(({ imageId }) => imageId === MEMORY_IMAGE_ID);
    if (!memory) throw new DwcpError('INTERNAL', 'a running guest without memory');
    this.#memoryImage = memory;
    this.#judge = new RoundJudge(request.options, guest);
    this.#memory = new MemoryStream(memory.sizeBytes, request.headStart, guest);
    this.#sending = new LiveSending({
      request,
      guest,
      memoryImage: memory,
      memory: this.#memory,
      disks: this.#disks,
      mode: this.#mode,
    });
    this.#diskRounds = new DiskRounds(request.options, this.#disks, this.#sending);
    const disks = { disks: this.#disks, rounds: this.#diskRounds };
    this.#backlog = new LiveBacklog(guest, this.#memory, disks, this.#sending);
  }

  get reason(): string {
    return this.#judge.decision?.reason ?? '';
  }

  progress(before: readonly ImageProgress[]): ReturnType<GuestMove['progress']> {
    const { dirtyBytesPerSecond, throttle } = this.#backlog.info;
    return {
      guest: {
        state: this.#mode.step,
        round: this.#judge.round,
        remainingBytes: this.#backlog.remainingBytes,
        dirtyBytesPerSecond,
        throttle,
        ...this.#writeLimit,
        rateBytesPerSecond: Math.round(this.#sending.sender?.session?.stats.goodputBytesPerSecond ?? 0),
        expectedDowntimeMs: Math.round(this.#judge.decision?.expectedDowntimeMs ?? 0),
        ...this.pauses.soFar(before),
      },
      images: this.#sending.progress(before),
    };
  }

  /** Sets the memory stream going before the link stands. It comes no further than may be on the way later. */
  ahead(): Promise<void> {
    this.#ahead ??= this.#beginAhead();
    this.#aheadTimer ??= setTimeout(() => void this.breakOff().catch(() => undefined), AHEAD_PATIENCE_MS);
    return this.#ahead;
  }

  /** The link stands, and nothing but its round trip is known: what ahead() brings is sent. */
  sendAhead(link: LinkKnown): void {
    this.#link = link;
    this.#begun ??= this.#begin();
    this.#begun.catch((error: unknown) => this.#fail(toDwcpError(error, 'INTERNAL')));
  }

  /** Once, before rounds(). @returns false where what was begun ahead is of no use any more */
  async through(link: LinkKnown): Promise<boolean> {
    this.#link = link;
    this.#sending.linkBytesPerSecond = link.linkBytesPerSecond;
    clearTimeout(this.#aheadTimer);
    await this.#ahead?.catch((error: unknown) => this.#fail(toDwcpError(error, 'INTERNAL')));
    return !this.#mode.ended && this.#failure === undefined;
  }

  async rounds(signal: AbortSignal): Promise<void> {
    if (this.#mode.step === 'converged') return;
    this.#mode.throwIfEnded();
    if (!this.#ahead) await this.#prepare();
    await (this.#begun ??= this.#begin());
    await until(() => this.#sending.allOpened, this.#looking(signal));
    await this.#diskRounds.beforeMemory(this.#looking(signal));
    if (!this.#ahead) await this.#startMemory();
    await this.#memoryRounds(signal);
    this.#mode.enter('converged');
  }

  async pauseGuest(signal: AbortSignal, before: readonly ImageProgress[] = []): Promise<ReadyToHandOver> {
    const { sender, sent } = this.#sending;
    if (this.#mode.step !== 'converged' || !sender || !sent) throw runsOn('the rounds were not at their end here');
    const { roots, pausedAtMs } = await pauseWithin(
      this,
      this.#request.options.maxDowntimeMs,
      AbortSignal.any([signal, this.#mode.ending]),
      () => this.#failure,
      async (budget) => {
        await this.#lastLook(signal);
        this.#disks.hurry();
        this.#memory.feed.hurry();
        this.#mode.enter('paused');
        this.#memory.brake.letGo();
        return this.#pauseAndSend(sender, sent, budget);
      },
    );
    sender.remember();
    const { leftOutBytes } = this.#guest;
    return {
      roots,
      pausedAtMs,
      guest: {
        ...{ rounds: this.#judge.round, reason: this.reason, throttle: this.#backlog.info.throttle },
        ...this.#writeLimit,
        ...this.pauses.beforeThis(before),
        ...(leftOutBytes > 0 && { leftOutBytes }),
      },
      images: this.#sending.results(roots, before),
    };
  }

  get #writeLimit(): { readonly writeLimitBytesPerSecond?: number } {
    const limit = this.#diskRounds.limitBytesPerSecond;
    return limit === undefined ? {} : { writeLimitBytesPerSecond: limit };
  }

  standsStill(): Promise<boolean> {
    return this.#guest.standsStill();
  }

  breakOff(): Promise<void> {
    if (this.#mode.end()) this.#breakingOff = this.#breakOff();
    return this.#breakingOff ?? Promise.resolve();
  }

  async #breakOff(): Promise<void> {
    clearTimeout(this.#aheadTimer);
    this.#sending.stop(this.#mode.ending.reason);
    await this.#ahead?.catch(() => undefined);
    await this.#begun?.catch(() => undefined);
    try {
      await letRunOn(this.#guest);
    } finally {
      await this.#sending.sent?.catch(() => undefined);
      this.#guest.close();
    }
  }

  close(): void {
    this.#mode.end();
    this.#guest.close();
  }

  async #beginAhead(): Promise<void> {
    await this.#prepare();
    if (!this.#mode.ended) await this.#startMemory();
  }

  /** The guest as it was before anything. */
  async #prepare(): Promise<void> {
    this.#guest.onFailure((error) => this.#fail(error));
    await this.#guest.runOn();
    await this.#memory.prepare();
  }

  async #begin(): Promise<void> {
    if (!this.#link) throw new DwcpError('INTERNAL', 'rounds before the link stands');
    await this.#sending.begin(this.#link, (error) => this.#fail(error));
  }

  async #startMemory(): Promise<void> {
    const {
      guest: { ramBlocks },
      options,
    } = this.#request;
    const { path, sizeBytes } = this.#memoryImage;
    const { feed, settled, brake } = this.#memory;
    this.#mode.enter('memory');
    brake.remains(sizeBytes, undefined, 1);
    const events = this.#memory.events((prefix, sectionId) => this.#sending.setUp({ prefix, sectionId }));
    await this.#guest.startMemory({
      path,
      ramBlocks,
      blankPages: (fd) => blankPagesOf(fd, sizeBytes),
      settled: settled.blocks,
      autoConverge: options.autoConverge,
      events,
    });
    feed.setFile(this.#guest.memoryFd);
    this.#guest.onFailure((error) => this.#fail(error));
  }

  async #memoryRounds(signal: AbortSignal): Promise<void> {
    let convergedAt: number | undefined;
    for (;;) {
      await wait(this.#memory.brake.isNearlyThrough ? LOOK_OFTEN_MS : LOOK_EVERY_MS, signal);
      this.#throwIfFailed();
      this.#feedLag.ask(this.#sending.sender?.session);
      await this.#backlog.look();
      if (convergedAt !== undefined && (this.#feedLag.isSmall || performance.now() > convergedAt + FEED_PATIENCE_MS))
        return;
      await this.#diskRounds.besideMemory();
      const isOver = this.#judge.isOver(this.#backlog.info.rounds) && this.#memory.brake.isThrough;
      if (convergedAt !== undefined || !isOver) continue;
      const disks = await this.#diskRounds.left();
      if (
        !this.#diskRounds.isLittle(disks) ||
        !(await this.#judge.judge(this.#backlog.info.rounds, this.#backlog.measured(disks)))
      )
        continue;
      this.#comeToAnEnd();
      if (this.#feedLag.isSmall) return;
      convergedAt = performance.now();
    }
  }

  /** From now on little is on the way at a time, and that fast. */
  #comeToAnEnd(): void {
    this.#sending.sender?.hurry();
    this.#memory.brake.pauseIsClose();
    this.#disks.nameFew();
    this.#memory.feed.nameFew();
  }

  /** With the guest still running: what can be sent before the pause does not count as downtime. */
  async #lastLook(signal: AbortSignal): Promise<void> {
    const begunAt = performance.now();
    await this.#disks.nextRound();
    const giveUpAt = begunAt + DRAIN_PATIENCE_MS + DRAIN_ROUND_TRIPS * this.#sending.ofLate.rttMs;
    for (;;) {
      await this.#backlog.look();
      if (this.#backlog.isWorthPausing && (this.#sending.sender?.largestOnTheWay ?? 0) <= SMALL_BATCH_BYTES) return;
      const now = performance.now();
      if (now >= giveUpAt && (await this.#fitsAPause(now < begunAt + FIT_PATIENCE_MS ? 'wait' : 'break off'))) return;
      await wait(LOOK_CLOSELY_MS, signal);
      this.#throwIfFailed();
    }
  }

  async #fitsAPause(orElse: 'wait' | 'break off'): Promise<boolean> {
    const [expectedMs, mostMs] = [await this.#backlog.expectedDowntimeMs(), this.#request.options.maxDowntimeMs];
    if (expectedMs <= mostMs) return true;
    if (orElse === 'wait') return false;
    const pause = `${formatDuration(expectedMs)}, of at most ${formatDuration(mostMs)}`;
    throw runsOn(`what the guest has changed since its rounds ended would make it stand still for ${pause}`);
  }

  async #pauseAndSend(
    sender: GuestSender,
    sent: Promise<void>,
    budget: PauseBudget,
  ): Promise<{ roots: Record<string, string>; pausedAtMs: number }> {
    let pausedAtMs = 0;
    await this.#guest.pause((atMs) => {
      pausedAtMs = atMs;
      budget.begin(atMs);
    });
    this.#mode.throwIfEnded();
    await this.#disks.lastRound(this.#sending.stopped);
    this.#mode.throwIfEnded();
    const { commands, devices } = await this.#guest.complete();
    this.#mode.enter('completed');
    await sent;
    await this.#sending.setUpSent;
    const [session, roots] = await Promise.all([this.#link?.migration.session(), sender.roots()]);
    this.#mode.throwIfEnded();
    if (!session) throw new DwcpError('INTERNAL', 'no session');
    await sender.finish(session, roots, commands, devices);
    this.#mode.enter('loaded');
    return { roots, pausedAtMs };
  }

  /** What was measured of the link before anything was sent. */
  get linkBytesPerSecond(): number {
    return this.#sending.linkBytesPerSecond;
  }

  #looking(signal: AbortSignal): Looking {
    return { everyMs: LOOK_CLOSELY_MS, signal, orThrow: () => this.#throwIfFailed() };
  }

  #throwIfFailed(): void {
    if (this.#failure) throw this.#failure;
  }

  #fail(error: DwcpError): void {
    if (this.#failure || this.#mode.ended) return;
    this.#failure = error;
    this.#sending.stop(error);
  }
}
