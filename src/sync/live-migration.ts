/**
 * A running guest on its way, as its source sees it: disks first, then memory with disk rounds beside it, until the rule says
 * that the pause is short enough; then the switchover. Anything that goes wrong before the hand-over ends with the guest
 * running on here.
 *
 *   rounds():  disks -> memory -> converged           switchOver(): last disk round -> pause -> last pages, device state
 *      ^                             |                     -> all confirmed, roots equal, loaded -> hand over -> take over
 *      +--- GUEST_RUNS_ON ----- broken off ----------------------+
 */
import type { DwcpErrorFields } from '../model/errors';
import { DwcpError, toDwcpError } from '../model/errors';
import { decideRound, type ConvergenceDecision } from '../model/convergence';
import { type GuestProgress, type GuestResult, MEMORY_IMAGE_ID, type RamBlock } from '../model/guest';
import { type ImageSpec, PAGE_SIZE_BYTES, type VmImage } from '../model/image';
import type { MigrationOptions } from '../model/options';
import type { LevelAndStreams } from '../model/tiers';
import { MIB } from '../model/units';
import { Packer, compressBound } from '../encoder/packer';
import type { SendingSession } from '../transport/sending-session';
import { type DiskPort, LiveDisk } from './live-disk';
import { LiveFeed } from './live-feed';
import { GuestSender } from './guest-sender';
import type { SendProgress, SentImage } from './image-sender';
import { blankPagesOf } from './blank-pages';
import { pause, type SourceMigration } from './source-migration';

/** What the hypervisor's driver does for a guest at its source. */
export interface GuestPort {
  readonly memoryFd: number;
  onFailure(handler: (error: DwcpError) => void): void;
  watchDisks(images: readonly VmImage[]): Promise<ReadonlyMap<string, DiskPort>>;
  startMemory(
    path: string, ramBlocks: readonly RamBlock[], blankPages: (fd: number) => Uint8Array, autoConverge: boolean,
    events: { setUp(prefix: Buffer, sectionId: number): void; changed(first: number, count: number): void; sectionEnded(): void; pagesEnded(): void },
  ): Promise<void>;
  hold(): void;
  release(): void;
  info(): Promise<{ rounds: number; remainingBytes: number; dirtyBytesPerSecond: number; throttle: number }>;
  pause(): Promise<number>;
  complete(): Promise<{ commands: Buffer; devices: Buffer }>;
  runOn(): Promise<void>;
  close(): void;
}

export interface LiveRequest {
  readonly vmId: string;
  readonly images: readonly (ImageSpec & VmImage)[];
  readonly ramBlocks: readonly RamBlock[];
  readonly start: LevelAndStreams;
  readonly options: MigrationOptions;
  readonly linkBytesPerSecond: number;
}

/** What is known when the guest stands still and everything of it has arrived. */
export interface ReadyToHandOver {
  readonly roots: Record<string, string>;
  readonly pausedAtMs: number;
  readonly guest: Omit<GuestResult, 'downtimeMs' | 'responds'>;
  readonly images: readonly SentImage[];
}

const LOOK_EVERY_MS = 100;
const DISK_ROUND_EVERY_MS = 1_000;
/** A disk round below this is left to the last one, with the guest stopped. */
const SMALL_DISK_ROUND_BYTES = 2 * MIB;
const MAX_DISK_ROUNDS = 30;
/** What QEMU may be ahead of the destination: two bandwidth-delay products and what compression needs to be good. */
const LEAST_AHEAD_BYTES = 8 * MIB;
const MOST_AHEAD_BYTES = 48 * MIB;
/** Close to the pause, what is on the way is paid for in downtime. */
const AHEAD_AT_THE_END_BYTES = MIB;
const DRAIN_PATIENCE_MS = 5_000;

export class LiveMigration {
  readonly #migration: SourceMigration;
  readonly #request: LiveRequest;
  readonly #guest: GuestPort;
  readonly #memory: LiveFeed;
  readonly #disks: LiveDisk[] = [];
  readonly #sending = new AbortController();
  #sender: GuestSender | undefined;
  #sent: Promise<void> | undefined;
  #failure: DwcpError | undefined;
  #setUp: { readonly prefix: Buffer; readonly sectionId: number } | undefined;
  #setUpSent: Promise<void> | undefined;
  #state: GuestProgress['state'] = 'disks';
  #decision: ConvergenceDecision | undefined;
  #info = { rounds: 0, remainingBytes: 0, dirtyBytesPerSecond: 0, throttle: 0 };
  #held = false;
  #aheadBytes = LEAST_AHEAD_BYTES;
  #handedOver = false;
  #ended = false;

