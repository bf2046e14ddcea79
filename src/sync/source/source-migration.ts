/**
 * One migration as its source sees it: the session to the destination, opened when first needed and again after a
 * loss, the pace, and what has been measured of the link. What is sent through it is image-sender.ts's business.
 */
import { unlessAborted } from '../../model/abort';
import { DwcpError, toDwcpError } from '../../model/errors';
import type { LinkMeasurement } from '../../model/tiers';
import { KIB } from '../../model/units';
import type { Manifest } from '../../store/manifest';
import { wait } from '../../system/wait';
import { type PeerAddress, pathName } from '../../transport/endpoint';
import { SendingSession } from '../../transport/sending-session';
import type { LimitShare } from '../../transport/shared-limit';
import { predictStreams } from '../../transport/stream-predictor';
import { TokenBucket } from '../../transport/token-bucket';
import type { BasePages } from '../codec/reference-index';
import { inDoubtUnlessRefused } from '../hand-over/in-doubt';
import { readBody, type TakenOver, takenOverSchema, takeOverSchema, trainSchema } from '../protocol';
import type { Destination, SourceContext, TransferLimits } from './source-context';

/** How long a lost session is opened again and again before the activity gives up and leaves it to Temporal. */
const OUTAGE_PATIENCE_MS = 60_000;
/** Each host looks every two seconds at its own keys and at those it believes: while they are being replaced one is behind. */
const UNTRUSTED_PATIENCE_MS = 5_000;
const MAX_BACKOFF_MS = 1_000;
/** Within one initial congestion window a stream sends at once, so the train shows the bottleneck, not the ramp. */
const MAX_TRAIN_BYTES_PER_STREAM = 14_000;
const TRAIN_BYTES = 128 * KIB;
const PINGS = 5;
const PING_GAP_MS = 5;

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
  constructor(
    migrationId: string,
    destination: Destination,
    { bandwidthLimit, priority }: TransferLimits,
    context: SourceContext,
  ) {
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
    const beganAt = performance.now();
    for (let attempt = 0; ; attempt += 1) {
      signal.throwIfAborted();
      try {
        return await this.session();
      } catch (error) {
        const reason = toDwcpError(error, 'PEER_UNREACHABLE');
        if (this.isClosed || performance.now() - beganAt >= patienceMs(reason)) throw reason;
        await wait(Math.min(MAX_BACKOFF_MS, 250 * 2 ** attempt), signal);
      }
    }
  }

  /** Measures the link over the session's streams; costs one initial window a stream. */
  async measureLink(): Promise<LinkMeasurement> {
    const session = await this.session();
    for (let ping = 0; ping < PINGS; ping += 1) {
      session.control.ping();
      await wait(PING_GAP_MS);
    }
    const [arrivedBefore, before] = [session.arrivedBytes, performance.now()];
    const perStream = Math.min(
      MAX_TRAIN_BYTES_PER_STREAM,
      Math.ceil(TRAIN_BYTES / Math.max(1, session.stats.openStreams)),
    );
    const sent = await session.probe(perStream);
    const train = await this.#awaitTrain(session, sent);
    // Where a transfer goes on already, the train shows what that leaves of the link, and its bytes show the rest.
    const arrived = session.transferring
      ? ((session.arrivedBytes - arrivedBefore) * 1000) / (performance.now() - before)
      : 0;
    const bandwidthBytesPerSecond = Math.max(arrived, train.spanMs > 0 ? train.bytes / (train.spanMs / 1000) : 0);
    const { paths } = session.stats;
    const lossRatio = paths.reduce<number | undefined>(
      (most, path) => (path.lossRatio === undefined ? most : Math.max(most ?? 0, path.lossRatio)),
      undefined,
    );
    const link = {
      rttMs: session.rttMs,
      bandwidthBytesPerSecond,
      lossRatio,
      congestionControl: session.congestionControl,
    };
    const predicted = predictStreams(await this.context.history.rows(), {
      ...link,
      path: pathName(this.#destination),
      hour: new Date().getHours(),
      limitBytesPerSecond: this.bucket.rateBytesPerSecond,
    });
    if (predicted)
      this.context.explain?.(this.migrationId, `${predicted.streams} streams expected: ${predicted.reason}`);
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
    const { hostId, grant, furtherPaths = [] } = this.#destination;
    const { sourceAddresses = [] } = this.context;
    const paths = [this.#destination, ...furtherPaths].map(
      ({ address, port }, index): PeerAddress => ({
        hostId,
        address,
        port,
        localAddress: sourceAddresses[index % sourceAddresses.length],
      }),
    );
    // The one that carried the last session comes last: it may be what that died of.
    if (this.#session) this.#firstPath = (this.#firstPath + 1) % paths.length;
    this.#session = undefined;
    const turned = [...paths.slice(this.#firstPath), ...paths.slice(0, this.#firstPath)] as [
      PeerAddress,
      ...PeerAddress[],
    ];
    try {
      const session = await SendingSession.open(
        this.context.peers,
        turned,
        { sessionId: this.migrationId, epoch, sourceHost: this.context.hostId, grant },
        role,
      );
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
    await wait(Math.min(2000, 50 + 2 * session.rttMs));
    for (let attempt = 0; attempt < 20; attempt += 1) {
      const train = readBody(trainSchema, await session.control.request('train', {}));
      if (train.bytes >= sent * 0.5) return train;
      await wait(50);
    }
    return { bytes: 0, spanMs: 0 };
  }
}

/** How long it may help to try again by itself. */
function patienceMs({ code, spec }: DwcpError): number {
  if (code === 'PEER_UNTRUSTED') return UNTRUSTED_PATIENCE_MS;
  return spec.retry === 'transient' && code !== 'GRANT_INVALID' ? OUTAGE_PATIENCE_MS : 0;
}
