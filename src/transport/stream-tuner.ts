/**
 * How many streams pull work, searched for and kept up: predict -> bracket -> confirm -> hold -> probe. Pure: samples in, a
 * number and a line that explains it out; opening and parking streams is the session's business, the first guess the
 * predictor's.
 *
 *   bracket   n, 2n, 4n ... while U rises; where the first step does not pay, n/2 ...; then one step of a factor 1.41
 *   confirm   the winner measured again: fresh streams show more than they keep up
 *   hold      on a path that hardly loses first n/1.41, n/2 ... as long as that carries as much;  deviates for three looks
 *             -> bracket again, not downwards where less arrives;  every 30 s and rarer a probe of a factor 1.5, up or down
 *
 *   U(n) = ln goodput - ALPHA ln n: the same share of goodput is asked for each doubling, at any n. Going down, fewer
 *   streams are taken while they carry what more did, so that halving after halving does not add up to a slow transfer.
 *
 * Source: docs/transport.md, from a path to a number of streams.
 */
import { clamp } from '../model/units';
import { type LinkSample, MeasuringWindow } from './measuring-window';

export interface StreamTuner {
  /** Streams that should pull now. */
  readonly target: number;
  /** Takes a sample and says how many should pull from now on. */
  observe(sample: LinkSample): number;
}

const ALPHA = 0.1;
/** What a confirmed count may have lost against the measurement that made it the winner, in ln units. */
const MIN_GAIN = 0.08;
const INDIFFERENT = 0.01;
/** Fewer streams may not carry less than this share of the most that was seen in the same search. */
const FEWER_MUST_CARRY = 0.96;
const PROBE_MUST_GAIN = 0.02;
const REFINE_BY = Math.SQRT2;
/**
 * Share of segments sent again up to which streams fill whatever the path has, however few: then few are come to in CUBIC's
 * own steps, which a full queue makes up for, where halving leaves the path idle until windows have grown.
 */
const HARDLY_LOSES = 5e-4;
const THIN_BY = Math.SQRT2;
/** More than in a search: a few streams less save little, and this goes on step after step. */
const THIN_MUST_CARRY = 0.985;
const PROBE_BY = 1.5;
const MAX_CONFIRMS = 3;
const BAD_DEVIATION = 0.22;
const BAD_LOOKS = 3;
const PROBE_EVERY_MS = 30_000;
const PROBE_SELDOM_MS = 240_000;
/** Share of their time above which the destination's receive windows, not the path, say what streams carry: fewer carry less. */
const WINDOW_LIMITED = 0.2;
/** Of the bandwidth limit: above it more streams cannot bring more. */
const AT_THE_LIMIT = 0.97;

export interface TunerBounds {
  readonly initial: number;
  readonly min: number;
  readonly max: number;
}

/** What is to be measured next. */
interface Wish {
  readonly streams: number;
  /** False while holding: nothing has changed, so nothing has to settle. */
  readonly settle: boolean;
  /** Goodput below which it cannot win. */
  readonly needed?: number;
}

/** A count and what it carries, bytes a second. */
export interface Held {
  readonly streams: number;
  readonly goodput: number;
}

type Search<T> = Generator<Wish, T, number>;

export class AdaptiveTuner implements StreamTuner {
  readonly #bounds: TunerBounds;
  readonly #log: (line: string) => void;
  readonly #life: Search<never>;
  readonly #window = new MeasuringWindow();
  #wish: Wish;
  #last: LinkSample | undefined;
  #probeEveryMs = PROBE_EVERY_MS;
  #probeUp = true;
  #held: Held | undefined;
  /** The search that comes next is for a path that lost some of its rate. */
  #hasFallen = false;

  /** @param log hears one line for each decision */
  constructor({ initial, min, max }: TunerBounds, log: (line: string) => void = () => undefined) {
    this.#bounds = { initial: clamp(initial, min, max), min, max };
    this.#log = log;
    this.#life = this.#live();
    this.#wish = this.#life.next().value;
  }

