/**
 * How a host stands on the data plane: its own key and certificate, whom it believes, and that both are looked at again when they
 * change. Says no to an address that others reach where there is nothing to believe by.
 */
import { join } from 'node:path';
import { DwcpError, toDwcpError } from '../model/errors';
import type { ProcessOptions } from '../model/options';
import { isLoopback } from '../system/loopback';
import { CredentialFiles, type TlsOptions } from './credential-files';
import { FileWatch } from './file-watch';
import { PeerTrust } from './peer-trust';
import { TrustFolder, trustFolderOf } from './trust-folder';

type TrustOptions = Pick<ProcessOptions, 'listenAddress' | 'trustDir' | 'insecureDataPlane'>;

/**
 * The trust folder of an agent with these options; made where only this machine reaches it and there is none.
 * @returns undefined with insecureDataPlane @throws CONFIG_INVALID where it may not listen there
 */
export function trustOf(options: TrustOptions): TrustFolder | undefined {
  const path = trustFolderOf(options);
  const alone = isLoopback(options.listenAddress);
  if (options.insecureDataPlane) {
    if (alone) return undefined;
    throw new DwcpError('CONFIG_INVALID', `insecureDataPlane is for loopback, not for ${options.listenAddress}`, {
      hint: 'Leave it out: the data plane is TLS 1.3 without any set-up. Or listen on 127.0.0.1',
    });
  }
  const found = alone ? TrustFolder.make(path) : TrustFolder.find(path);
  if (found) return found;
  throw new DwcpError(
    'CONFIG_INVALID',
    `An agent on ${options.listenAddress} is reached by others and has nothing to know them by: no trust folder ${path}`,
    {
      hint:
        'On the machine of the control plane start `dwcp server` or `dwcp control` first. ' +
        'On another: `dwcp host invite` there, `dwcp agent --join CODE` here',
    },
  );
}

export interface HostSecurity {
  readonly peers: PeerTrust;
  readonly folder: TrustFolder;
  close(): void;
}

interface Standing {
  readonly hostId: string;
  /** Where the key lies that this host makes for itself. */
  readonly ownFolder: string;
  readonly folder: TrustFolder;
  readonly tls: TlsOptions;
}

/** @throws CONFIG_INVALID where its files do not fit, or its name is another's */
export async function openSecurity(
  { hostId, ownFolder, folder, tls }: Standing,
  warn: (error: DwcpError) => void,
): Promise<HostSecurity> {
  const files = await CredentialFiles.open(hostId, ownFolder, tls);
  const peers = await PeerTrust.open(files, folder, ownFolder);
  let pinned: string | undefined;
  const sayWhoWeAre = (): void => {
    const { ownPin } = files;
    // One that was forgotten while it runs is let in again: whoever revokes it means to keep it out, and does not forget it.
    const isForgotten = folder.host(hostId) === undefined && !folder.isRevoked(hostId);
    if (ownPin !== undefined && (ownPin !== pinned || isForgotten)) pinOwn(folder, hostId, ownPin, pinned);
    pinned = ownPin;
  };
  sayWhoWeAre();
  const watched = [...files.paths, join(folder.path, 'hosts'), join(folder.path, 'revoked')];
  const watch = new FileWatch(watched, () => {
    files
      .readAgain()
      .then(sayWhoWeAre)
      .catch((error: unknown) => warn(toDwcpError(error, 'CONFIG_INVALID')))
      .finally(() => peers.changed());
  });
  return { peers, folder, close: () => watch.close() };
}

/**
 * Says in the folder that all agents of this user share which key is this host's.
 * @param before the key that this process has shown until now, and pinned itself
 * @throws CONFIG_INVALID where another has the name
 */
function pinOwn(folder: TrustFolder, hostId: string, pin: string, before: string | undefined): void {
  const known = folder.host(hostId);
  if (known?.keys.includes(pin) === true) return;
  const isOurs = before !== undefined && known?.keys.includes(before) === true;
  if (known && known.keys.length > 0 && !isOurs)
    throw new DwcpError('CONFIG_INVALID', `Another key is known as that of host ${hostId} in ${folder.path}`, {
      hint: `Two agents of one name? If this one has a new data folder or certificate: dwcp host forget ${hostId}, then start it again`,
    });
  folder.admit(hostId, { ...known, keys: [pin] });
}
