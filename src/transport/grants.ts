/**
 * Grants: what lets a connection in. A grant is an HMAC of the destination agent's own key over what it is for and
 * until when, so it needs no memory, survives a restart of the agent, and is worth nothing afterwards or elsewhere.
 * It passes through Temporal as a short-lived secret; the key never leaves its host.
 *
 *   grant := base64url( HMAC-SHA256( agentKey, "dwcp-grant 1|" purpose "|" subject "|" expiresAtMs ) )
 */
import { createHmac, timingSafeEqual } from 'node:crypto';
import { DwcpError } from '../model/errors';

/** `session`: one migration, subject is its session id. `peer`: streams established ahead, subject is the source's host id. */
export type GrantPurpose = 'session' | 'peer';

export interface Grant {
  readonly purpose: GrantPurpose;
  readonly subject: string;
  readonly expiresAtMs: number;
  readonly token: string;
}

function sign(key: Buffer, purpose: GrantPurpose, subject: string, expiresAtMs: number): Buffer {
  return createHmac('sha256', key).update(`dwcp-grant 1|${purpose}|${subject}|${expiresAtMs}`).digest();
}

export function mintGrant(key: Buffer, purpose: GrantPurpose, subject: string, lifetimeMs: number): Grant {
  const expiresAtMs = Date.now() + lifetimeMs;
  return { purpose, subject, expiresAtMs, token: sign(key, purpose, subject, expiresAtMs).toString('base64url') };
}

/**
 * @param mayHaveExpired where it only has to be this agent's
 * @throws GRANT_INVALID where the token is not this agent's, is for something else, or has expired
 */
export function checkGrant(key: Buffer, grant: Grant, mayHaveExpired = false): void {
  const expected = sign(key, grant.purpose, grant.subject, grant.expiresAtMs);
  const given = Buffer.from(grant.token, 'base64url');
  if (given.length !== expected.length || !timingSafeEqual(given, expected)) {
    throw new DwcpError('GRANT_INVALID', 'The session’s token is not one of this agent');
  }
  if (!mayHaveExpired && grant.expiresAtMs < Date.now())
    throw new DwcpError('GRANT_INVALID', 'The session’s token has expired');
}
