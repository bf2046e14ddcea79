/**
 * Memory that a host keeps for what sources bring: hashes and marks of the blocks of open images, device states that are unpacked. Each
 * image of a source's choice is bounded by itself; together they are bounded here, before any of it is taken.
 */
import { DwcpError } from '../../model/errors';
import { blockCount, type ImageSpec } from '../../model/image';
import { formatBytes } from '../../model/units';

/** Of each block: its hash, whether it is promised; of an image that goes on changing the batch that wrote it, too. */
const STILL_BYTES_A_BLOCK = 17;
const LIVE_BYTES_A_BLOCK = 21;

export function bookkeepingBytes({ sizeBytes }: ImageSpec, live: boolean): number {
  return blockCount(sizeBytes) * (live ? LIVE_BYTES_A_BLOCK : STILL_BYTES_A_BLOCK);
}

export class Bookkeeping {
  readonly #limitBytes: number;
  #takenBytes = 0;

  constructor(limitBytes: number) {
    this.#limitBytes = limitBytes;
  }

  get takenBytes(): number {
    return this.#takenBytes;
  }

  /** @returns what gives it back, once; @throws MEMORY_LIMIT while others have it, HOST_TOO_SMALL where it is more than there is */
  take(bytes: number, what: string): () => void {
    if (bytes > this.#limitBytes)
      throw new DwcpError(
        'HOST_TOO_SMALL',
        `${what} needs ${formatBytes(bytes)} of memory for bookkeeping, and this host has ${formatBytes(this.#limitBytes)} for all`,
        { side: 'destination' },
      );
    if (this.#takenBytes + bytes > this.#limitBytes)
      throw new DwcpError(
        'MEMORY_LIMIT',
        `${what} needs ${formatBytes(bytes)} of memory for bookkeeping, ` +
          `and ${formatBytes(this.#limitBytes - this.#takenBytes)} of ${formatBytes(this.#limitBytes)} are free`,
        { side: 'destination' },
      );
    this.#takenBytes += bytes;
    let held = true;
    return () => {
      if (held) this.#takenBytes -= bytes;
      held = false;
    };
  }
}
