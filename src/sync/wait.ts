/**
 * Waiting for a while, or until a signal tells: the time between two looks at something.
 */
import { toDwcpError } from '../model/errors';

/** @throws the signal's reason, as soon as it tells */
export function wait(ms: number, signal?: AbortSignal): Promise<void> {
  if (signal?.aborted) return Promise.reject(toDwcpError(signal.reason, 'CANCELLED'));
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => {
      signal?.removeEventListener('abort', abort);
      resolve();
    }, ms);
    const abort = (): void => {
      clearTimeout(timer);
      reject(toDwcpError(signal?.reason, 'CANCELLED'));
    };
    signal?.addEventListener('abort', abort, { once: true });
  });
}
