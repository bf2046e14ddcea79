/**
 * One migration as its source sees it: the session to the destination, opened when first needed and again after a
 * loss, the pace, and what has been measured of the link. What is sent through it is image-sender.ts's business.
 */
import { unlessAborted } from '../model/abort';
import type { ErrorCode } from '../model/error-codes';
import { DwcpError, toDwcpError } from '../model/errors';
import { MIGRATION_OPTIONS, type MigrationOptions } from '../model/options';
import type { LinkMeasurement } from '../model/tiers';
import { KIB } from '../model/units';
import type { BaseStore } from '../store/base-disks';
import type { BaselineStore } from '../store/baselines';
import type { DictionaryStore } from '../store/dictionaries';
import type { Manifest } from '../store/manifest';
import type { PathHistory } from '../store/path-history';
import { type PeerAddress, pathName } from '../transport/endpoint';
import type { Grant } from '../transport/grants';
import type { PeerPool } from '../transport/peer-pool';
import { SendingSession } from '../transport/sending-session';
import type { LimitShare, SharedLimit } from '../transport/shared-limit';
import type { Slab } from '../transport/slab';
import { predictStreams } from '../transport/stream-predictor';
import { TokenBucket } from '../transport/token-bucket';
import type { BasePages } from './base-pages';
import type { CodecPool } from './codec-pool';
import { readBody, type TakenOver, takenOverSchema, takeOverSchema, trainSchema } from './protocol';

export interface SourceContext {
  readonly hostId: string;
  readonly peers: PeerPool;
  readonly pool: CodecPool;
  readonly slab: Slab;
  readonly store: BaselineStore;
  readonly dictionaries: DictionaryStore;
  readonly bases: BaseStore;
  /** What all migrations of this host may send together. */
  readonly limit: SharedLimit;
  readonly history: PathHistory;
  /** Numbers the sessions that this host opens: each is higher than all before it, also over a restart. */
  readonly nextEpoch: () => number;
  /** Hears one line for each decision about a migration's transfer. */
  readonly explain?: (migrationId: string, line: string) => void;
  /** Addresses of this host, one for each path in turn; the routing table chooses where there are none. */
  readonly sourceAddresses?: readonly string[];
}

/** How other agents reach one. */
export interface Advertised extends PeerAddress {
  /** Further addresses of the same agent, each a path of its own. */
  readonly furtherPaths?: readonly PeerAddress[] | undefined;
}

export interface Destination extends Advertised {
  readonly grant: Grant;
}

/** How long a lost session is opened again and again before the activity gives up and leaves it to Temporal. */
const OUTAGE_PATIENCE_MS = 60_000;
const MAX_BACKOFF_MS = 1_000;
/** Within one initial congestion window a stream sends at once, so the train shows the bottleneck, not the ramp. */
const MAX_TRAIN_BYTES_PER_STREAM = 14_000;
const TRAIN_BYTES = 128 * KIB;
const PINGS = 5;
const PING_GAP_MS = 5;
/** Answers that are given before the point of no return only. Anything else leaves it open on which side of it we are. */
const NOT_TAKEN_OVER: ReadonlySet<ErrorCode> = new Set(['ABANDONED', 'FENCED']);

export type TransferLimits = Pick<MigrationOptions, 'bandwidthLimit' | 'priority'>;
/** None of its own: what settles or measures something; the host's limit holds all the same. */
export const UNLIMITED: TransferLimits = { bandwidthLimit: 0, priority: MIGRATION_OPTIONS.priority.default };

export class SourceMigration {
  readonly migrationId: string;
  readonly context: SourceContext;
  readonly bucket: TokenBucket;
  /** What the destination was last seen to hold, per image: spares asking again under the same root. */
  readonly heldBefore = new Map<string, { readonly root: string; readonly manifest: Manifest }>();
  /** Hashes of what was sent and verified, per image: the baseline of the way back. */
  readonly sentManifests = new Map<string, Manifest>();
  /** Bases of the destination that pages may refer to, as last offered. */
  bases: { readonly key: string; readonly pages: BasePages } | undefined;
  readonly #share: LimitShare;
  #destination: Destination;
  /** The path that carries the control connection; another is tried when it fails. */
  #firstPath = 0;
  #session: SendingSession | undefined;
  #opening: Promise<SendingSession> | undefined;
  #closed = false;

