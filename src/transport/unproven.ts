/**
 * Connections that have not shown a grant yet, counted from the moment they are accepted. Whoever has nothing but the port can only push
 * out others of its own kind: where there are too many, the oldest of the address with most ends, never the newest. A peer that means it
 * has shown its grant within a few round trips, long before it is the oldest.
 */

const MOST = 512;
const MOST_AN_ADDRESS = 64;

export interface Unproven {
  /** How it is ended; may change hands once it is more than a socket. */
  end: () => void;
}

export class UnprovenConnections {
  /** By remote address, oldest first. */
  readonly #of = new Map<string, Set<Unproven>>();
  #count = 0;

  get size(): number {
    return this.#count;
  }

  add(address: string, end: () => void): Unproven {
    const own = this.#of.get(address) ?? new Set();
    this.#of.set(address, own);
    if (own.size >= MOST_AN_ADDRESS) this.#evictOldest(address, own);
    else if (this.#count >= MOST) this.#evictOldest(...this.#fullest());
    const unproven = { end };
    this.#of.set(address, own.add(unproven));
    this.#count += 1;
    return unproven;
  }

  /** It has shown its grant, or has ended. */
  remove(address: string, unproven: Unproven): void {
    const own = this.#of.get(address);
    if (!own?.delete(unproven)) return;
    this.#count -= 1;
    if (own.size === 0) this.#of.delete(address);
  }

  #evictOldest(address: string, own: ReadonlySet<Unproven>): void {
    for (const oldest of own) {
      this.remove(address, oldest);
      oldest.end();
      return;
    }
  }

  #fullest(): [string, ReadonlySet<Unproven>] {
    let fullest: [string, ReadonlySet<Unproven>] = ['', new Set()];
    for (const [address, own] of this.#of) if (own.size > fullest[1].size) fullest = [address, own];
    return fullest;
  }
}
