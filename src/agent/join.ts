/**
 * An agent's first start on a machine of its own: what `dwcp host invite` has printed lets it know the control plane, and be known. The
 * same again with another code, for a host that has a new key or was forgotten.
 */
import { mkdirSync } from 'node:fs';
import { dirname } from 'node:path';
import type { ProcessOptions } from '../model/options';
import { CredentialFiles } from '../trust/credential-files';
import { join } from '../trust/invitation';
import { TrustFolder, trustFolderOf } from '../trust/trust-folder';
import { resolveDataDir, resolveHostId } from './host';

/**
 * @returns false where there is a trust folder that was not joined by another code: the code of a start may stay in a unit's file
 * @throws INVALID_INPUT, NOT_AUTHORISED, PEER_UNTRUSTED, PEER_UNREACHABLE
 */
export async function joinControlPlane(code: string, options: ProcessOptions): Promise<boolean> {
  const path = trustFolderOf(options);
  const found = TrustFolder.find(path);
  if (found?.joinsAgainBy(code) === false) return false;
  const [hostId, dataDir] = [resolveHostId(options), resolveDataDir(options)];
  mkdirSync(dataDir, { recursive: true, mode: 0o700 });
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
  const files = await CredentialFiles.open(hostId, dataDir, options);
  const controlKeys = await join(code, hostId, files.ownPin);
  if (found) found.joinAgain(controlKeys, code, hostId, files.ownPin);
  else TrustFolder.joined(path, controlKeys, code);
  return true;
}
