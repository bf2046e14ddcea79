/**
 * How many streams a path will need, before anything has been sent on it: from this path's own past, else from what paths
 * of its kind needed, else from physics. A guess to begin with and nothing more: the tuner measures it like any other
 * count. Pure.
 *
 *   1  same path: mean of ln n over the 5 nearest rows, weighted by 1 / distance
 *   2  30 rows or more of any path: ridge regression of ln n on ln rtt, ln loss, ln rate
 *   3  BBR: 16, which the first seconds need and the tuner thins out; loss known: what Mathis streams need for the rate
 *      seen (rate = MSS / (RTT sqrt(2p/3)), Mathis et al. 1997), with a tenth more
 *   4  else as many as keep a few segments each in the path: half of those the rate seen would feed
 *
 * Source: docs/transport.md, from a path to a number of streams.
 */
import type { PathRow } from '../model/path-row';
import { clamp } from '../model/units';
import { solveRidge } from './ridge';

export interface PathQuery {
  readonly path: string;
  readonly hour: number;
  readonly rttMs: number;
  /** First estimate, 0 where there is none. */
  readonly bandwidthBytesPerSecond: number;
  readonly lossRatio?: number | undefined;
  readonly congestionControl?: string | undefined;
  /** 0 for none. */
  readonly limitBytesPerSecond: number;
}

export interface StreamsExpected {
  readonly streams: number;
  readonly reason: string;
}

const NEIGHBOURS = 5;
const ROWS_FOR_REGRESSION = 30;
const RIDGE = 1;
const MSS_BYTES = 1448;
const MATHIS = 1.22;
const BBR_STREAMS = 16;
/** Without any knowledge of loss: neither few enough to crawl nor so many that a slow path drowns in first windows. */
const UNKNOWN_LEAST = 8;
const UNKNOWN_MOST = 64;
const SEGMENTS_A_STREAM = 6;
/** Below it any count will do to begin with. */
const UNKNOWN_FROM_RTT_MS = 10;
const MOST_STREAMS = 256;
const LEAST_LOSS = 1e-6;
const HALF_LIFE_MS = 14 * 24 * 3600e3;

/** @returns undefined where nothing is known that the tier's own count would not serve as well */
export function predictStreams(rows: readonly PathRow[], query: PathQuery): StreamsExpected | undefined {
  const paced = isBbr(query.congestionControl);
  const alike = rows.filter((row) => isBbr(row.congestionControl) === paced);
  const own = alike.filter((row) => row.path === query.path);
  if (own.length > 0) return nearest(own, query);
  if (paced) return { streams: BBR_STREAMS, reason: `${query.congestionControl ?? 'bbr'} fills a path with few` };
  if (alike.length >= ROWS_FOR_REGRESSION) return regression(alike, query);
  return physics(query);
}

function isBbr(congestionControl: string | undefined): boolean {
  return congestionControl?.startsWith('bbr') ?? false;
}

function features({ rttMs, lossRatio }: Pick<PathRow, 'rttMs' | 'lossRatio'>, bytesPerSecond: number): number[] {
  return [
    Math.log(Math.max(0.05, rttMs)),
    Math.log(Math.max(LEAST_LOSS, lossRatio ?? LEAST_LOSS)),
    Math.log(Math.max(1e3, bytesPerSecond)),
  ];
}

/** Rates say little of likeness, since they follow from the count: round trip, loss where it is known, hour and age do. */
function distance(row: PathRow, query: PathQuery, newestAtMs: number): number {
  const rtt = Math.log(Math.max(0.05, row.rttMs) / Math.max(0.05, query.rttMs));
  const loss =
    query.lossRatio === undefined || row.lossRatio === undefined
      ? 0
      : Math.log(Math.max(LEAST_LOSS, row.lossRatio) / Math.max(LEAST_LOSS, query.lossRatio)) / 2;
  const apart = Math.abs(row.hour - query.hour);
  const hours = Math.min(apart, 24 - apart) / 12;
  const age = (newestAtMs - row.atMs) / HALF_LIFE_MS;
  return Math.sqrt(rtt ** 2 + loss ** 2 + hours ** 2 + age ** 2);
}

function nearest(rows: readonly PathRow[], query: PathQuery): StreamsExpected {
  const newestAtMs = Math.max(...rows.map((row) => row.atMs));
  const near = rows
    .map((row) => ({ row, weight: 1 / (0.1 + distance(row, query, newestAtMs)) }))
    .sort((a, b) => b.weight - a.weight)
    .slice(0, NEIGHBOURS);
  const total = near.reduce((sum, { weight }) => sum + weight, 0);
  const logStreams = near.reduce((sum, { row, weight }) => sum + weight * Math.log(row.streams), 0) / total;
  return {
    streams: bounded(Math.exp(logStreams)),
    reason: `${near.length} transfer${near.length === 1 ? '' : 's'} on this path before`,
  };
}

function regression(rows: readonly PathRow[], query: PathQuery): StreamsExpected {
  const xs = rows.map((row) => [1, ...features(row, row.bytesPerSecond)]);
  const weights = solveRidge(
    xs,
    rows.map((row) => Math.log(row.streams)),
    RIDGE,
  );
  const at = [1, ...features(query, wantedRate(query) || median(rows.map((row) => row.bytesPerSecond)))];
  return {
    streams: bounded(Math.exp(at.reduce((sum, x, index) => sum + x * (weights[index] ?? 0), 0))),
    reason: `${rows.length} transfers on other paths`,
  };
}

function physics(query: PathQuery): StreamsExpected | undefined {
  const rate = wantedRate(query);
  if (rate <= 0) return undefined;
  const { rttMs, lossRatio } = query;
  if (lossRatio !== undefined && lossRatio > 0) {
    const streams = (1.1 * rate * (rttMs / 1000) * Math.sqrt(lossRatio)) / (MATHIS * MSS_BYTES);
    return { streams: bounded(streams), reason: `${(100 * lossRatio).toPrecision(2)} % of segments lost` };
  }
  if (rttMs < UNKNOWN_FROM_RTT_MS) return undefined;
  const fed = (rate * rttMs) / 1000 / (SEGMENTS_A_STREAM * MSS_BYTES);
  return {
    streams: clamp(Math.round(fed), UNKNOWN_LEAST, UNKNOWN_MOST),
    reason: 'nothing known of this path but round trip and rate',
  };
}

function wantedRate({ bandwidthBytesPerSecond, limitBytesPerSecond }: PathQuery): number {
  return limitBytesPerSecond > 0 ? Math.min(bandwidthBytesPerSecond, limitBytesPerSecond) : bandwidthBytesPerSecond;
}

function bounded(streams: number): number {
  return clamp(Math.round(streams), 1, MOST_STREAMS);
}

function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[values.length >> 1] ?? 0;
}
