/**
 * Waiting, with an end to it.
 */

export function after(ms: number): Promise<unknown> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** @throws where it has not come about in time */
export async function within<T>(ms: number, what: string, work: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>(
    (_, reject) => (timer = setTimeout(() => reject(new Error(`${what} did not come about within ${ms} ms`)), ms)),
  );
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** Looks until it holds. @throws where it does not in time */
export async function until(ms: number, what: string, holds: () => boolean | Promise<boolean>): Promise<void> {
  for (const deadline = Date.now() + ms; !(await holds()); await after(20)) {
    if (Date.now() > deadline) throw new Error(`${what}: not so within ${ms} ms`);
  }
}