  /** @param priority weight among the migrations that share the host's limit */
  constructor(migrationId: string, destination: Destination, { bandwidthLimit, priority }: TransferLimits, context: SourceContext) {
    this.migrationId = migrationId;
    this.#destination = destination;
    this.#share = context.limit.share(priority);
    this.bucket = new TokenBucket(bandwidthLimit, this.#share);
    this.context = context;
  }

  get destination(): Destination {
    return this.#destination;
  }

  /** A later attempt brings a fresh grant. */
  renew(destination: Destination): void {
    this.#destination = destination;
  }

  get isClosed(): boolean {
    return this.#closed;
  }

  get openSession(): SendingSession | undefined {
    return this.#session?.ended ? undefined : this.#session;
  }

  /**
   * The session; one attempt to open it where it is not. @throws the refusal; PEER_UNREACHABLE
   * @param role `settle` opens one that serves a hand-over alone, also where the destination takes no DWCP sessions
   */
  async session(role: 'control' | 'settle' = 'control'): Promise<SendingSession> {
    if (this.openSession) return this.openSession;
    this.#opening ??= this.#open(role).finally(() => (this.#opening = undefined));
    return this.#opening;
  }

  /** The session, waiting out a path that is down. @throws what ended the patience, permanent refusals at once */
  async sessionPatiently(signal: AbortSignal): Promise<SendingSession> {
    const giveUpAt = performance.now() + OUTAGE_PATIENCE_MS;
    for (let attempt = 0; ; attempt += 1) {
      signal.throwIfAborted();
      try {
        return await this.session();
      } catch (error) {
        const reason = toDwcpError(error, 'PEER_UNREACHABLE');
        if (this.isClosed || reason.spec.retry !== 'transient' || reason.code === 'GRANT_INVALID' || performance.now() > giveUpAt) throw reason;
        await pause(Math.min(MAX_BACKOFF_MS, 250 * 2 ** attempt), signal);
      }
    }
  }

  /** Measures the link over the session's streams; costs one initial window a stream. */
  async measureLink(): Promise<LinkMeasurement> {
    const session = await this.session();
    for (let ping = 0; ping < PINGS; ping += 1) {
      session.control.ping();
      await pause(PING_GAP_MS);
    }
    const [arrivedBefore, before] = [session.arrivedBytes, performance.now()];
    const perStream = Math.min(MAX_TRAIN_BYTES_PER_STREAM, Math.ceil(TRAIN_BYTES / Math.max(1, session.stats.openStreams)));
    const sent = await session.probe(perStream);
    const train = await this.#awaitTrain(session, sent);
    // Where a transfer goes on already, the train shows what that leaves of the link, and its bytes show the rest.
    const arrived = session.transferring ? ((session.arrivedBytes - arrivedBefore) * 1000) / (performance.now() - before) : 0;
    const bandwidthBytesPerSecond = Math.max(arrived, train.spanMs > 0 ? train.bytes / (train.spanMs / 1000) : 0);
    const { paths } = session.stats;
    const lossRatio = paths.reduce<number | undefined>((most, path) => (path.lossRatio === undefined ? most : Math.max(most ?? 0, path.lossRatio)), undefined);
    const link = { rttMs: session.rttMs, bandwidthBytesPerSecond, lossRatio, congestionControl: session.congestionControl };
    const predicted = predictStreams(await this.context.history.rows(), { ...link, path: pathName(this.#destination), hour: new Date().getHours(), limitBytesPerSecond: this.bucket.rateBytesPerSecond });
    if (predicted) this.context.explain?.(this.migrationId, `${predicted.streams} streams expected: ${predicted.reason}`);
    return { ...link, ...(predicted && { expectedStreams: predicted.streams, expectedBecause: predicted.reason }) };
  }

  /**
   * Asks the destination to take the VM over.
   * @throws ABANDONED, FENCED where it says that it has not; HANDOVER_IN_DOUBT in every other case
   */
  async takeOver(vmId: string, roots: Record<string, string>, signal?: AbortSignal): Promise<TakenOver> {
    try {
      const session = await this.session();
      const answer = session.control.request('take_over', takeOverSchema.parse({ vmId, roots }));
      return readBody(takenOverSchema, await (signal ? unlessAborted(answer, signal) : answer));
    } catch (error) {
      throw inDoubtUnlessRefused(error, vmId);
    }
  }

  /** What it carried is over; the next question opens another, which the destination knows to be newer. */
  endSession(): void {
    this.#session?.close();
    this.#session = undefined;
  }

  close(): void {
    this.#closed = true;
    this.#share.leave();
    this.endSession();
  }

  async #open(role: 'control' | 'settle'): Promise<SendingSession> {
    if (this.#closed) throw new DwcpError('SUPERSEDED', `Migration ${this.migrationId} is closed on this host`);
    const epoch = this.context.nextEpoch();
    const { grant, furtherPaths = [] } = this.#destination;
    const { sourceAddresses = [] } = this.context;
    const paths = [this.#destination, ...furtherPaths].map(({ address, port }, index): PeerAddress => ({ address, port, localAddress: sourceAddresses[index % sourceAddresses.length] }));
    // The one that carried the last session comes last: it may be what that died of.
    if (this.#session) this.#firstPath = (this.#firstPath + 1) % paths.length;
    this.#session = undefined;
    const turned = [...paths.slice(this.#firstPath), ...paths.slice(0, this.#firstPath)] as [PeerAddress, ...PeerAddress[]];
    try {
      const session = await SendingSession.open(this.context.peers, turned, { sessionId: this.migrationId, epoch, sourceHost: this.context.hostId, grant }, role);
      if (this.isClosed) {
        session.close();
        throw new DwcpError('SUPERSEDED', `Migration ${this.migrationId} was closed on this host meanwhile`);
      }
      session.setBucket(this.bucket);
      this.#session = session;
      return session;
    } catch (error) {
      this.#firstPath = (this.#firstPath + 1) % paths.length;
      throw error;
    }
  }

  async #awaitTrain(session: SendingSession, sent: number): Promise<{ bytes: number; spanMs: number }> {
    // Twice the round trip and a little more: late frames of the train are not worth waiting for.
    await pause(Math.min(2000, 50 + 2 * session.rttMs));
    for (let attempt = 0; attempt < 20; attempt += 1) {
      const train = readBody(trainSchema, await session.control.request('train', {}));
      if (train.bytes >= sent * 0.5) return train;
      await pause(50);
    }
    return { bytes: 0, spanMs: 0 };
  }
}

/** What a failed attempt at a hand-over means: only some answers say for certain that it has not happened. */
export function inDoubtUnlessRefused(error: unknown, vmId: string): DwcpError {
  const reason = toDwcpError(error, 'SESSION_LOST');
  if (reason.code === 'INTEGRITY_MISMATCH') return new DwcpError('ABANDONED', `The destination does not take ${vmId} over: ${reason.message}`, { phase: 'switchover', side: 'destination', cause: reason });
  if (NOT_TAKEN_OVER.has(reason.code)) return reason;
  return new DwcpError('HANDOVER_IN_DOUBT', `The destination has not said whether it took ${vmId} over: ${reason.message}`, { phase: 'switchover', side: 'source', cause: reason });
}

function pause(ms: number, signal?: AbortSignal): Promise<void> {
  if (signal?.aborted) return Promise.reject(toDwcpError(signal.reason, 'CANCELLED'));
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => {
      signal?.removeEventListener('abort', abort);
      resolve();
    }, ms);
    const abort = (): void => {
      clearTimeout(timer);
      reject(toDwcpError(signal?.reason, 'CANCELLED'));
    };
    signal?.addEventListener('abort', abort, { once: true });
  });
}

export { pause };
