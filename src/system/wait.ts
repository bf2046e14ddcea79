/**
 * Waiting for a while, or until something holds: looked at again and again, where nobody tells.
 */
import { unlessAborted } from '../model/abort';

/** @throws the signal's reason, as soon as it tells */
export async function wait(ms: number, signal?: AbortSignal): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const over = new Promise<void>((resolve) => (timer = setTimeout(resolve, ms)));
  try {
    await (signal ? unlessAborted(over, signal) : over);
  } finally {
    clearTimeout(timer);
  }
}

export interface Looking {
  readonly everyMs: number;
  /** No end where it is left out. */
  readonly withinMs?: number;
  readonly signal?: AbortSignal | undefined;
  /** Throws where it will not hold any more; asked before each further look. */
  readonly orThrow?: () => void;
}

/** @returns whether it holds: false where the time is over @throws as `wait` does, or what `orThrow` does */
export async function until(
  holds: () => boolean | Promise<boolean>,
  { everyMs, withinMs = Infinity, signal, orThrow }: Looking,
): Promise<boolean> {
  const giveUpAt = performance.now() + withinMs;
  while (!(await holds())) {
    if (performance.now() >= giveUpAt) return false;
    await wait(everyMs, signal);
    orThrow?.();
  }
  return true;
}
