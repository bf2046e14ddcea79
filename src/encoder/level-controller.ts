/**
 * Which zstd level comes next: the one at which network and processor together take least. Pure arithmetic on samples;
 * who measures and who compresses is elsewhere. Rule: docs/encoding.md, level:
 *
 *   net = packed bytes / goodput      cpu = packing time / threads      level = argmin( max(net, cpu) + 0.02 min(net, cpu) )
 *
 * with sizes and times of each rung from a table measured on VM memory, corrected by what this data shows.
 */
import { LEVEL_LADDER } from '../model/tiers';

type Level = (typeof LEVEL_LADDER)[number];

/** Packed share and nanoseconds a raw byte on one core, of 256 KiB batches of a Linux guest's memory. */
const PRIOR: Readonly<Record<Level, { readonly share: number; readonly nsPerByte: number }>> = {
  [-5]: { share: 1 / 2.06, nsPerByte: 2.7 },
  [-1]: { share: 1 / 2.47, nsPerByte: 3.4 },
  1: { share: 1 / 2.77, nsPerByte: 3.8 },
  3: { share: 1 / 2.92, nsPerByte: 6.1 },
  6: { share: 1 / 3.01, nsPerByte: 16 },
  9: { share: 1 / 3.07, nsPerByte: 29 },
  10: { share: 1 / 3.18, nsPerByte: 52 },
};

const SMOOTHING = 0.1;

export interface LevelSample {
  readonly level: number;
  readonly gatheredBytes: number;
  readonly payloadBytes: number;
  readonly packMs: number;
  /** Reading, hashing and all else that a batch costs at any level. */
  readonly otherMs: number;
}

/** Weight of the shorter of the two: among levels that cost the same, the one that leaves more to others. */
const SHORTER_COUNTS = 0.02;
/** Among levels that take as long, but for so much, the one that sends least. */
const AS_GOOD = 1.01;
const MAX_PRESSURE = 16;
/** Where much of what is sent does not compress, the processor has the link's time for that too. */
const LEAST_PRESSURE = 1 / 16;
/** Five times a second: down a rung within a second, up again over half a minute, so that the link does not run dry for a try. */
const PRESS = 1.15;
const RELAX = 0.996;
/** With seconds of the link's work on the way there is time for a try. */
const RELAX_FAST = 0.82;
const CALIBRATING = 0.3;
const BELOW_COSTLIEST = 9;

export class LevelController {
  readonly #rungs: readonly Level[];
  readonly #threads: number;
  /** Measured over expected, for sizes and for packing times; the same factor serves all rungs. */
  #sizeFactor = 1;
  #timeFactor = 1;
  #otherNsPerByte = 1;
  #level: Level;
  #reason = 'nothing is known yet';
  /**
   * How much slower this process packs than its threads alone would let it: others use the processors too. Below one,
   * how much less of it there is to do.
   */
  #pressure = 1;

  /** Starts at level 3 where it may, which no link of a wide area outruns; else at the cheapest rung that is not negative. */
  constructor(maxLevel: number, threads: number, fixedLevel?: number) {
    this.#rungs = LEVEL_LADDER.filter((level) => (fixedLevel === undefined ? level <= maxLevel : level === fixedLevel));
    this.#threads = Math.max(1, threads);
    this.#level = ([3, 1] as const).find((level) => this.#rungs.includes(level)) ?? this.#rungs[0] ?? -5;
  }

  get level(): number {
    return this.#level;
  }

  /** Why it is this level, in one line. */
  get reason(): string {
    return this.#reason;
  }

  observe(sample: LevelSample): void {
    if (sample.gatheredBytes < 16_384) return;
    const prior = PRIOR[sample.level as Level];
    const share = sample.payloadBytes / sample.gatheredBytes;
    const nsPerByte = (sample.packMs * 1e6) / sample.gatheredBytes;
    this.#sizeFactor += SMOOTHING * (share / prior.share - this.#sizeFactor);
    this.#timeFactor += SMOOTHING * (nsPerByte / prior.nsPerByte - this.#timeFactor);
    this.#otherNsPerByte += SMOOTHING * ((sample.otherMs * 1e6) / sample.gatheredBytes - this.#otherNsPerByte);
  }