  get target(): number {
    return this.#wish.streams;
  }

  /** What was confirmed last; undefined before the first search has ended. */
  get held(): Held | undefined {
    return this.#held;
  }

  observe(sample: LinkSample): number {
    this.#last = sample;
    const goodput = this.#window.take(sample);
    if (goodput === undefined) return this.target;
    const before = this.target;
    this.#wish = this.#life.next(goodput).value;
    this.#window.begin(this.#wish.settle ? Math.sign(this.target - before) : undefined, this.#wish.needed);
    return this.target;
  }

  *#live(): Search<never> {
    let best: Held = { streams: this.#bounds.initial, goodput: yield { streams: this.#bounds.initial, settle: true } };
    for (;;) {
      best = yield* this.#confirm(yield* this.#bracket(best));
      this.#held = best;
      best = yield* this.#hold(best);
    }
  }

  *#bracket(start: Held): Search<Held> {
    // What a path carried before it carries again: with the count it needed then that shows at once, with fewer not at all.
    const mayLower = !this.#hasFallen && !this.#windowLimited;
    this.#hasFallen = false;
    let best = start;
    let most = start.goodput;
    let moved = false;
    const seen = [start];
    while (best.streams < this.#bounds.max && this.#mayClimb(best)) {
      const next = yield* this.#try(Math.min(this.#bounds.max, best.streams * 2), best, most);
      most = Math.max(most, next.goodput);
      seen.push(next);
      if (utility(next) <= utility(best)) break;
      best = next;
      moved = true;
    }
    while (!moved && mayLower && best.streams > this.#bounds.min) {
      const next = yield* this.#try(Math.max(this.#bounds.min, Math.round(best.streams / 2)), best, most);
      seen.push(next);
      if (utility(next) < utility(best) - INDIFFERENT || next.goodput < FEWER_MUST_CARRY * most) break;
      best = next;
    }
    for (const factor of mayLower ? [REFINE_BY, 1 / REFINE_BY] : [REFINE_BY]) {
      const streams = clamp(Math.round(best.streams * factor), this.#bounds.min, this.#bounds.max);
      if (streams === best.streams || (factor > 1 && !this.#mayClimb(best))) continue;
      const wins = (tried: Held): boolean =>
        utility(tried) > utility(best) + INDIFFERENT && (factor > 1 || tried.goodput >= FEWER_MUST_CARRY * most);
      // Up costs nothing to look at; down costs goodput, and what even fewer carried may say enough.
      if (factor < 1 && !wins({ streams, goodput: mostOf(streams, seen) })) continue;
      const next = yield* this.#try(streams, best, most);
      if (wins(next)) return next;
    }
    return best;
  }

  *#confirm(winner: Held): Search<Held> {
    let best = winner;
    for (let round = 1; round <= MAX_CONFIRMS; round += 1) {
      const again: Held = { streams: best.streams, goodput: yield { streams: best.streams, settle: true } };
      if (utility(again) >= utility(best) - MIN_GAIN) {
        this.#say(again, 'confirmed');
        return { streams: again.streams, goodput: Math.min(again.goodput, best.goodput) };
      }
      this.#say(again, 'less than it had shown: searched again');
      best = yield* this.#bracket(again);
    }
    return best;
  }

  /** @returns from where to search again */
  *#hold(confirmed: Held): Search<Held> {
    let held = confirmed;
    let thinned = false;
    let bad = 0;
    let probeAt = this.#nowMs + this.#probeEveryMs;
    for (;;) {
      const now: Held = { streams: held.streams, goodput: yield { streams: held.streams, settle: false } };
      bad = Math.abs(Math.log(now.goodput / held.goodput)) > BAD_DEVIATION ? bad + 1 : 0;
      if (bad >= BAD_LOOKS) {
        this.#probeEveryMs = PROBE_EVERY_MS;
        this.#hasFallen = now.goodput < held.goodput && !this.#hardlyLoses;
        this.#say(now, 'the path has changed: searched again');
        return now;
      }
      if (!thinned && bad === 0 && this.#hardlyLoses && !this.#windowLimited) {
        held = yield* this.#thinOut(held);
        thinned = true;
        continue;
      }
      if (this.#nowMs < probeAt) continue;
      const up = (this.#probeUp || this.#windowLimited) && this.#mayClimb(now);
      this.#probeUp = !this.#probeUp;
      const streams = clamp(
        Math.round(held.streams * (up ? PROBE_BY : 1 / PROBE_BY)),
        this.#bounds.min,
        this.#bounds.max,
      );
      const probed = streams === held.streams ? undefined : yield* this.#try(streams, now, now.goodput);
      if (
        probed &&
        utility(probed) > utility(now) + PROBE_MUST_GAIN &&
        (up || probed.goodput >= FEWER_MUST_CARRY * now.goodput)
      ) {
        this.#probeEveryMs = PROBE_EVERY_MS;
        return probed;
      }
      this.#probeEveryMs = Math.min(PROBE_SELDOM_MS, this.#probeEveryMs * PROBE_BY);
      probeAt = this.#nowMs + this.#probeEveryMs;
    }
  }

  /** The fewest that carry what these do. */
  *#thinOut(confirmed: Held): Search<Held> {
    let best = confirmed;
    while (best.streams > this.#bounds.min) {
      const fewer = yield* this.#try(
        Math.max(this.#bounds.min, Math.round(best.streams / THIN_BY)),
        best,
        confirmed.goodput,
      );
      if (fewer.goodput < THIN_MUST_CARRY * confirmed.goodput) break;
      this.#held = best = fewer;
    }
    return best;
  }

  /** @param most goodput seen so far in this search */
  *#try(streams: number, against: Held, most: number): Search<Held> {
    const pays = against.goodput * (streams / against.streams) ** ALPHA * Math.exp(-INDIFFERENT);
    const needed = streams < against.streams ? Math.max(pays, FEWER_MUST_CARRY * most) : pays;
    const tried: Held = { streams, goodput: yield { streams, settle: true, needed } };
    this.#say(tried, 'tried');
    return tried;
  }

