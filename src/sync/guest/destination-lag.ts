/**
 * How far the destination's QEMU is behind what has arrived for it: it is fed from the RAM image, and a guest that pauses
 * before that is nearly done waits for it. Asked over and over, without keeping anybody waiting.
 */
import { MIB } from '../../model/units';
import type { SendingSession } from '../../transport/sending-session';
import { guestLeftSchema, readBody } from '../protocol';

/** Fed in some milliseconds. */
const CLOSE_BEHIND_BYTES = 8 * MIB;

export class FeedLag {
  #bytes = Infinity;
  #asking = false;

  /** Whether it was close behind when it was last asked. */
  get isSmall(): boolean {
    return this.#bytes <= CLOSE_BEHIND_BYTES;
  }

  ask(session: SendingSession | undefined): void {
    if (this.#asking || !session) return;
    this.#asking = true;
    void this.#ask(session).finally(() => (this.#asking = false));
  }

  /** Never throws: whoever asks does not wait for it, and an answer that cannot be read says no more than none. */
  async #ask(session: SendingSession): Promise<void> {
    try {
      this.#bytes = readBody(guestLeftSchema, await session.control.request('guest_left', {})).bytes;
    } catch {
      this.#bytes = Infinity;
    }
  }
}
