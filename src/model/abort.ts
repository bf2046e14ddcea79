/**
 * Listening to an AbortSignal. A signal tells once: whoever begins to listen after it has told hears nothing and waits for
 * ever, and between a check and the listening lies, as a rule, an await. So one function does both.
 */

/** Calls `aborted` when the signal tells, at once where it has told already. @returns what ends the listening */
export function onAbort(signal: AbortSignal, aborted: () => void): () => void {
  if (signal.aborted) {
    aborted();
    return () => undefined;
  }
  signal.addEventListener('abort', aborted, { once: true });
  return () => signal.removeEventListener('abort', aborted);
}