  /** More streams can bring more: the limit is not reached, and this host has time for them. */
  #mayClimb({ goodput }: Held): boolean {
    const { limitBytesPerSecond = 0, hostLimited = false } = this.#last ?? {};
    return !hostLimited && (limitBytesPerSecond === 0 || goodput < AT_THE_LIMIT * limitBytesPerSecond);
  }

  get #hardlyLoses(): boolean {
    const { lossRatio } = this.#last ?? {};
    return lossRatio !== undefined && lossRatio < HARDLY_LOSES;
  }

  get #windowLimited(): boolean {
    return (this.#last?.windowLimitedShare ?? 0) > WINDOW_LIMITED;
  }

  get #nowMs(): number {
    return this.#last?.atMs ?? 0;
  }

  #say({ streams, goodput }: Held, what: string): void {
    const { lossRatio, windowLimitedShare = 0 } = this.#last ?? {};
    const lost = lossRatio === undefined ? '' : `, ${(100 * lossRatio).toPrecision(2)} % sent again`;
    const held = this.#windowLimited
      ? `, held by the destination's receive windows for ${(100 * windowLimitedShare).toFixed(0)} % of the time (net.ipv4.tcp_rmem there)`
      : '';
    this.#log(`${streams} streams, ${((goodput * 8) / 1e6).toFixed(1)} Mbit/s${lost}${held}: ${what}`);
  }
}

/** What a count can carry at most, by what fewer streams did: each of more carries no more than each of those. */
function mostOf(streams: number, seen: readonly Held[]): number {
  return Math.min(
    Infinity,
    ...seen
      .filter((other) => other.streams <= streams)
      .map(({ streams: fewer, goodput }) => (goodput * streams) / fewer),
  );
}

function utility({ streams, goodput }: Held): number {
  return Math.log(Math.max(1, goodput)) - ALPHA * Math.log(streams);
}
