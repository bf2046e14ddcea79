/**
 * One settled measurement of goodput out of a run of samples: what comes before streams have settled does not count, nor do
 * intervals in which they were not the brake; noise is measured longer, and what cannot reach what it would have to is
 * not measured to the end. Pure.
 */

export interface LinkSample {
  readonly atMs: number;
  /** At the destination, all in all. */
  readonly arrivedBytes: number;
  readonly rttMs: number;
  /** Share of segments sent again; undefined where it cannot be seen. */
  readonly lossRatio?: number | undefined;
  /** Share of their time that the destination's receive windows held the streams; undefined where it cannot be seen. */
  readonly windowLimitedShare?: number | undefined;
  /** True where streams waited for batches, or the bandwidth limit held them. */
  readonly notTheStreams: boolean;
  /** The path is out: what was measured just before was its end. */
  readonly pathOut?: boolean;
  /** 0 for none. */
  readonly limitBytesPerSecond?: number;
  /** The agent's own threads are the brake. */
  readonly hostLimited?: boolean;
}

const MIN_MEASURE_MS = 2_000;
const MEASURE_ROUND_TRIPS = 20;
/** Long enough to see that a count is hopeless: so far below what it would have to carry. */
const GLANCE_MS = 600;
const GLANCE_ROUND_TRIPS = 8;
const HOPELESS_SHARE = 0.85;
const OUTAGE_SHARE = 0.1;
/** Where streams were taken away the others grow into their place, over seconds on a long path: waited for while it shows. */
const RISING_BY = 1.06;
const MAX_RISING_MS = 6_000;
const MAX_EXTENSIONS = 3;
const MAX_STANDARD_ERROR = 0.04;
const MAX_SETTLE_MS = 10_000;
const UNKNOWN_LOSS_SETTLE_MS = 3_000;
const SETTLE_ROUND_TRIPS = 25;

export class MeasuringWindow {
  /** 1 where streams were added, -1 where taken away, 0 neither; undefined where nothing has to settle. */
  #change: number | undefined = 1;
  #needed = 0;
  #beganAtMs: number | undefined;
  #last: LinkSample | undefined;
  #rates: number[] = [];
  #weightsMs: number[] = [];

  /**
   * Begins anew.
   * @param change sign of the change in streams; undefined for a look at what is there
   * @param needed goodput below which it is of no use
   */
  begin(change: number | undefined, needed = 0): void {
    this.#change = change;
    this.#needed = needed;
    this.#beganAtMs = undefined;
    this.#last = undefined;
    this.#rates = [];
    this.#weightsMs = [];
  }

  /** @returns bytes a second, once they are measured; then begin() is due */
  take(sample: LinkSample): number | undefined {
    if (sample.pathOut) this.begin(this.#change, this.#needed);
    this.#beganAtMs ??= sample.atMs;
    if (sample.atMs - this.#beganAtMs < this.#settleMs(sample)) return undefined;
    const last = this.#last;
    this.#last = sample;
    // A session that was opened again counts from nothing.
    const countsOn = last !== undefined && sample.arrivedBytes >= last.arrivedBytes;
    if (!countsOn || sample.notTheStreams || sample.atMs <= last.atMs) return undefined;
    const spanMs = sample.atMs - last.atMs;
    this.#rates.push((1000 * (sample.arrivedBytes - last.arrivedBytes)) / spanMs);
    this.#weightsMs.push(spanMs);
    const measuredMs = this.#weightsMs.reduce((sum, ms) => sum + ms, 0);
    const enoughMs = Math.max(MIN_MEASURE_MS, MEASURE_ROUND_TRIPS * sample.rttMs);
    const mean = this.#rates.reduce((sum, rate, index) => sum + rate * (this.#weightsMs[index] ?? 0), 0) / measuredMs;
    // Next to nothing may be the beginning of an outage, which shows only later.
    const hopeless = mean < HOPELESS_SHARE * this.#needed && mean > OUTAGE_SHARE * this.#needed;
    if (hopeless && measuredMs >= Math.max(GLANCE_MS, GLANCE_ROUND_TRIPS * sample.rttMs)) {
      if (this.#change !== -1 || sample.atMs - this.#beganAtMs > MAX_RISING_MS || !rises(this.#rates)) return mean;
      this.#rates = [];
      this.#weightsMs = [];
      return undefined;
    }
    if (measuredMs < enoughMs) return undefined;
    const noisy = standardErrorOf(this.#rates, mean) > MAX_STANDARD_ERROR;
    if (noisy && this.#change !== undefined && measuredMs < enoughMs * (1 + MAX_EXTENSIONS)) return undefined;
    return mean;
  }

  /** Fresh streams run on the momentum of slow start for about three of a Mathis flow's loss intervals. */
  #settleMs({ rttMs, lossRatio }: LinkSample): number {
    if (this.#change === undefined) return 0;
    if (this.#change <= 0) return 4 * rttMs + 500;
    if (lossRatio === undefined) return Math.max(UNKNOWN_LOSS_SETTLE_MS, SETTLE_ROUND_TRIPS * rttMs);
    const lossIntervalsMs = (2.5 * rttMs) / Math.sqrt(Math.max(1e-6, lossRatio));
    return Math.min(MAX_SETTLE_MS, Math.max(lossIntervalsMs, SETTLE_ROUND_TRIPS * rttMs));
  }
}

function rises(rates: readonly number[]): boolean {
  const half = rates.length >> 1;
  const sum = (part: readonly number[]): number => part.reduce((total, rate) => total + rate, 0);
  return sum(rates.slice(-half)) > RISING_BY * sum(rates.slice(0, half));
}

function standardErrorOf(rates: readonly number[], mean: number): number {
  if (rates.length < 2 || mean <= 0) return 0;
  const variance = rates.reduce((sum, rate) => sum + (rate - mean) ** 2, 0) / (rates.length - 1);
  return Math.sqrt(variance / rates.length) / mean;
}
