/**
 * What a host's configuration says of guests: where its QEMU programs are and as whom they run, in which folders lie files that a
 * guest from elsewhere may read, which of its networks and ports such a guest may use.
 */
import { resolve } from 'node:path';
import { FIRST_DISPLAY_PORT } from '../../model/guest-console';
import { listOf } from '../../model/option-text';
import type { ProcessOptions } from '../../model/options';
import { chooseGuestUser, type GuestUser } from './guest-user';
import { parseNetworkMap } from './network-map';
import { type PortRange, parsePortRanges } from './port-ranges';

export interface GuestPolicy {
  /** Empty: programs are looked for in PATH. */
  readonly qemuFolder: string;
  readonly folders: readonly string[];
  /** As guestNetworks names them; what they mean is network-map.ts's. */
  readonly networks: readonly string[];
  /** Of which a guest from elsewhere gets free ones for its consoles; without any they are sockets. */
  readonly consolePorts?: readonly PortRange[];
  /** Which such a guest may have forwarded. */
  readonly guestPorts?: readonly PortRange[];
  /** Keys, journals and other guests' disks lie there: no file of it is read by a guest from elsewhere, whatever folder it lies in. */
  readonly dataDir?: string;
  /** Undefined: as this process. */
  readonly user?: GuestUser | undefined;
  /** Why guests run as root though nobody has said so. */
  readonly asRoot?: string | undefined;
}

/** Firmware that distributions ship: everybody may read it, and nothing of this host stands in it. */
const FIRMWARE_FOLDERS = ['qemu', 'OVMF', 'AAVMF', 'edk2', 'seabios', 'qemu-efi-aarch64'].map(
  (name) => `/usr/share/${name}`,
);

/** @throws CONFIG_INVALID */
export function guestPolicyOf(
  {
    qemuFolder,
    guestUser,
    guestFolders,
    guestNetworks,
    guestPorts,
    consolePorts,
  }: Pick<
    ProcessOptions,
    'qemuFolder' | 'guestUser' | 'guestFolders' | 'guestNetworks' | 'guestPorts' | 'consolePorts'
  >,
  dataDir: string,
): GuestPolicy {
  const networks = listOf(guestNetworks);
  parseNetworkMap(networks);
  return {
    ...chooseGuestUser(guestUser, dataDir),
    qemuFolder: qemuFolder === '' ? '' : resolve(qemuFolder),
    folders: [...foldersOf(guestFolders), ...FIRMWARE_FOLDERS],
    dataDir: resolve(dataDir),
    networks,
    consolePorts: parsePortRanges(consolePorts, { name: 'consolePorts', least: FIRST_DISPLAY_PORT }),
    guestPorts: parsePortRanges(guestPorts, { name: 'guestPorts', least: 1 }),
  };
}

/** Folders of an option that takes several. */
export function foldersOf(text: string): string[] {
  return listOf(text).map((folder) => resolve(folder));
}
