/**
 * How much of its memory a running guest has changed after some time, from what was seen after one or two times. Each page counts
 * once, however often it is written, so what a guest writes again and again does not grow: D(t) = W (1 - e^(-t / T)), a set W of pages
 * that are written at random. One look says the rate alone; then it is taken to go on growing. Pure.
 */

export interface DirtySeen {
  readonly seconds: number;
  /** Of different pages that have changed by then. */
  readonly bytes: number;
}

/** What has changed after so many seconds, in bytes. */
export type DirtyGrowth = (seconds: number) => number;

/** A second look that found this share of what steady growth would give has seen no bound: samples are not that exact. */
const STEADY_FROM = 0.9;
const BISECTIONS = 60;

/** @param seen one look or two, the shorter first @param memoryBytes more than that never changes */
export function dirtyGrowth(seen: readonly DirtySeen[], memoryBytes: number): DirtyGrowth {
  const looks = seen.filter(({ seconds }) => seconds > 0);
  const last = looks.at(-1);
  if (!last || last.bytes <= 0) return () => 0;
  const [first] = looks;
  const steady: DirtyGrowth = (seconds) => Math.min(memoryBytes, (last.bytes / last.seconds) * seconds);
  if (!first || first === last || first.bytes <= 0) return steady;
  const wanted = last.bytes / first.bytes;
  // Fewer than before is a matter of which pages were looked at: nothing grows any more.
  if (wanted <= 1) return (seconds) => last.bytes * Math.min(1, seconds / first.seconds);
  if (wanted >= (STEADY_FROM * last.seconds) / first.seconds) return steady;
  const ratioAt = (time: number): number =>
    (1 - Math.exp(-last.seconds / time)) / (1 - Math.exp(-first.seconds / time));
  // The ratio rises with the time that the set takes to fill, from 1 to that of steady growth.
  let [low, high] = [first.seconds / 50, 1000 * last.seconds];
  for (let step = 0; step < BISECTIONS; step += 1) {
    const middle = Math.sqrt(low * high);
    if (ratioAt(middle) < wanted) low = middle;
    else high = middle;
  }
  const set = Math.min(memoryBytes, last.bytes / (1 - Math.exp(-last.seconds / high)));
  return (seconds) => set * (1 - Math.exp(-seconds / high));
}
