/**
 * Waiting for a while, or until a signal tells: the time between two looks at something.
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
