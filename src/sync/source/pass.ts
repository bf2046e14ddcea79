/**
 * What every pass of images over a session has: what it learns from the destination before it sends, the transfer of one supplier
 * under one pacing, and the bytes that it took of the link. Which images, and what a pass that breaks means, is the senders'.
 */
import type { SharedDictionary } from '../../encoder/trained-dictionary';
import { onAbort } from '../../model/abort';
import { toDwcpError } from '../../model/errors';
import type { MigrationOptions } from '../../model/options';
import type { LevelAndStreams } from '../../model/tiers';
import type { DictionaryKey } from '../../store/dictionaries';
import type { SendingSession } from '../../transport/sending-session';
import type { SessionStats } from '../../transport/session-supplier';
import type { TunerBounds } from '../../transport/stream-tuner';
import type { EncodeJob } from '../codec/codec-jobs';
import type { BasePages } from '../codec/reference-index';
import { activeDictionary } from './active-dictionary';
import { learnBases } from './base-pages';
import type { BatchSource } from './batch-source';
import { Pacing } from './pacing';
import type { SourceMigration } from './source-migration';

/** Bytes of sessions that have ended, and what the present one has carried since it was taken up. */
export class LinkMeter {
  #session: SendingSession | undefined;
  #atStart = 0;
  #before = 0;

  get session(): SendingSession | undefined {
    return this.#session;
  }

  get bytes(): number {
    return this.#before + (this.#session ? this.#session.linkBytes - this.#atStart : 0);
  }

  /** @param isFirst one that carried others before counts from now; one that was opened for a later pass from its beginning */
  follow(session: SendingSession, isFirst: boolean): void {
    if (session === this.#session) return;
    this.#before = this.bytes;
    this.#session = session;
    this.#atStart = isFirst ? session.linkBytes : 0;
  }
}

/** Streams and level of a sender. @param bounds how many streams it begins with, and its bounds */
export function pacingOf(
  { bucket, context, migrationId }: SourceMigration,
  start: LevelAndStreams,
  bounds: TunerBounds,
  linkBytesPerSecond: number,
): Pacing {
  const explain = (line: string): void => context.explain?.(migrationId, line);
  return new Pacing({ start, bounds, bucket, threads: context.pool.threads, linkBytesPerSecond, explain });
}

/** How a sender's next batch is packed. */
export function packedBy(
  pacing: Pacing,
  { compress }: LevelAndStreams,
  { enableDelta, deltaThreshold }: Pick<MigrationOptions, 'enableDelta' | 'deltaThreshold'>,
  dictionary: SharedDictionary | undefined,
): EncodeJob['settings'] {
  return { compress, level: pacing.level, delta: enableDelta, deltaThreshold, dictionary };
}

/** What a sender says of how fast it is, by which streams and how packed. */
export function paceOf(stats: SessionStats | undefined, { level, levelReason, batchBytes }: Pacing) {
  return {
    goodputBytesPerSecond: stats?.goodputBytesPerSecond ?? 0,
    streams: stats?.activeStreams ?? 0,
    level,
    levelReason,
    batchBytes,
    rttMs: stats?.rttMs ?? 0,
  };
}

export interface KnownAtBothEnds {
  readonly bases: BasePages | undefined;
  readonly dictionary: SharedDictionary | undefined;
}

/**
 * What the destination has that pages may refer to, and what they are packed with.
 * @param bases of the disks that may be like them, the paths, and the destination's key; undefined where it has none
 */
export async function learnShared(
  migration: SourceMigration,
  session: SendingSession,
  { enableDeltaSync, enableDictionary }: Pick<MigrationOptions, 'enableDeltaSync' | 'enableDictionary'>,
  {
    compress,
    dictionaryKey,
    bases: alike,
  }: {
    compress: boolean;
    dictionaryKey: DictionaryKey | undefined;
    bases: { readonly paths: readonly string[]; readonly pageKey: Buffer } | undefined;
  },
): Promise<KnownAtBothEnds> {
  const bases = enableDeltaSync && alike ? await learnBases(migration, session, alike.paths, alike.pageKey) : undefined;
  const dictionary =
    enableDictionary && compress ? await activeDictionary(migration, session, dictionaryKey) : undefined;
  return { bases, dictionary };
}

/**
 * Sends what a supplier has until all is confirmed; no thread reads for it any more when this returns.
 * @throws the coded error that ended it
 */
export async function transferPass(
  session: SendingSession,
  source: BatchSource,
  pacing: Pacing,
  signal: AbortSignal,
  { begun, brake }: { begun?: Promise<void>; brake?: Parameters<Pacing['drive']>[1] } = {},
): Promise<void> {
  const ending = new AbortController();
  const stopListening = onAbort(signal, () => ending.abort(signal.reason));
  source.onFailure((error) => ending.abort(error));
  begun?.catch((error: unknown) => ending.abort(error));
  const stopPacing = pacing.drive(session, brake);
  try {
    await session.transfer(source, ending.signal);
  } catch (error) {
    source.stop(toDwcpError(error, 'INTERNAL'));
    throw error;
  } finally {
    await source.idle();
    stopPacing();
    stopListening();
  }
}
