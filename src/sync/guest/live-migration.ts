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
import { type ConvergenceDecision, decideRound } from '../../model/convergence';
import { DwcpError, toDwcpError } from '../../model/errors';
import { type GuestProgress, type GuestSpec, MEMORY_IMAGE_ID } from '../../model/guest';
import { type ImageSpec, PAGE_SIZE_BYTES, type VmImage } from '../../model/image';
import type { ImageProgress } from '../../model/migration';
import type { MigrationOptions } from '../../model/options';
import type { LevelAndStreams } from '../../model/tiers';
import { clamp, KIB, MIB } from '../../model/units';
import type { SendingSession } from '../../transport/sending-session';
import { blankPagesOf } from '../codec/blank-pages';
import { imageResultOf, progressOf } from '../source/image-results';
import type { SourceMigration } from '../source/source-migration';
import { wait } from '../wait';
import { FeedLag } from './destination-lag';
import type { GuestHeadStart } from './guest-head-start';
import { brokenOff, type GuestMove, letRunOn, PauseBudget, type ReadyToHandOver, runsOn } from './guest-move';
import { GuestSender } from './guest-sender';
import { LiveDisks } from './live-disks';
import { MemoryStream } from './memory-stream';
import { AHEAD_AT_THE_END_BYTES } from './stream-brake';

export interface LiveRequest {
  readonly vmId: string;
  readonly vmType: string | undefined;
  readonly images: readonly (ImageSpec & VmImage)[];
  readonly guest: Pick<GuestSpec, 'ramBlocks'>;
  readonly headStart: GuestHeadStart;
  readonly options: MigrationOptions;
}

/** What is known once the link stands. */
export interface LinkKnown {
  readonly migration: SourceMigration;
  readonly start: LevelAndStreams;
  readonly linkBytesPerSecond: number;
}

const LOOK_EVERY_MS = 100;
/** Towards the end of a round. */
const LOOK_OFTEN_MS = 20;
const DISK_ROUND_EVERY_MS = 1_000;
/** A disk round below this is left to the last one, with the guest stopped. */
const SMALL_DISK_ROUND_BYTES = 2 * MIB;
const MAX_DISK_ROUNDS = 30;
const SENT_IN_PASSING_SECONDS = 0.08;
/** Batches larger than this were packed before the end came into sight. */
const SMALL_BATCH_BYTES = 96 * KIB;
/** How long rounds go on for the destination's QEMU to be given what has arrived. */
const FEED_PATIENCE_MS = 20_000;
/** Behind this much patience what is still on the way goes over with the guest stopped. */
const DRAIN_ROUND_TRIPS = 4;
const DRAIN_PATIENCE_MS = 200;
/** A stream begun ahead does not wait longer for its link: QEMU keeps a log of what the guest writes meanwhile. */
const AHEAD_PATIENCE_MS = 30_000;

export class LiveMigration implements GuestMove {
  readonly #request: LiveRequest;
  readonly #guest: GuestPort;
  readonly #memoryImage: ImageSpec & VmImage;
  readonly #memory: MemoryStream;
  readonly #disks = new LiveDisks();
  readonly #opened = new Set<string>();
  readonly #sending = new AbortController();
  readonly #feedLag = new FeedLag();
  #link: LinkKnown | undefined;
  #ahead: Promise<void> | undefined;
  #begun: Promise<void> | undefined;
  #aheadTimer: NodeJS.Timeout | undefined;
  #sender: GuestSender | undefined;
  #sent: Promise<void> | undefined;
  #failure: DwcpError | undefined;
  #setUp: { readonly prefix: Buffer; readonly sectionId: number } | undefined;
  #setUpSent: Promise<void> | undefined;
  #state: GuestProgress['state'] = 'disks';
  #decision: ConvergenceDecision | undefined;
  #info = { rounds: 0, remainingBytes: 0, dirtyBytesPerSecond: 0, throttle: 0 };
  /** Rounds judged so far; QEMU itself counts how often it has looked at its dirty log. */
  #round = 0;
  readonly #ending = new AbortController();
  #ended = false;
  #breakingOff: Promise<void> | undefined;

  constructor(request: LiveRequest, guest: GuestPort) {
    this.#request = request;
    this.#guest = guest;
    const memory = request.images.find(({ imageId }) => imageId === MEMORY_IMAGE_ID);
    if (!memory) throw new DwcpError('INTERNAL', 'a running guest without memory');
    this.#memoryImage = memory;
    this.#memory = new MemoryStream(memory.sizeBytes, request.headStart, guest);
  }

