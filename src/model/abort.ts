/**
 * Listening to an AbortSignal. A signal tells once: whoever begins to listen after it has told hears nothing and waits for
 * ever, and between a check and the listening lies, as a rule, an await. So one function does both.
 */

import { toDwcpError } from './errors';

/** Calls `aborted` when the signal tells, at once where it has told already. @returns what ends the listening */
export function onAbort(signal: AbortSignal, aborted: () => void): () => void {
  if (signal.aborted) {
    aborted();
    return () => undefined;
  }
  signal.addEventListener('abort', aborted, { once: true });
  return () => signal.removeEventListener('abort', aborted);
}

/** What comes of some work, or why the signal told first: the work goes on by itself then, and is not heard any more. */
export async function unlessAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  work.catch(() => undefined);
  let stopListening = (): void => undefined;
  const aborted = new Promise<never>((_, reject) => {
    stopListening = onAbort(signal, () => reject(toDwcpError(signal.reason, 'CANCELLED')));
  });
  try {
    return await Promise.race([work, aborted]);
  } finally {
    stopListening();
  }
}
