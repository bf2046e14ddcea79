/**
 * Hellos as a peer with a grant says them, made wrong, and how the destination's hub judges each: it is let in or refused, and nothing
 * else. With them the other frames of an opening: welcomes, refusals.
 */
import { PHASE_NAMES } from '../src/model/phases';
import type { DestinationHub } from '../src/sync/destination-hub';
import type { Connection } from '../src/transport/connection';
import { openFrame, readHeader } from '../src/transport/frame';
import { mintGrant } from '../src/transport/grants';
import { helloSchema, RELEASE, ROLES, readMeta, SESSION_PROTOCOL } from '../src/transport/hello';
import type { Draw } from './fuzz-draw';
import { mutateJson } from './fuzz-json';
import { sealed } from './fuzz-sealed';
import { outcomeOf, type Target } from './fuzz-target';

export const AGENT_KEY = Buffer.alloc(32, 7);
const HOUR_MS = 3_600_000;

export function grantFor(subject: string, purpose: 'session' | 'peer' = 'session'): ReturnType<typeof mintGrant> {
  return mintGrant(AGENT_KEY, { purpose, subject, holder: 'a' }, HOUR_MS);
}

export const HELLO = {
  ...{ role: 'control', sessionId: 'm', epoch: 1, stream: 0, sourceHost: 'a', release: RELEASE },
  protocol: SESSION_PROTOCOL,
  grant: { ...grantFor('m'), expiresAtMs: 2 ** 43 },
};
export const WELCOME = { hostId: 'b', release: RELEASE };
export const ERROR_REPORT = {
  code: 'DISK_FULL',
  message: 'no room',
  hint: 'make some',
  side: 'destination',
  phase: PHASE_NAMES[0],
};

/** A hello with a grant that counts, before anything is changed. */
export function helloFor(
  sessionId: string,
  role: (typeof ROLES)[number],
  stream = 0,
  epoch = 1,
): Record<string, unknown> {
  const grant = role === 'idle' ? grantFor('a', 'peer') : grantFor(sessionId);
  return { ...HELLO, sessionId, role, stream, epoch, grant };
}

export function hellosTarget(hub: Pick<DestinationHub, 'admit'>): Target {
  const connection = { peer: { hostId: 'a' } } as Connection;
  const only = new Set(['hello'] as const);
  const mutated = (draw: Draw): Buffer => mutateJson(helloFor('m', draw.pick(ROLES), 0, draw.below(3)), draw);
  return {
    name: 'hellos',
    share: 60,
    play: (draw, _index, told) => {
      const frame = sealed('hello', 0, mutated(draw));
      told(frame);
      return outcomeOf(() => {
        hub.admit(readMeta(helloSchema, openFrame(readHeader(frame, only), frame)), connection);
      });
    },
  };
}
