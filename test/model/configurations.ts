/**
 * What the search of the hand-over lets happen: small sets that CI goes through in a minute, wider ones for
 * `npm run bench -- model`.
 */
import type { Configuration } from './hand-over-settings';

export const IN_CI = {
  crash: { budget: { agentCrash: 1, hostCrash: 1, zombie: 1, abort: 1 } },
  terminate: { budget: { terminate: 1, agentCrash: 1, zombie: 1 } },
  reset: { budget: { reset: 1, agentCrash: 1, zombie: 1, abort: 1 } },
  resetHost: { budget: { reset: 1, hostCrash: 1, abort: 1 } },
  disk: { budget: { diskFull: 1, cannotStart: 1, agentCrash: 1, cancel: 1, abort: 1 } },
  override: { budget: { acceptTwoCopies: 1, agentCrash: 1, zombie: 1 } },
  back: { second: 'back', budget: { zombie: 1, agentCrash: 1 } },
  backTerminate: { second: 'back', budget: { terminate: 1, agentCrash: 1 } },
  again: { second: 'again', budget: { zombie: 1, terminate: 1 } },
} as const satisfies Readonly<Record<string, Configuration>>;

export const WIDE: Readonly<Record<string, Configuration>> = {
  crashes: { budget: { agentCrash: 2, hostCrash: 2, qemuDeath: 1, zombie: 1, abort: 1, cancel: 1 } },
  terminateWide: { budget: { terminate: 1, agentCrash: 2, hostCrash: 1, qemuDeath: 1, zombie: 2, abort: 1 } },
  resetWide: { budget: { reset: 2, agentCrash: 1, hostCrash: 1, zombie: 1, abort: 1, cancel: 1 } },
  resetTerminate: { budget: { reset: 1, terminate: 1, agentCrash: 1, qemuDeath: 1, zombie: 1 } },
  cannotStart: { budget: { cannotStart: 2, diskFull: 1, agentCrash: 2, terminate: 1, abort: 1 } },
  backWide: { second: 'back', budget: { terminate: 1, agentCrash: 1, zombie: 1, abort: 1 } },
  backReset: { second: 'back', budget: { reset: 1, agentCrash: 1, hostCrash: 1 } },
  againWide: { second: 'again', budget: { terminate: 1, agentCrash: 1, zombie: 1, cancel: 1 } },
};
