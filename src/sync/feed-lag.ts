/**
 * How far the destination's QEMU is behind what has arrived for it: it is fed from the RAM image, and a guest that pauses
 * before that is nearly done waits for it. Asked over and over, without keeping anybody waiting.
 */
import { MIB } from '../model/units';
import type { SendingSession } from '../transport/sending-session';
import { guestLeftSchema, readBody } from './protocol';

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
    session.control.request('guest_left', {})
      .then((answer) => (this.#bytes = readBody(guestLeftSchema, answer).bytes), () => (this.#bytes = Infinity))
      .finally(() => (this.#asking = false));
  }
}
