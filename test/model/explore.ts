/**
 * An explicit-state search: breadth first, over states that are arrays of bytes in typed memory (no object a state). Gives the
 * shortest way to what is violated, and by a backward pass the states from which no good end can be reached any more. What a
 * state means is the model's business.
 */

/** `fair`: happens in the end where it can. `operator`: only where somebody does it. `fault`: may happen, need not. */
export type Kind = 'fair' | 'operator' | 'fault';

export interface Model {
  /** Length of a state. */
  readonly bytes: number;
  readonly initial: Uint8Array;
  /** Hands each state that may follow to `out`, which copies it at once. */
  next(state: Uint8Array, out: (next: Uint8Array, label: string, kind: Kind) => void): void;
  /** Names of the properties that do not hold in a state. */
  violated(state: Uint8Array): readonly string[];
}

export interface Violation {
  readonly property: string;
  readonly states: number;
  /** The shortest way there, in words. */
  readonly story: readonly string[];
}

export interface Explored {
  readonly states: number;
  readonly transitions: number;
  /** False where the limit cut it off, or a violation was enough. */
  readonly complete: boolean;
  readonly violations: readonly Violation[];
  /** @returns how many states have no way to a good one, and the shortest way to the first of them */
  cannotReach(
    good: (state: Uint8Array) => boolean,
    kinds: readonly Kind[],
  ): { readonly states: number; readonly story: readonly string[]; readonly last: Uint8Array | undefined };
}

const KIND_CODES: Readonly<Record<Kind, number>> = { fair: 0, operator: 1, fault: 2 };

/** States by number, without objects: one long array, and a table of hashes into it. */
class StateSet {
  readonly #bytes: number;
  #data: Uint8Array;
  #parents: Int32Array;
  #table: Int32Array;
  count = 0;

  constructor(bytes: number) {
    this.#bytes = bytes;
    this.#data = new Uint8Array((1 << 16) * bytes);
    this.#parents = new Int32Array(1 << 16);
    this.#table = new Int32Array(1 << 18).fill(-1);
  }

  at(index: number): Uint8Array {
    return this.#data.subarray(index * this.#bytes, (index + 1) * this.#bytes);
  }

  parentOf(index: number): number {
    return this.#parents[index] ?? -1;
  }

