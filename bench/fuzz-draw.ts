/**
 * What chance gives a fuzzed input: numbers, choices and bytes that depend on the seed and the input's number only, so that one input can
 * be made again without those before it. The generator is sfc32 (PractRand's small fast counter), seeded by two rounds of splitmix32.
 */

/** Where lengths, counters and offsets go wrong. */
export const EDGES: readonly number[] = [
  ...[0, 1, 2, 3, 4, 7, 8, 15, 16, 31, 32, 35, 36, 63, 64, 65, 127, 128, 255, 256, 4095, 4096, 4097],
  ...[16_383, 16_384, 65_535, 65_536, 65_537, 2 ** 20, 2 ** 22, 2 ** 22 + 65_536, 2 ** 22 + 65_537],
  ...[2 ** 24, 2 ** 31 - 1, 2 ** 31, 2 ** 32 - 1, 2 ** 32, 2 ** 40, 2 ** 43, 2 ** 45, 2 ** 52],
  ...[Number.MAX_SAFE_INTEGER, 2 ** 53, 2 ** 63, Number.MAX_VALUE],
];

function split(state: number): number {
  let mixed = (state + 0x9e3779b9) | 0;
  mixed = Math.imul(mixed ^ (mixed >>> 16), 0x21f0aaad);
  mixed = Math.imul(mixed ^ (mixed >>> 15), 0x735a2d97);
  return (mixed ^ (mixed >>> 15)) | 0;
}

export class Draw {
  #a: number;
  #b: number;
  #c: number;
  #counter = 1;

  constructor(seed: number, index: number) {
    this.#a = split(seed);
    this.#b = split(this.#a ^ index);
    this.#c = split(this.#b ^ Math.floor(index / 2 ** 32));
    for (let round = 0; round < 4; round += 1) this.u32();
  }

  u32(): number {
    const sum = (((this.#a + this.#b) | 0) + this.#counter) | 0;
    this.#counter = (this.#counter + 1) | 0;
    this.#a = this.#b ^ (this.#b >>> 9);
    this.#b = (this.#c + (this.#c << 3)) | 0;
    this.#c = (((this.#c << 21) | (this.#c >>> 11)) + sum) | 0;
    return sum >>> 0;
  }

  /** From 0 to `limit` - 1; 0 where there is no room. */
  below(limit: number): number {
    return limit <= 1 ? 0 : Math.floor((this.u32() / 2 ** 32) * limit);
  }

  oneIn(times: number): boolean {
    return this.below(times) === 0;
  }

  pick<T>(list: readonly T[]): T {
    const picked = list[this.below(list.length)];
    if (picked === undefined) throw new Error('nothing to pick from');
    return picked;
  }

  edge(): number {
    return this.pick(EDGES);
  }

  bytes(length: number): Buffer {
    const out = Buffer.allocUnsafe(length);
    for (let at = 0; at < length; at += 1) out[at] = this.u32();
    return out;
  }
}
