/**
 * A fixed piece of shared memory, cut into runs on demand: the pool of all batches in flight of one direction. Worker
 * threads fill and read runs in place, sockets write from them, so a batch is never copied between threads. The
 * bound of an agent's memory is this size. Who waits for a run waits in line.
 */
import { KIB } from '../model/units';

const UNIT_BYTES = 16 * KIB;

/** A contiguous piece of the slab. */
export interface Run {
  readonly offset: number;
  /** Units held now; trim() gives back the tail. */
  units: number;
  readonly bytes: Buffer;
}

export class Slab {
  readonly memory: SharedArrayBuffer;
  readonly #taken: Uint8Array;
  readonly #waiting = new Set<() => void>();
  #freeUnits: number;

  constructor(sizeBytes: number) {
    const units = Math.max(1, Math.floor(sizeBytes / UNIT_BYTES));
    this.memory = new SharedArrayBuffer(units * UNIT_BYTES);
    this.#taken = new Uint8Array(units);
    this.#freeUnits = units;
  }

  get sizeBytes(): number {
    return this.#taken.length * UNIT_BYTES;
  }

  get freeBytes(): number {
    return this.#freeUnits * UNIT_BYTES;
  }

  /** A run of at least `bytes`, or undefined where no gap is large enough now. */
  take(bytes: number): Run | undefined {
    const units = Math.ceil(bytes / UNIT_BYTES);
    if (units > this.#freeUnits) return undefined;
    const start = this.#find(units);
    if (start === undefined) return undefined;
    this.#taken.fill(1, start, start + units);
    this.#freeUnits -= units;
    const offset = start * UNIT_BYTES;
    return { offset, units, bytes: Buffer.from(this.memory, offset, units * UNIT_BYTES) };
  }

  /** Gives back what lies behind the first `bytes` of a run. */
  trim(run: Run, bytes: number): void {
    const keep = Math.max(1, Math.ceil(bytes / UNIT_BYTES));
    if (keep < run.units) this.#release(run.offset / UNIT_BYTES + keep, run.units - keep);
    run.units = Math.min(run.units, keep);
  }

  /** Gives back a run; doing it twice does nothing. */
  free(run: Run): void {
    if (run.units === 0) return;
    this.#release(run.offset / UNIT_BYTES, run.units);
    run.units = 0;
  }

  /** Calls back once, when memory has been given back. @returns what takes the request away again. */
  whenFreed(callback: () => void): () => void {
    this.#waiting.add(callback);
    return () => this.#waiting.delete(callback);
  }

  #release(start: number, units: number): void {
    this.#taken.fill(0, start, start + units);
    this.#freeUnits += units;
    // In line; the first that still finds no room goes to the end and the rest wait for the next release.
    for (const callback of [...this.#waiting]) {
      this.#waiting.delete(callback);
      const others = this.#waiting.size;
      callback();
      if (this.#waiting.size > others) break;
    }
  }

  /** The lowest gap: what was given back last is still in the processor's cache. */
  #find(units: number): number | undefined {
    let free = 0;
    for (let unit = 0; unit < this.#taken.length; unit += 1) {
      free = this.#taken[unit] === 0 ? free + 1 : 0;
      if (free === units) return unit - units + 1;
    }
    return undefined;
  }
}
