/**
 * What a running transfer adapts, ten times in two seconds: zstd level, batch size, number of streams on each path. Joins
 * the rules (level controller, a stream tuner for each path) with what the session shows; decides nothing itself.
 */
import { LevelController } from '../../encoder/level-controller';
import { BLOCK_SIZE_BYTES } from '../../model/image';
import type { LevelAndStreams } from '../../model/tiers';
import { clamp, KIB, MIB } from '../../model/units';
import { pathName } from '../../transport/endpoint';
import type { PathStats } from '../../transport/path-streams';
import type { SendingSession } from '../../transport/sending-session';
import { AdaptiveTuner, type Held, type TunerBounds } from '../../transport/stream-tuner';
import type { TokenBucket } from '../../transport/token-bucket';
import type { EncodeResult } from '../codec/codec-jobs';
import { IdleProcessors } from './idle-processors';

const ADAPT_EVERY_MS = 200;
const FIRST_BATCH_BYTES = 256 * KIB;
const MIN_BATCH_BYTES = 64 * KIB;
const MAX_BATCH_BYTES = 4 * MIB;
/** Mostly single pages of many blocks. */
const HURRIED_BATCH_BYTES = 512 * KIB;
const HURRIED_LEVEL = 1;
const MOST_CREEP = 1.25;
/** The next batch may be the one that does not compress: what is on the way stays bounded in time all the same. */
const MAX_ASSUMED_RATIO = 2;
/** Between two looks: while streams begin, what arrives says how far they are, not what the link carries. */
const STILL_GROWING = 1.1;
/** Share of waiting streams above which the link, not the processor, has time to spare. */
const STARVED_SHARE = 0.5;

/** Share of its time that the main thread may be busy with: beyond it more streams cannot bring more. */
const BUSY_SHARE = 0.85;

/** Of the encoder's time: below it, what is read and compared is the brake, not what is packed. */
const PACKING_SHARE = 0.3;

/** Of the threads' time: below it they wait for work, as at the end of an image. */
const BUSY_THREADS_SHARE = 0.5;

/** What a transfer waits for. */
export type Brake = 'link' | 'processor' | 'source';

/** So much on the way, and a round trip more, keeps a link busy between two reports of the receiver. */
const FULL_LINK_SECONDS = 0.15;
/** So many times as much, and the encoder is far from being the brake. */
const FAR_AHEAD = 3;

interface PacingInput {
  readonly start: LevelAndStreams;
  readonly bounds: TunerBounds;
  readonly bucket: TokenBucket;
  readonly threads: number;
  /** First estimate of the link, 0 where there is none. */
  readonly linkBytesPerSecond: number;
  /** Hears one line for each decision of a tuner. */
  readonly explain: (line: string) => void;
}

export class Pacing {
  readonly #level: LevelController;
  readonly #threads: number;
  readonly #processors = new IdleProcessors();
  readonly #bounds: TunerBounds;
  readonly #explain: ((line: string) => void) | undefined;
  /** By path, so that a path which comes back goes on from where it was. */
  readonly #tuners = new Map<string, AdaptiveTuner>();
  readonly #start: LevelAndStreams;
  readonly #bucket: TokenBucket;
  #linkBytesPerSecond: number;
  #batchBytes = FIRST_BATCH_BYTES;
  #rawPerPayload = 1;
  #hurried = false;
  /** Since the last look, of all threads. */
  #packedMs = 0;
  #encodedMs = 0;
  #gatheredBytes = 0;
  #calibratedAt = 0;
  #seenBytesPerSecond = 0;
  #goodputBefore = 0;
  #busy = performance.eventLoopUtilization();
  #timer: NodeJS.Timeout | undefined;

  constructor({ start, bounds, bucket, threads, linkBytesPerSecond, explain }: PacingInput) {
    this.#start = start;
    this.#level = new LevelController(start.maxLevel, threads, start.fixedLevel);
    this.#threads = threads;
    // Half of them: what else goes on is not known yet.
    if (start.compress) this.#level.choose(linkBytesPerSecond, Math.max(1, threads / 2), 'at once');
    this.#bounds = bounds;
    this.#explain = explain;
    this.#bucket = bucket;
    this.#linkBytesPerSecond = linkBytesPerSecond;
  }

