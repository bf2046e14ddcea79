/**
 * Grants: what lets a session of one host in. A grant is an HMAC of the destination agent's own key over what it is for, whose it is and
 * until when, so it needs no memory, survives a restart of the agent, and is worth nothing afterwards, elsewhere, or to another host: who
 * holds it has proven itself before (peer-security.ts). It passes through Temporal; the key never leaves its host.
 *
 *   grant := base64url( HMAC-SHA256( agentKey, "dwcp-grant 2|" purpose "|" subject "|" holder "|" expiresAtMs ) )
 */
import { createHmac, timingSafeEqual } from 'node:crypto';
import { DwcpError } from '../model/errors';

/** `session`: one migration, subject is its session id. `peer`: streams established ahead, subject is the source's host id. */
export type GrantPurpose = 'session' | 'peer';

export interface GrantOf {
  readonly purpose: GrantPurpose;
  readonly subject: string;
  /** The host that may show it. */
  readonly holder: string;
}

export interface Grant extends GrantOf {
  readonly expiresAtMs: number;
  readonly token: string;
}

function sign(key: Buffer, { purpose, subject, holder }: GrantOf, expiresAtMs: number): Buffer {
  return createHmac('sha256', key).update(`dwcp-grant 2|${purpose}|${subject}|${holder}|${expiresAtMs}`).digest();
}

export function mintGrant(key: Buffer, of: GrantOf, lifetimeMs: number): Grant {
  const expiresAtMs = Date.now() + lifetimeMs;
  return { ...of, expiresAtMs, token: sign(key, of, expiresAtMs).toString('base64url') };
}

/**
 * @param mayHaveExpired where it only has to be this agent's
 * @throws GRANT_INVALID where the token is not this agent's, is for something else, or has expired
 */
export function checkGrant(key: Buffer, grant: Grant, mayHaveExpired = false): void {
  const expected = sign(key, grant, grant.expiresAtMs);
  const given = Buffer.from(grant.token, 'base64url');
  if (given.length !== expected.length || !timingSafeEqual(given, expected)) {
    throw new DwcpError('GRANT_INVALID', 'The session’s token is not one of this agent');
  }
  if (!mayHaveExpired && grant.expiresAtMs < Date.now())
    throw new DwcpError('GRANT_INVALID', 'The session’s token has expired');
}