  /** Says whether the processor was what held the transfer up: cheaper levels are chosen until it is not. */
  press(processor: 'behind' | 'ahead' | 'far ahead'): void {
    const pressure = this.#pressure;
    if (processor === 'far ahead') this.#pressure = Math.max(LEAST_PRESSURE, pressure * RELAX_FAST);
    else if (processor === 'behind')
      this.#pressure = Math.min(MAX_PRESSURE, Math.max(pressure * PRESS, Math.min(1, 2 * pressure)));
    else this.#pressure = pressure < 1 ? Math.min(1, pressure * PRESS) : Math.max(1, pressure * RELAX);
  }

  /** What came out of the encoder, before packing, while the link waited for it: from it follows what a byte really costs. */
  calibrate(gatheredBytesPerSecond: number, processors = this.#threads): void {
    if (gatheredBytesPerSecond <= 0) return;
    const { cpu } = this.#expect(this.#level, 1, processors);
    const pressure = this.#pressure / (gatheredBytesPerSecond * cpu);
    this.#pressure = Math.min(MAX_PRESSURE, Math.max(1, this.#pressure + CALIBRATING * (pressure - this.#pressure)));
  }

  /**
   * Chooses the level for the batches to come.
   * @param goodputBytesPerSecond what the link takes now, 0 where nothing is known yet
   * @param processors what the host has idle for it, at most its threads
   * @param pace at once: by what has been measured of the link before anything is sent: a short transfer is over before rungs are climbed
   */
  choose(goodputBytesPerSecond: number, processors = this.#threads, pace: 'in steps' | 'at once' = 'in steps'): number {
    if (goodputBytesPerSecond <= 0) return this.#level;
    const costs = this.#rungs.map((level) => {
      const { net, cpu } = this.#expect(level, goodputBytesPerSecond, processors);
      return { level, seconds: Math.max(net, cpu) + SHORTER_COUNTS * Math.min(net, cpu) };
    });
    const least = Math.min(...costs.map(({ seconds }) => seconds));
    const cheapest = costs.findLast(({ seconds }) => seconds <= least * AS_GOOD)?.level ?? this.#level;
    // The costliest is another encoder: taken from the rung below it alone, where it is known what this one costs here.
    const best =
      cheapest > BELOW_COSTLIEST && this.#level < BELOW_COSTLIEST && pace === 'in steps' ? BELOW_COSTLIEST : cheapest;
    if (best !== this.#level) this.#explain(best, goodputBytesPerSecond, processors);
    this.#level = best;
    return this.#level;
  }

  #explain(level: Level, goodputBytesPerSecond: number, processors: number): void {
    const { net, cpu } = this.#expect(level, goodputBytesPerSecond, processors);
    const ms = (seconds: number): string => `${(seconds * 1e9).toFixed(1)} ms`;
    const pressed = Math.abs(this.#pressure - 1) > 0.01 ? `, ${this.#pressure.toFixed(1)} times what it should` : '';
    this.#reason = `a megabyte takes the link ${ms(net)} and ${processors.toFixed(1)} processors ${ms(cpu)}${pressed}`;
  }

  /** Seconds a byte. */
  #expect(
    level: Level,
    goodputBytesPerSecond: number,
    processors: number,
  ): { readonly net: number; readonly cpu: number } {
    const prior = PRIOR[level];
    const net = Math.min(1, prior.share * this.#sizeFactor) / goodputBytesPerSecond;
    const cpu = ((prior.nsPerByte * this.#timeFactor + this.#otherNsPerByte) * 1e-9 * this.#pressure) / processors;
    return { net, cpu };
  }
}