  /** @returns the state's number; a new one has the highest */
  intern(state: Uint8Array, parent: number): number {
    const mask = this.#table.length - 1;
    let slot = hash(state) & mask;
    for (let known = this.#table[slot] ?? -1; known >= 0; known = this.#table[slot] ?? -1) {
      if (this.#isSame(state, known)) return known;
      slot = (slot + 1) & mask;
    }
    if ((this.count + 1) * this.#bytes > this.#data.length) this.#grow();
    this.#data.set(state, this.count * this.#bytes);
    this.#parents[this.count] = parent;
    this.#table[slot] = this.count;
    this.count += 1;
    if (this.count * 2 > this.#table.length) this.#rehash();
    return this.count - 1;
  }

  #isSame(state: Uint8Array, index: number): boolean {
    const from = index * this.#bytes;
    for (let i = 0; i < this.#bytes; i += 1) if (state[i] !== this.#data[from + i]) return false;
    return true;
  }

  #grow(): void {
    const data = new Uint8Array(this.#data.length * 2);
    data.set(this.#data);
    this.#data = data;
    const parents = new Int32Array(this.#parents.length * 2);
    parents.set(this.#parents);
    this.#parents = parents;
  }

  #rehash(): void {
    this.#table = new Int32Array(this.#table.length * 2).fill(-1);
    const mask = this.#table.length - 1;
    for (let index = 0; index < this.count; index += 1) {
      let slot = hash(this.at(index)) & mask;
      while ((this.#table[slot] ?? -1) >= 0) slot = (slot + 1) & mask;
      this.#table[slot] = index;
    }
  }
}

/** Found once: in Jest's contexts a global is slow to find. */
const { imul } = Math;

/** FNV-1a with a last stir. */
function hash(state: Uint8Array): number {
  let h = 0x811c9dc5;
  for (const byte of state) h = imul(h ^ byte, 0x01000193);
  h ^= h >>> 15;
  h = imul(h, 0x2c1b3c6d);
  return (h ^ (h >>> 12)) >>> 0;
}

/** An array of numbers that grows. */
class Numbers {
  values: Int32Array = new Int32Array(1 << 16);
  length = 0;

  push(value: number): void {
    if (this.length === this.values.length) {
      const more = new Int32Array(this.values.length * 2);
      more.set(this.values);
      this.values = more;
    }
    this.values[this.length] = value;
    this.length += 1;
  }
}

/** Beyond that a search is cut off: some GB. */
export const MOST_STATES = 20_000_000;

/** @param options.untilViolated the first violation ends it */
export function explore(
  model: Model,
  { limit = MOST_STATES, untilViolated = false }: { readonly limit?: number; readonly untilViolated?: boolean } = {},
): Explored {
  const set = new StateSet(model.bytes);
  const found = new Map<string, { index: number; states: number }>();
  const note = (index: number): void => {
    for (const property of model.violated(set.at(index))) {
      const known = found.get(property);
      if (known) known.states += 1;
      else found.set(property, { index, states: 1 });
    }
  };
  const intern = (state: Uint8Array, parent: number): number => {
    const before = set.count;
    const index = set.intern(state, parent);
    if (set.count > before) note(index);
    return index;
  };
  // Edges that are no faults, for the backward pass: to, kind; where each state's begin.
  const to = new Numbers();
  const kinds = new Numbers();
  const starts = new Numbers();
  let transitions = 0;
  intern(model.initial, -1);
  let expanded = 0;
  for (; expanded < set.count && set.count <= limit && !(untilViolated && found.size > 0); expanded += 1) {
    starts.push(to.length);
    const state = set.at(expanded).slice();
    const index = expanded;
    model.next(state, (next, _label, kind) => {
      transitions += 1;
      const following = intern(next, index);
      if (kind === 'fault') return;
      to.push(following);
      kinds.push(KIND_CODES[kind]);
    });
  }
  starts.push(to.length);

  const storyOf = (index: number): string[] => {
    const path: number[] = [];
    for (let at = index; at >= 0; at = set.parentOf(at)) path.push(at);
    path.reverse();
    return path.slice(1).map((at, step) => {
      const wanted = set.at(at);
      let story = '?';
      model.next(set.at(path[step] ?? 0).slice(), (next, label) => {
        if (story === '?' && next.every((byte, i) => byte === wanted[i])) story = label;
      });
      return story;
    });
  };

  return {
    states: set.count,
    transitions,
    complete: expanded === set.count,
    violations: [...found].map(([property, { index, states }]) => ({ property, states, story: storyOf(index) })),
    cannotReach: (good, allowed) => {
      const codes = new Set(allowed.map((kind) => KIND_CODES[kind]));
      const reaches = backward(
        set.count,
        expanded,
        starts.values,
        to.values,
        kinds.values,
        codes,
        (index) => index >= expanded || good(set.at(index)),
      );
      let states = 0;
      let first = -1;
      for (let index = 0; index < set.count; index += 1) {
        if (reaches[index] === 1) continue;
        states += 1;
        if (first < 0) first = index;
      }
      return { states, story: first < 0 ? [] : storyOf(first), last: first < 0 ? undefined : set.at(first).slice() };
    },
  };
}

/** One byte a state: 1 where a good one can be reached over edges of the kinds allowed. */
function backward(
  count: number,
  expanded: number,
  starts: Int32Array,
  to: Int32Array,
  kinds: Int32Array,
  codes: ReadonlySet<number>,
  isGood: (index: number) => boolean,
): Uint8Array {
  const degree = new Int32Array(count + 1);
  const each = (visit: (from: number, target: number) => void): void => {
    for (let from = 0; from < expanded; from += 1)
      for (let edge = starts[from] ?? 0; edge < (starts[from + 1] ?? 0); edge += 1)
        if (codes.has(kinds[edge] ?? 0)) visit(from, to[edge] ?? 0);
  };
  each((_, target) => (degree[target + 1] = (degree[target + 1] ?? 0) + 1));
  for (let index = 0; index < count; index += 1) degree[index + 1] = (degree[index + 1] ?? 0) + (degree[index] ?? 0);
  const back = new Int32Array(degree[count] ?? 0);
  const fill = degree.slice();
  each((from, target) => {
    back[fill[target] ?? 0] = from;
    fill[target] = (fill[target] ?? 0) + 1;
  });
  const reaches = new Uint8Array(count);
  const queue = new Numbers();
  for (let index = 0; index < count; index += 1) {
    if (!isGood(index)) continue;
    reaches[index] = 1;
    queue.push(index);
  }
  for (let head = 0; head < queue.length; head += 1) {
    const index = queue.values[head] ?? 0;
    for (let edge = degree[index] ?? 0; edge < (degree[index + 1] ?? 0); edge += 1) {
      const from = back[edge] ?? 0;
      if (reaches[from] === 1) continue;
      reaches[from] = 1;
      queue.push(from);
    }
  }
  return reaches;
}
