/**
 * What moves a running guest, whichever way, and what the hypervisor's driver does for it. The ways: live-migration.ts
 * (DWCP), standard-guest-move.ts (the standard transfer: QEMU's own migration).
 */
import type { GuestProgress, GuestResult } from '../../model/guest';
import type { ImageProgress, ImageResult } from '../../model/migration';
import type { GuestPauses } from './guest-pauses';

/** What is known when the guest stands still and everything of it has arrived. */
export interface ReadyToHandOver {
  readonly roots: Record<string, string>;
  readonly pausedAtMs: number;
  readonly guest: Omit<GuestResult, 'downtimeMs' | 'responds'>;
  readonly images: readonly ImageResult[];
}

export interface GuestMove {
  readonly pauses: GuestPauses;
  /** Why the rounds ended, with figures. */
  readonly reason: string;
  /** @param before what the attempts before this one have come to */
  progress(before: readonly ImageProgress[]): {
    readonly guest: GuestProgress;
    readonly images: readonly ImageProgress[];
  };
  /** Sends until the rule says that the guest may be paused. It runs all the while. @throws GUEST_NOT_CONVERGING, GUEST_LOST */
  rounds(signal: AbortSignal): Promise<void>;
  /**
   * Pauses the guest and brings everything of it to the destination, whose QEMU has loaded it when this returns. From then on
   * nothing leads back without the destination's promise. Any failure before lets the guest run on here.
   * @param before as progress()
   * @throws GUEST_RUNS_ON, GUEST_LOST
   */
  pauseGuest(signal: AbortSignal, before?: readonly ImageProgress[]): Promise<ReadyToHandOver>;
  /** Whether the guest cannot go on by itself any more. */
  standsStill(): Promise<boolean>;
  /** Ends it: the guest runs on here, unless it was handed over. Idempotent. @throws what kept it from running on */
  breakOff(): Promise<void>;
  /** After the destination runs it: lets go of the guest here, which stands still. */
  close(): void;
}

/** Each image, and the guest's own state with the last: its memory, where that is one. */
export function reportOf(move: GuestMove, before: readonly ImageProgress[]): readonly ImageProgress[] {
  const { images, guest } = move.progress(before);
  return images.map((image, index) => (index === images.length - 1 ? { ...image, guest } : image));
}