  get reason(): string {
    return this.#decision?.reason ?? '';
  }

  progress(before: readonly ImageProgress[]): {
    readonly guest: GuestProgress;
    readonly images: readonly ImageProgress[];
  } {
    const sender = this.#sender;
    const images = sender
      ? this.#request.images.map(({ imageId }) =>
          progressOf(
            sender.progress(imageId),
            before.find((image) => image.imageId === imageId),
          ),
        )
      : [];
    const { dirtyBytesPerSecond, throttle } = this.#info;
    return {
      guest: {
        state: this.#state,
        round: this.#round,
        remainingBytes: this.#remainingBytes(),
        dirtyBytesPerSecond,
        throttle,
        rateBytesPerSecond: Math.round(sender?.session?.stats.goodputBytesPerSecond ?? 0),
        expectedDowntimeMs: Math.round(this.#decision?.expectedDowntimeMs ?? 0),
      },
      images,
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
    clearTimeout(this.#aheadTimer);
    await this.#ahead?.catch((error: unknown) => this.#fail(toDwcpError(error, 'INTERNAL')));
    return !this.#ended && this.#failure === undefined;
  }

  async rounds(signal: AbortSignal): Promise<void> {
    if (this.#state === 'converged') return;
    this.#throwIfEnded();
    if (!this.#ahead) await this.#prepare();
    await (this.#begun ??= this.#begin());
    await this.#until(() => this.#opened.size === this.#request.images.length, signal);
    await this.#diskRounds(signal);
    if (!this.#ahead) await this.#startMemory();
    await this.#memoryRounds(signal);
    this.#state = 'converged';
  }

  async pauseGuest(signal: AbortSignal): Promise<ReadyToHandOver> {
    const { sender, roots, pausedAtMs } = await this.#pauseAndFinish(signal);
    this.#state = 'loaded';
    sender.remember();
    return {
      roots,
      pausedAtMs,
      guest: { rounds: this.#round, reason: this.reason, throttle: this.#info.throttle },
      images: this.#request.images.map(({ imageId, kind }) =>
        imageResultOf(sender.result(imageId, roots[imageId] ?? ''), kind, undefined, 1),
      ),
    };
  }

  standsStill(): Promise<boolean> {
    return this.#guest.standsStill();
  }

  breakOff(): Promise<void> {
    if (!this.#ended) this.#breakingOff ??= this.#breakOff();
    return this.#breakingOff ?? Promise.resolve();
  }

  async #breakOff(): Promise<void> {
    this.#ended = true;
    clearTimeout(this.#aheadTimer);
    this.#ending.abort(superseded());
    this.#sending.abort(superseded());
    await this.#ahead?.catch(() => undefined);
    await this.#begun?.catch(() => undefined);
    try {
      await letRunOn(this.#guest);
    } finally {
      await this.#sent?.catch(() => undefined);
      this.#guest.close();
    }
  }

  close(): void {
    this.#ended = true;
    this.#guest.close();
  }

  async #beginAhead(): Promise<void> {
    await this.#prepare();
    if (!this.#ended) await this.#startMemory();
  }

  /** The guest as it was before anything. */
  async #prepare(): Promise<void> {
    this.#guest.onFailure((error) => this.#fail(error));
    await this.#guest.runOn();
    await this.#memory.prepare();
  }

  async #begin(): Promise<void> {
    if (!this.#link) throw new DwcpError('INTERNAL', 'rounds before the link stands');
    const { migration, start, linkBytesPerSecond } = this.#link;
    const { images, vmId, headStart, options } = this.#request;
    const ports = await this.#guest.watchDisks(images.filter(({ kind }) => kind === 'disk'));
    if (this.#ended) throw superseded();
    for (const image of images) {
      const port = ports.get(image.imageId);
      if (port) this.#disks.add(image, port);
    }
    const disks = this.#disks.all.map(({ image, feed }) => ({ image: specOf(image), feed }));
    const memory = { image: specOf(this.#memoryImage), feed: this.#memory.feed };
    this.#sender = new GuestSender(migration, {
      vmId,
      vmType: this.#request.vmType,
      versions: this.#memory.settled.versions,
      references: options.enableDeltaSync ? headStart.references : undefined,
      diskPaths: images.filter(({ kind }) => kind === 'disk').map(({ path }) => path),
      images: [...disks, memory],
      start,
      options,
      linkBytesPerSecond,
      opened: async (imageId, held, source, pages) => {
        await this.#disks.beginScan(imageId, (block) => held.isZero(block));
        if (imageId === MEMORY_IMAGE_ID && pages) await this.#memory.settled.meet(held, source, pages);
        this.#opened.add(imageId);
      },
      begun: (session) => this.#sendSetUp(session),
    });
    this.#sent = this.#sender.run(this.#sending.signal);
    this.#sent.catch((error: unknown) => this.#fail(toDwcpError(error, 'INTERNAL')));
  }

  async #diskRounds(signal: AbortSignal): Promise<void> {
    let before = Infinity;
    for (let round = 0; round < MAX_DISK_ROUNDS; round += 1) {
      await this.#until(() => this.#disks.areThere, signal);
      const bytes = await this.#disks.nextRound();
      if (bytes <= SMALL_DISK_ROUND_BYTES || bytes > 0.8 * before) return;
      before = bytes;
    }
  }

  async #startMemory(): Promise<void> {
    const {
      guest: { ramBlocks },
      options,
    } = this.#request;
    const { path, sizeBytes } = this.#memoryImage;
    const { feed, settled, brake } = this.#memory;
    this.#state = 'memory';
    brake.remains(sizeBytes, undefined, 1);
    const events = this.#memory.events((prefix, sectionId) => {
      this.#setUp = { prefix, sectionId };
      const session = this.#sender?.session;
      if (session) this.#sendSetUp(session).catch(() => undefined);
    });
    await this.#guest.startMemory(
      path,
      ramBlocks,
      (fd) => blankPagesOf(fd, sizeBytes),
      settled.blocks,
      options.autoConverge,
      events,
    );
    feed.setFile(this.#guest.memoryFd);
    this.#guest.onFailure((error) => this.#fail(error));
  }

  /** The destination's QEMU is fed from its RAM image, once it has the set-up; batches do not wait for that. */
  #sendSetUp(session: SendingSession): Promise<void> {
    if (!this.#setUp) return Promise.resolve();
    const { prefix, sectionId } = this.#setUp;
    this.#setUpSent = session.control.request('guest_begin', { sectionId }, prefix).then(() => undefined);
    this.#setUpSent.catch(() => undefined);
    return this.#setUpSent;
  }

  async #memoryRounds(signal: AbortSignal): Promise<void> {
    let diskRoundAt = performance.now() + DISK_ROUND_EVERY_MS;
    let remainingBefore: number | undefined;
    let judged = 1;
    let convergedAt: number | undefined;
    this.#round = 0;
    for (;;) {
      await wait(this.#memory.brake.isNearlyThrough ? LOOK_OFTEN_MS : LOOK_EVERY_MS, signal);
      this.#throwIfFailed();
      this.#feedLag.ask(this.#sender?.session);
      await this.#look();
      if (convergedAt !== undefined && (this.#feedLag.isSmall || performance.now() > convergedAt + FEED_PATIENCE_MS))
        return;
      if (performance.now() > diskRoundAt && this.#disks.backlogBytes === 0) {
        await this.#disks.nextRound();
        diskRoundAt = performance.now() + DISK_ROUND_EVERY_MS;
      }
      // The count rises when QEMU looks at its dirty log: the first time before the first round.
      if (convergedAt !== undefined || this.#info.rounds <= judged || !this.#memory.brake.isThrough) continue;
      judged = this.#info.rounds;
      this.#round += 1;
      const remainingBytes = this.#remainingBytes();
      const decision = this.#decide(this.#round, remainingBytes, remainingBefore);
      remainingBefore = remainingBytes;
      this.#decision = decision;
      if (decision.next === 'switch over') {
        this.#comeToAnEnd();
        if (this.#feedLag.isSmall) return;
        convergedAt = performance.now();
      }
      if (decision.next === 'throttle') await this.#guest.allowThrottle();
      if (decision.next === 'cannot converge')
        throw new DwcpError('GUEST_NOT_CONVERGING', decision.reason, { phase: 'transfer', side: 'source' });
    }
  }

  #decide(round: number, remainingBytes: number, remainingBytesBefore: number | undefined): ConvergenceDecision {
    const { options } = this.#request;
    const { dirtyBytesPerSecond, throttle } = this.#info;
    const stats = this.#sender?.session?.stats;
    return decideRound(
      {
        round,
        remainingBytes,
        remainingPages: Math.ceil((this.#info.remainingBytes + this.#memory.feed.backlogBytes) / PAGE_SIZE_BYTES),
        remainingBytesBefore,
        dirtyBytesPerSecond: dirtyBytesPerSecond * this.#wireShare,
        rateBytesPerSecond: Math.max(stats?.goodputBytesPerSecond ?? 0, (this.#link?.linkBytesPerSecond ?? 0) / 4),
        rttMs: stats?.rttMs ?? 1,
        throttle,
      },
      {
        maxDowntimeMs: options.maxDowntimeMs,
        memoryIterations: options.memoryIterations,
        dirtyPageThreshold: options.dirtyPageThreshold,
        mayThrottle: options.autoConverge,
      },
    );
  }

  #remainingBytes(): number {
    return Math.round(this.#leftBytes * this.#wireShare);
  }

  /** At QEMU and on the way, before encoding. */
  get #leftBytes(): number {
    return this.#info.remainingBytes + this.#memory.feed.backlogBytes + this.#disks.backlogBytes;
  }

  get #wireShare(): number {
    return this.#sender?.wireShare(MEMORY_IMAGE_ID) ?? 1;
  }

  async #pauseAndFinish(
    signal: AbortSignal,
  ): Promise<{ sender: GuestSender; roots: Record<string, string>; pausedAtMs: number }> {
    const sender = this.#sender;
    if (this.#state !== 'converged' || !sender || !this.#sent) throw runsOn('the rounds were not at their end here');
    const budget = new PauseBudget(this.#request.options.maxDowntimeMs);
    try {
      await this.#lastLook(signal);
      this.#disks.hurry();
      this.#memory.feed.hurry();
      this.#state = 'paused';
      this.#memory.brake.letGo();
      const finished = await budget.within(
        this.#pauseAndSend(sender, this.#sent, budget),
        AbortSignal.any([signal, this.#ending.signal]),
      );
      return { sender, ...finished };
    } catch (error) {
      throw await brokenOff(this, this.#failure ?? toDwcpError(error, 'INTERNAL'));
    }
  }

  /** From now on little is on the way at a time, and that fast. */
  #comeToAnEnd(): void {
    this.#sender?.hurry();
    this.#memory.brake.pauseIsClose();
    this.#disks.nameFew();
    this.#memory.feed.nameFew();
  }

  /** With the guest still running: what can be sent before the pause does not count as downtime. */
  async #lastLook(signal: AbortSignal): Promise<void> {
    await this.#disks.nextRound();
    const giveUpAt =
      performance.now() + DRAIN_PATIENCE_MS + DRAIN_ROUND_TRIPS * (this.#sender?.session?.stats.rttMs ?? 0);
    while (performance.now() < giveUpAt) {
      await this.#look();
      if (this.#leftBytes <= this.#worthPausing() && (this.#sender?.largestOnTheWay ?? 0) <= SMALL_BATCH_BYTES) return;
      await wait(10, signal);
      this.#throwIfFailed();
    }
  }

  /** What goes over in the time that a switchover takes anyway, about. */
  #worthPausing(): number {
    const share = Math.max(0.1, this.#wireShare);
    return clamp(
      ((this.#link?.linkBytesPerSecond ?? 0) * SENT_IN_PASSING_SECONDS) / share,
      AHEAD_AT_THE_END_BYTES,
      2 * AHEAD_AT_THE_END_BYTES,
    );
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
    this.#throwIfEnded();
    await this.#disks.lastRound(this.#sending.signal);
    this.#throwIfEnded();
    const { commands, devices } = await this.#guest.complete();
    this.#state = 'completed';
    await sent;
    await this.#setUpSent;
    const [session, roots] = await Promise.all([this.#link?.migration.session(), sender.roots()]);
    this.#throwIfEnded();
    if (!session) throw new DwcpError('INTERNAL', 'no session');
    await sender.finish(session, roots, commands, devices);
    this.#throwIfEnded();
    return { roots, pausedAtMs };
  }

  async #look(): Promise<void> {
    this.#info = await this.#guest.info();
    this.#memory.brake.remains(this.#info.remainingBytes, this.#sender, this.#wireShare);
  }

  async #until(holds: () => boolean, signal: AbortSignal): Promise<void> {
    while (!holds()) {
      await wait(10, signal);
      this.#throwIfFailed();
    }
  }

  #throwIfFailed(): void {
    if (this.#failure) throw this.#failure;
  }

  /** What goes on by itself after it was broken off does nothing more. */
  #throwIfEnded(): void {
    if (this.#ended) throw superseded();
  }

  #fail(error: DwcpError): void {
    if (this.#failure || this.#ended) return;
    this.#failure = error;
    this.#sending.abort(error);
  }
}

function superseded(): DwcpError {
  return new DwcpError('SUPERSEDED', 'The live migration was broken off');
}

function specOf({ imageId, kind, sizeBytes }: ImageSpec): ImageSpec {
  return { imageId, kind, sizeBytes };
}
