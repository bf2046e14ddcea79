/**
 * What is said of an error code: a row of the table in error-codes.ts, and how one is written.
 */

export type RetryClass = 'transient' | 'operator' | 'permanent';

export interface ErrorCodeSpec {
  readonly meaning: string;
  readonly retry: RetryClass;
  /** True where the transport or the encoder failed, not the guest, a disk or a host. */
  readonly fallback: boolean;
  readonly exitCode: number;
  readonly mend: string;
}

/** A row. @param then whether the standard transfer may still succeed */
export function spec(
  retry: RetryClass,
  exitCode: number,
  meaning: string,
  mend: string,
  then?: 'fallback',
): ErrorCodeSpec {
  return { retry, exitCode, meaning, mend, fallback: then === 'fallback' };
}
