/**
 * Signals of the long-running commands. A terminal's Ctrl-C reaches a whole group and may be passed on by npm too, so
 * the same wish may arrive several times.
 */

/** Calls `stop` on the first signal and ignores the rest: whatever follows is bounded in time by itself. */
export function onSignalOnce(stop: () => void): void {
  let asked = false;
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(signal, () => {
      if (!asked) stop();
      asked = true;
    });
  }
}
