/**
 * Which zstd level comes next: the one at which network and processor together take least. Pure arithmetic on samples;
 * who measures and who compresses is elsewhere. Rule: compression.md section 6.3,
 *
 *   net = packed bytes / goodput      cpu = packing time / threads      level = argmin( max(net, cpu) + 0.02 min(net, cpu) )
 *
 * with sizes and times of each rung from a table measured on VM memory, corrected by what this data shows.
 */
import { LEVEL_LADDER } from '../model/tiers';

type Level = (typeof LEVEL_LADDER)[number];

/** Packed share and nanoseconds a raw byte on one core, compression.md section 6.2. */
const PRIOR: Readonly<Record<Level, { readonly share: number; readonly nsPerByte: number }>> = {
  [-5]: { share: 1 / 2.06, nsPerByte: 2.7 },
  [-1]: { share: 1 / 2.47, nsPerByte: 3.4 },
  1: { share: 1 / 2.77, nsPerByte: 3.8 },
  3: { share: 1 / 2.92, nsPerByte: 6.1 },
  6: { share: 1 / 3.01, nsPerByte: 16 },
  9: { share: 1 / 3.07, nsPerByte: 29 },
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

const MAX_PRESSURE = 16;
/** Five times a second: down a rung within a second, up again over half a minute, so that the link does not run dry for a try. */
const PRESS = 1.15;
const RELAX = 0.996;

export class LevelController {
  readonly #rungs: readonly Level[];
  readonly #threads: number;
  /** Measured over expected, for sizes and for packing times; the same factor serves all rungs. */
  #sizeFactor = 1;
  #timeFactor = 1;
  #otherNsPerByte = 1;
  #level: Level;
  /** How much slower this process packs than its threads alone would let it: others use the processors too. */
  #pressure = 1;

  /** Starts at the cheapest rung that is not negative, which wastes least when nothing is known. */
  constructor(maxLevel: number, threads: number) {
    this.#rungs = LEVEL_LADDER.filter((level) => level <= maxLevel);
    this.#threads = Math.max(1, threads);
    this.#level = this.#rungs.includes(1) ? 1 : (this.#rungs[0] ?? -5);
  }

  get level(): number {
    return this.#level;
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
  press(processorIsBehind: boolean): void {
    this.#pressure = processorIsBehind ? Math.min(MAX_PRESSURE, this.#pressure * PRESS) : Math.max(1, this.#pressure * RELAX);
  }

  /**
   * Chooses the level for the batches to come.
   * @param goodputBytesPerSecond what the link takes now, 0 where nothing is known yet
   * @param starved the link waited for batches: one rung faster than the arithmetic says
   */
  choose(goodputBytesPerSecond: number, starved: boolean): number {
    if (goodputBytesPerSecond <= 0) return this.#level;
    let best = this.#level;
    let least = Infinity;
    for (const level of this.#rungs) {
      const seconds = this.#cost(level, goodputBytesPerSecond);
      if (seconds < least * 0.999) {
        least = seconds;
        best = level;
      }
    }
    const index = this.#rungs.indexOf(best);
    this.#level = starved && index > 0 && best >= this.#level ? (this.#rungs[index - 1] ?? best) : best;
    return this.#level;
  }

  #cost(level: Level, goodputBytesPerSecond: number): number {
    const prior = PRIOR[level];
    const net = Math.min(1, prior.share * this.#sizeFactor) / goodputBytesPerSecond;
    const cpu = ((prior.nsPerByte * this.#timeFactor + this.#otherNsPerByte) * 1e-9 * this.#pressure) / this.#threads;
    return Math.max(net, cpu) + 0.02 * Math.min(net, cpu);
  }
}
