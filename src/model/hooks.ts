/**
 * What a host's operator may have run beside a migration, as data: the moments, what a hook is told, and the two ways of asking. Finding
 * and running hooks is src/agent/hooks.ts's; whoever calls knows this alone.
 */
import type { Side } from './ids';

/** In the order in which a migration comes by them; each is a folder, `<event>.d`. */
export const HOOK_EVENTS = ['prepare', 'before-pause', 'after-start', 'released', 'rolled-back'] as const;
export type HookEvent = (typeof HOOK_EVENTS)[number];
/** Those that may say no. */
export type AskingEvent = 'prepare' | 'before-pause';
/** Those that only hear what has happened. */
export type TellingEvent = Exclude<HookEvent, AskingEvent>;

/** A network card of the guest, and what of this host it is on. */
export interface GuestNetwork {
  readonly mac?: string;
  /** Its user's name for the card. */
  readonly device?: string;
  readonly model?: string;
  /** QEMU's name for the other end, and of which kind that is: tap, bridge, user. */
  readonly netdev?: string;
  readonly kind?: string;
  readonly interface?: string;
  readonly bridge?: string;
}

export interface HookSubject {
  readonly vmId: string;
  readonly migrationId: string;
  readonly side?: Side;
  readonly sourceHost?: string;
  readonly destinationHost?: string;
  readonly fence?: number;
  /** Whether it is moved while it runs. */
  readonly running?: boolean;
  readonly networks?: readonly GuestNetwork[];
}

export interface HookCall extends HookSubject {
  /** In words; what can be counted stands beside it. */
  readonly happened: string;
  readonly details?: Readonly<Record<string, string | number | boolean>>;
}

/** What a call does not say was said by an earlier one of the same migration. */
export interface Hooks {
  /** @throws HOOK_VETO where one says no, hangs, or may not be run; what ends the signal */
  ask(event: AskingEvent, call: HookCall, signal: AbortSignal): Promise<void>;
  /** Returns at once; nothing that a hook does then changes anything. */
  tell(event: TellingEvent, call: HookCall): void;
}