  constructor(migration: SourceMigration, request: LiveRequest, guest: GuestPort) {
    this.#migration = migration;
    this.#request = request;
    this.#guest = guest;
    const memory = request.images.find(({ imageId }) => imageId === MEMORY_IMAGE_ID);
    if (!memory) throw new DwcpError('INTERNAL', 'a running guest without memory');
    this.#memory = new LiveFeed({ file: { fd: -1, sizeBytes: memory.sizeBytes } });
  }

  /** Why the rounds ended, with figures. */
  get reason(): string {
    return this.#decision?.reason ?? '';
  }

  get progress(): { readonly guest: GuestProgress; readonly images: readonly SendProgress[] } {
    const sender = this.#sender;
    const images = sender ? this.#request.images.map(({ imageId }) => sender.progress(imageId)) : [];
    const { rounds, dirtyBytesPerSecond, throttle } = this.#info;
    return {
      guest: {
        state: this.#state, round: rounds, remainingBytes: this.#remainingBytes(), dirtyBytesPerSecond, throttle,
        rateBytesPerSecond: Math.round(sender?.session?.stats.goodputBytesPerSecond ?? 0),
        expectedDowntimeMs: Math.round(this.#decision?.expectedDowntimeMs ?? 0),
      },
      images,
    };
  }

  /** Sends until the rule says that the guest may be paused. It runs all the while. @throws GUEST_NOT_CONVERGING, GUEST_LOST */
  async rounds(signal: AbortSignal): Promise<void> {
    if (this.#state === 'converged') return;
    await this.#begin();
    await this.#diskRounds(signal);
    await this.#startMemory();
    await this.#memoryRounds(signal);
    this.#state = 'converged';
  }

  /**
   * Pauses the guest and brings everything of it to the destination, whose QEMU has loaded it when this returns. From then on
   * nothing leads back without the destination's promise. Any failure before lets the guest run on here.
   * @throws GUEST_RUNS_ON, GUEST_LOST
   */
  async pauseGuest(signal: AbortSignal): Promise<ReadyToHandOver> {
    const { sender, roots, pausedAtMs } = await this.#pauseAndFinish(signal);
    this.#handedOver = true;
    this.#state = 'handing over';
    sender.remember();
    return {
      roots, pausedAtMs,
      guest: { rounds: this.#info.rounds, reason: this.reason, throttle: this.#info.throttle },
      images: this.#request.images.map(({ imageId }) => sender.result(imageId, roots[imageId] ?? '')),
    };
  }

  /** Ends it before the hand-over: the guest runs on here. Idempotent. */
  async breakOff(): Promise<void> {
    if (this.#ended) return;
    this.#ended = true;
    this.#sending.abort(new DwcpError('SUPERSEDED', 'The live migration was broken off'));
    if (!this.#handedOver) await this.#guest.runOn().catch((error: unknown) => this.#fail(toDwcpError(error, 'QEMU_UNREACHABLE')));
    await this.#sent?.catch(() => undefined);
    this.#guest.close();
  }

  /** After the destination runs it: lets go of the guest here, which stands still. */
  close(): void {
    this.#ended = true;
    this.#guest.close();
  }

  async #begin(): Promise<void> {
    const { images, vmId, start, options, linkBytesPerSecond } = this.#request;
    this.#guest.onFailure((error) => this.#fail(error));
    await this.#guest.runOn();
    const ports = await this.#guest.watchDisks(images.filter(({ kind }) => kind === 'disk'));
    for (const image of images) {
      const port = ports.get(image.imageId);
      if (port) this.#disks.push(new LiveDisk(image, port));
    }
    this.#memory.onDrained(() => this.#brake());
    const disks = this.#disks.map(({ image, feed }) => ({ image: specOf(image), feed }));
    const memory = images.filter(({ imageId }) => imageId === MEMORY_IMAGE_ID).map((image) => ({ image: specOf(image), feed: this.#memory }));
    this.#sender = new GuestSender(this.#migration, {
      vmId, images: [...disks, ...memory], start, options, linkBytesPerSecond,
      opened: async (imageId, held) => this.#disks.find(({ image }) => image.imageId === imageId)?.beginScan((block) => held.isZero(block)),
      begun: (session) => this.#sendSetUp(session),
    });
    this.#sent = this.#sender.run(this.#sending.signal);
    this.#sent.catch((error: unknown) => this.#fail(toDwcpError(error, 'INTERNAL')));
  }

  async #diskRounds(signal: AbortSignal): Promise<void> {
    let before = Infinity;
    for (let round = 0; round < MAX_DISK_ROUNDS && this.#disks.length > 0; round += 1) {
      await this.#until(() => this.#disks.every(({ feed, begun }) => begun && feed.backlogBytes === 0), signal);
      const bytes = await this.#nextDiskRound();
      if (bytes <= SMALL_DISK_ROUND_BYTES || bytes > 0.8 * before) return;
      before = bytes;
    }
  }

  async #nextDiskRound(): Promise<number> {
    const rounds = await Promise.all(this.#disks.map((disk) => disk.nextRound()));
    return rounds.reduce((sum, bytes) => sum + bytes, 0);
  }

  async #startMemory(): Promise<void> {
    const { images, ramBlocks, options } = this.#request;
    const { path } = images.find(({ imageId }) => imageId === MEMORY_IMAGE_ID) ?? { path: '' };
    this.#state = 'memory';
    await this.#guest.startMemory(path, ramBlocks, (fd) => blankPagesOf(fd, this.#memory.file.sizeBytes), options.autoConverge, {
      setUp: (prefix, sectionId) => {
        this.#setUp = { prefix, sectionId };
        const session = this.#sender?.session;
        if (session) this.#sendSetUp(session).catch(() => undefined);
      },
      changed: (first, count) => {
        this.#memory.setHot(first + count - 1);
        this.#memory.changed(first, count);
        this.#brake();
      },
      sectionEnded: () => this.#memory.setHot(-1),
      pagesEnded: () => this.#memory.end(),
    });
    this.#memory.setFile(this.#guest.memoryFd);
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
    for (;;) {
      await pause(LOOK_EVERY_MS, signal);
      this.#throwIfFailed();
      this.#info = await this.#guest.info();
      this.#aheadBytes = this.#aheadLimit();
      if (performance.now() > diskRoundAt && this.#disks.every(({ feed }) => feed.backlogBytes === 0)) {
        if (this.#disks.length > 0) await this.#nextDiskRound();
        diskRoundAt = performance.now() + DISK_ROUND_EVERY_MS;
      }
      // The count rises when QEMU looks at its dirty log: the first time before the first round.
      if (this.#info.rounds <= judged || this.#held) continue;
      judged = this.#info.rounds;
      const remainingBytes = this.#remainingBytes();
      const decision = this.#decide(judged - 1, remainingBytes, remainingBefore);
      remainingBefore = remainingBytes;
      this.#decision = decision;
      if (decision.next === 'switch over') return;
      if (decision.next === 'cannot converge') throw new DwcpError('GUEST_NOT_CONVERGING', decision.reason, { phase: 'transfer', side: 'source' });
    }
  }

  #decide(round: number, remainingBytes: number, remainingBytesBefore: number | undefined): ConvergenceDecision {
    const { options } = this.#request;
    const { dirtyBytesPerSecond, throttle } = this.#info;
    const share = this.#sender?.wireShare(MEMORY_IMAGE_ID) ?? 1;
    const stats = this.#sender?.session?.stats;
    return decideRound(
      {
        round, remainingBytes, remainingPages: Math.ceil((this.#info.remainingBytes + this.#memory.backlogBytes / 16) / PAGE_SIZE_BYTES), remainingBytesBefore,
        dirtyBytesPerSecond: dirtyBytesPerSecond * share, rateBytesPerSecond: Math.max(stats?.goodputBytesPerSecond ?? 0, this.#request.linkBytesPerSecond / 4), rttMs: stats?.rttMs ?? 1, throttle,
      },
      { maxDowntimeMs: options.maxDowntimeMs, memoryIterations: options.memoryIterations, dirtyPageThreshold: options.dirtyPageThreshold, mayThrottle: options.autoConverge },
    );
  }

  #remainingBytes(): number {
    const share = this.#sender?.wireShare(MEMORY_IMAGE_ID) ?? 1;
    const disks = this.#disks.reduce((sum, { feed }) => sum + feed.backlogBytes, 0);
    return Math.round((this.#info.remainingBytes + this.#memory.backlogBytes + disks) * share);
  }

  async #pauseAndFinish(signal: AbortSignal): Promise<{ sender: GuestSender; roots: Record<string, string>; pausedAtMs: number }> {
    const sender = this.#sender;
    if (this.#state !== 'converged' || !sender || !this.#sent) throw runsOn('the rounds were not at their end here');
    try {
      await this.#lastLook(signal);
      for (const { feed } of this.#disks) feed.hurry();
      this.#memory.hurry();
      this.#state = 'paused';
      const pausedAtMs = await this.#guest.pause();
      const finished = this.#finish(sender, this.#sent);
      finished.catch(() => undefined);
      const roots = await withinBudget(finished, this.#request.options.maxDowntimeMs);
      return { sender, roots, pausedAtMs };
    } catch (error) {
      const reason = this.#failure ?? toDwcpError(error, 'INTERNAL');
      await this.breakOff();
      if (reason.code === 'GUEST_LOST' || reason.spec.retry === 'operator') throw reason;
      throw runsOn(reason.message, { cause: reason });
    }
  }

  /** With the guest still running: what can be sent before the pause does not count as downtime. */
  async #lastLook(signal: AbortSignal): Promise<void> {
    this.#aheadBytes = AHEAD_AT_THE_END_BYTES;
    if (this.#disks.length > 0) await this.#nextDiskRound();
    const patience = AbortSignal.any([signal, AbortSignal.timeout(DRAIN_PATIENCE_MS)]);
    await this.#until(() => this.#disks.every(({ feed }) => feed.backlogBytes === 0) && this.#memory.backlogBytes <= AHEAD_AT_THE_END_BYTES, patience).catch((error: unknown) => {
      if (signal.aborted || this.#failure) throw error;
    });
    this.#aheadBytes = MOST_AHEAD_BYTES;
    this.#brake();
  }

  async #finish(sender: GuestSender, sent: Promise<void>): Promise<Record<string, string>> {
    await Promise.all(this.#disks.map((disk) => disk.lastRound()));
    const { commands, devices } = await this.#guest.complete();
    await sent;
    await this.#setUpSent;
    const [session, roots] = await Promise.all([this.#migration.session(), sender.roots()]);
    const { control } = session;
    const state = Buffer.concat([commands, devices]);
    const packed = Buffer.allocUnsafe(compressBound(state.length));
    const packedBytes = new Packer().packedSize(state, packed, 3);
    await Promise.all([
      ...this.#request.images.map(({ imageId }) => control.request('finish_image', { image: sender.imageNumber(imageId), root: roots[imageId] })),
      control.request('guest_load', { commandBytes: commands.length, totalBytes: state.length }, packed.subarray(0, packedBytes)),
    ]);
    return roots;
  }

  /** QEMU's stream is read no faster than the destination confirms, so that what is on the way stays bounded. */
  #brake(): void {
    const ahead = this.#memory.backlogBytes;
    if (!this.#held && ahead > this.#aheadBytes) {
      this.#held = true;
      this.#guest.hold();
    } else if (this.#held && ahead <= this.#aheadBytes / 2) {
      this.#held = false;
      this.#guest.release();
    }
  }

  #aheadLimit(): number {
    const stats = this.#sender?.session?.stats;
    if (!stats) return LEAST_AHEAD_BYTES;
    const share = Math.max(0.1, this.#sender?.wireShare(MEMORY_IMAGE_ID) ?? 1);
    const twoBdp = (2 * stats.goodputBytesPerSecond * Math.max(50, stats.rttMs)) / 1000 / share;
    const forStreams = stats.activeStreams * (this.#sender?.batchBytes ?? 0);
    return Math.min(MOST_AHEAD_BYTES, Math.max(LEAST_AHEAD_BYTES, twoBdp + forStreams));
  }

  async #until(holds: () => boolean, signal: AbortSignal): Promise<void> {
    while (!holds()) {
      await pause(10, signal);
      this.#throwIfFailed();
    }
  }

  #throwIfFailed(): void {
    if (this.#failure) throw this.#failure;
  }

  #fail(error: DwcpError): void {
    if (this.#failure || this.#ended) return;
    this.#failure = error;
    this.#sending.abort(error);
  }
}

function specOf({ imageId, kind, sizeBytes }: ImageSpec): ImageSpec {
  return { imageId, kind, sizeBytes };
}

function runsOn(why: string, fields: DwcpErrorFields = {}): DwcpError {
  return new DwcpError('GUEST_RUNS_ON', `The switchover was broken off: ${why}`, { ...fields, phase: 'switchover', side: 'source' });
}

/** A guest is not kept waiting for longer than its operator allows: then it runs on, and is tried again. */
async function withinBudget<T>(work: Promise<T>, maxDowntimeMs: number): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new DwcpError('REQUEST_TIMEOUT', `the pause would have lasted longer than maxDowntimeMs (${maxDowntimeMs} ms)`)), Math.max(1_000, maxDowntimeMs));
  });
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}