  /** From now on time counts, not bytes: on all streams there are, each with little to do. */
  hurry(session: SendingSession | undefined): void {
    this.#hurried = true;
    session?.setTargets(session.stats.paths.map(({ openStreams }) => openStreams));
  }

  get level(): number {
    if (this.#hurried) return Math.min(HURRIED_LEVEL, this.#level.level);
    return this.#level.level;
  }

  /** Why it is this level. */
  get levelReason(): string {
    return this.#hurried ? 'the last round is short: time counts, not bytes' : this.#level.reason;
  }

  get batchBytes(): number {
    return this.#hurried ? HURRIED_BATCH_BYTES : this.#batchBytes;
  }

  get batchBlocks(): number {
    return this.batchBytes / BLOCK_SIZE_BYTES;
  }

  /** What the tuner of each path has confirmed, by the path's name. */
  get confirmed(): ReadonlyMap<string, Held> {
    const confirmed = new Map<string, Held>();
    for (const [path, { held }] of this.#tuners) if (held) confirmed.set(path, held);
    return confirmed;
  }

  encoded(result: EncodeResult, level: number): void {
    if (result.frameBytes === 0) return;
    this.#packedMs += result.account.times.packMs + result.account.times.deltaMs;
    this.#encodedMs += Object.values<number>({ ...result.account.times }).reduce((sum, ms) => sum + ms, 0);
    this.#gatheredBytes += result.gatheredBytes;
    this.#rawPerPayload += 0.1 * (result.gatheredBytes / Math.max(1, result.payloadBytes) - this.#rawPerPayload);
    // What does not compress says nothing of the level for what does.
    if (!this.#start.compress || result.payloadBytes >= result.gatheredBytes) return;
    const {
      gatheredBytes,
      payloadBytes,
      account: { times },
    } = result;
    this.#level.observe({
      level,
      gatheredBytes,
      payloadBytes,
      packMs: times.packMs + times.deltaMs,
      otherMs: times.readMs + times.chooseMs,
    });
  }

  /** Has as many streams opened as each path begins with: what is settled before the first batch goes on meanwhile. */
  open(session: SendingSession): void {
    session.setTargets(session.stats.paths.map((path) => this.#tunerOf(path).target));
  }

  /**
   * Adapts while a session transfers.
   * @param brake what holds the transfer up, where that is known better than by waiting streams
   * @returns what stops it
   */
  drive(session: SendingSession, brake?: (wantedBytes: number) => Brake): () => void {
    this.open(session);
    clearInterval(this.#timer);
    this.#timer = setInterval(() => this.#adapt(session, brake), ADAPT_EVERY_MS);
    return () => clearInterval(this.#timer);
  }

  #adapt(session: SendingSession, brakeOf: ((wantedBytes: number) => Brake) | undefined): void {
    const { goodputBytesPerSecond, activeStreams, idleShare, rttMs, throttled, paths } = session.stats;
    const onTheWay = (this.#linkBytesPerSecond || goodputBytesPerSecond) * (FULL_LINK_SECONDS + rttMs / 1000);
    const brake = this.#thatLevelsHelp(brakeOf?.(onTheWay) ?? (idleShare > STARVED_SHARE ? 'processor' : 'link'));
    const starved = brake !== 'link';
    this.#estimateLink(goodputBytesPerSecond, brake);
    // A lower level helps where the processor is behind, and nobody where there is nothing to send.
    if (brakeOf?.(FAR_AHEAD * onTheWay) === 'link') this.#level.press('far ahead');
    else if (brakeOf) this.#level.press(brake === 'processor' ? 'behind' : 'ahead');
    else this.#calibrate(brake);
    if (this.#start.compress) this.#chooseLevel();
    if (this.#hurried) return;
    const hostLimited = this.#isHostLimited();
    session.setTargets(
      paths.map((path) =>
        this.#tunerOf(path).observe({
          atMs: performance.now(),
          arrivedBytes: path.arrivedBytes,
          rttMs: path.rttMs,
          lossRatio: path.lossRatio,
          windowLimitedShare: path.windowLimitedShare,
          notTheStreams: starved || throttled,
          pathOut: path.out,
          limitBytesPerSecond: this.#bucket.rateBytesPerSecond,
          hostLimited,
        }),
      ),
    );
    this.#batchBytes = this.#batchSize(goodputBytesPerSecond / Math.max(1, activeStreams), rttMs);
    session.setBatchBytes(this.#batchBytes);
  }

  /**
   * Where the threads have little to do, or reading and comparing take their time, packing less changes nothing: the
   * source is the brake.
   */
  #thatLevelsHelp(brake: Brake): Brake {
    const packing = this.#packedMs / Math.max(1, this.#encodedMs);
    const busy = this.#encodedMs / (this.#threads * ADAPT_EVERY_MS);
    [this.#packedMs, this.#encodedMs] = [0, 0];
    return brake === 'processor' && (packing < PACKING_SHARE || busy < BUSY_THREADS_SHARE) ? 'source' : brake;
  }

  /** While the link waits, what comes out of the encoder is what the processors can do. */
  #calibrate(brake: Brake): void {
    const now = performance.now();
    const seconds = (now - this.#calibratedAt) / 1000;
    if (brake === 'processor' && seconds < 2 * (ADAPT_EVERY_MS / 1000))
      this.#level.calibrate(this.#gatheredBytes / seconds, this.#processors.available(this.#threads));
    this.#calibratedAt = now;
    this.#gatheredBytes = 0;
  }

  #chooseLevel(): void {
    const before = this.#level.level;
    const level = this.#level.choose(this.#linkBytesPerSecond, this.#processors.available(this.#threads));
    if (level !== before) this.#explain?.(`level ${before} -> ${level}: ${this.#level.reason}`);
  }

  #tunerOf({ peer }: PathStats): AdaptiveTuner {
    const name = pathName(peer);
    const known = this.#tuners.get(name);
    if (known) return known;
    const tuner = new AdaptiveTuner(this.#bounds, (line) => this.#explain?.(`${name}: ${line}`));
    this.#tuners.set(name, tuner);
    return tuner;
  }

  #isHostLimited(): boolean {
    const now = performance.eventLoopUtilization();
    const { utilization } = performance.eventLoopUtilization(now, this.#busy);
    this.#busy = now;
    return utilization > BUSY_SHARE;
  }

  /**
   * While streams wait, goodput says nothing of the link: then the estimate only creeps upwards, and not
   * far beyond what the link was seen to carry when it was the brake.
   */
  #estimateLink(goodput: number, brake: Brake): void {
    const limit = this.#bucket.rateBytesPerSecond || Infinity;
    if (goodput <= 0 || brake === 'source') return;
    if (this.#linkBytesPerSecond === 0 && goodput > STILL_GROWING * this.#goodputBefore) {
      this.#goodputBefore = goodput;
      return;
    }
    if (brake === 'link') this.#seenBytesPerSecond = Math.max(this.#seenBytesPerSecond, goodput);
    const known = this.#linkBytesPerSecond || goodput;
    const creeping = Math.min(Math.max(known, goodput) * 1.05, (this.#seenBytesPerSecond || Infinity) * MOST_CREEP);
    const next = brake === 'processor' ? Math.max(goodput, creeping) : known + 0.3 * (goodput - known);
    this.#linkBytesPerSecond = Math.min(next, limit, 1e11);
  }

  /**
   * About a second, or eight round trips, of one stream: less costs compression, more is lost with a stream.
   */
  #batchSize(streamBytesPerSecond: number, rttMs: number): number {
    if (streamBytesPerSecond <= 0) return this.#batchBytes;
    const wanted =
      streamBytesPerSecond * Math.min(this.#rawPerPayload, MAX_ASSUMED_RATIO) * Math.max(1, (8 * rttMs) / 1000);
    return clamp(2 ** Math.floor(Math.log2(Math.max(1, wanted))), MIN_BATCH_BYTES, MAX_BATCH_BYTES);
  }
}
