/**
 * How many streams pull work: one small interface, and its first rule. Pure: samples in, a number out; opening and
 * parking streams is the session's business.
 *
 *   settle -> measure -> better by MIN_GAIN? double again : back to the best -> hold -> (every PROBE_EVERY_MS) probe x1.5
 *
 * Samples in which the source or the limit was the brake teach nothing and are skipped (transport.md section 3.3).
 */
import { clamp } from '../model/units';

export interface TunerSample {
  readonly atMs: number;
  readonly goodputBytesPerSecond: number;
  readonly rttMs: number;
  /** True where streams waited for batches, or the bandwidth limit held them: the count of streams was not the brake. */
  readonly notTheStreams: boolean;
}

export interface StreamTuner {
  /** Streams that should pull now. */
  readonly target: number;
  /** Takes a sample and says how many should pull from now on. */
  observe(sample: TunerSample): number;
}

const MIN_GAIN = 1.08;
const PROBE_EVERY_MS = 30_000;
const MIN_SETTLE_MS = 1_000;
const MIN_MEASURE_MS = 1_000;

export class DoublingTuner implements StreamTuner {
  readonly #min: number;
  readonly #max: number;
  #target: number;
  #best: { streams: number; goodput: number } | undefined;
  #changedAt: number | undefined;
  #samples: number[] = [];
  #measuringMs = 0;
  #lastAt: number | undefined;
  #holdUntil = 0;

  constructor(initial: number, min: number, max: number) {
    this.#min = min;
    this.#max = max;
    this.#target = clamp(initial, min, max);
  }

  get target(): number {
    return this.#target;
  }

  observe(sample: TunerSample): number {
    const sinceLastMs = this.#lastAt === undefined ? 0 : sample.atMs - this.#lastAt;
    this.#lastAt = sample.atMs;
    this.#changedAt ??= sample.atMs;
    const settling = sample.atMs - this.#changedAt < Math.max(MIN_SETTLE_MS, 10 * sample.rttMs);
    if (settling || sample.notTheStreams || sample.atMs < this.#holdUntil) return this.#target;
    this.#samples.push(sample.goodputBytesPerSecond);
    this.#measuringMs += sinceLastMs;
    if (this.#measuringMs >= Math.max(MIN_MEASURE_MS, 10 * sample.rttMs)) this.#decide(sample.atMs);
    return this.#target;
  }

  #decide(atMs: number): void {
    const goodput = this.#samples.reduce((sum, value) => sum + value, 0) / Math.max(1, this.#samples.length);
    const paid = !this.#best || goodput >= this.#best.goodput * MIN_GAIN;
    if (paid) {
      const next = clamp(this.#best ? this.#target * 2 : Math.round(this.#target * 1.5), this.#min, this.#max);
      this.#best = { streams: this.#target, goodput };
      if (next === this.#target) this.#hold(this.#target, atMs);
      else this.#move(next, atMs);
    } else this.#hold(this.#best?.streams ?? this.#target, atMs);
  }

  /** Keeps the best for a while; after that, what it gives then is the measure for a probe upwards. */
  #hold(streams: number, atMs: number): void {
    this.#move(streams, atMs);
    this.#best = undefined;
    this.#holdUntil = atMs + PROBE_EVERY_MS;
  }

  #move(streams: number, atMs: number): void {
    this.#target = streams;
    this.#changedAt = atMs;
    this.#samples = [];
    this.#measuringMs = 0;
  }
}
