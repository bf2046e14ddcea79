/**
 * A look at a path without a migration: round trip and its spread, loss, and what one stream and many carry, by probes
 * that the destination counts and throws away. `dwcp link`.
 */
import { toDwcpError } from '../../model/errors';
import type { LinkSurvey } from '../../model/link-survey';
import { wait } from '../../system/wait';
import type { SendingSession } from '../../transport/sending-session';
import type { SourceMigration } from './source-migration';

const PROBE_BYTES = 64 * 1024;
/** Of each measurement: slow start is over by then on most paths. */
const LEFT_OUT_MS = 1_500;

/** @param seconds for one stream, and again for many */
export async function surveyLink(
  migration: SourceMigration,
  streams: number,
  seconds: number,
  signal: AbortSignal,
): Promise<LinkSurvey> {
  const session = await migration.sessionPatiently(signal);
  const open = await session.establish(streams);
  const link = await migration.measureLink();
  const oneStreamBytesPerSecond = await flood(session, 1, seconds, signal);
  const windowLimitedShare = session.stats.paths[0]?.windowLimitedShare;
  const manyStreamsBytesPerSecond = await flood(session, streams, seconds, signal);
  const { paths } = session.stats;
  const lossRatio = paths[0]?.lossRatio;
  return {
    link: { ...link, ...(lossRatio !== undefined && { lossRatio }) },
    jitterMs: session.control.jitterMs,
    streams: open,
    oneStreamBytesPerSecond,
    manyStreamsBytesPerSecond,
    deliveryBytesPerSecond: paths.reduce((sum, path) => sum + path.deliveryBytesPerSecond, 0),
    ...(windowLimitedShare !== undefined && { windowLimitedShare }),
    ...(session.keyExchange !== undefined && { keyExchange: session.keyExchange }),
  };
}

const QUICK_SECONDS = 3;

/** What a few seconds of full streams bring across: a quick look for a forecast. @returns bytes a second */
export async function rateOf(migration: SourceMigration, streams: number, signal: AbortSignal): Promise<number> {
  const session = await migration.sessionPatiently(signal);
  return flood(session, streams, QUICK_SECONDS, signal);
}

/** Keeps that many streams on each path full for a while. @returns bytes a second that arrived */
async function flood(session: SendingSession, streams: number, seconds: number, signal: AbortSignal): Promise<number> {
  session.setTargets(session.stats.paths.map(() => streams));
  const until = performance.now() + seconds * 1000;
  const writing = session.writeProbes(
    PROBE_BYTES,
    () => performance.now() < until && !signal.aborted && !session.ended,
  );
  await wait(LEFT_OUT_MS, signal);
  const [bytesBefore, before] = [session.arrivedBytes, performance.now()];
  await wait(Math.max(0, until - performance.now()), signal);
  const bytesPerSecond = ((session.arrivedBytes - bytesBefore) * 1000) / (performance.now() - before);
  await writing.catch((error: unknown) => Promise.reject(toDwcpError(error, 'SESSION_LOST')));
  return bytesPerSecond;
}
