/**
 * What a host's configuration says of guests: where its QEMU programs are and as whom they run, in which folders lie files that a
 * guest from elsewhere may read, which of its networks such a guest may use.
 */
import { resolve } from 'node:path';
import { listOf } from '../../model/option-text';
import type { ProcessOptions } from '../../model/options';
import { chooseGuestUser, type GuestUser } from './guest-user';

export interface GuestPolicy {
  /** Empty: programs are looked for in PATH. */
  readonly qemuFolder: string;
  readonly folders: readonly string[];
  readonly networks: readonly string[];
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
  }: Pick<ProcessOptions, 'qemuFolder' | 'guestUser' | 'guestFolders' | 'guestNetworks'>,
  dataDir: string,
): GuestPolicy {
  return {
    ...chooseGuestUser(guestUser, dataDir),
    qemuFolder: qemuFolder === '' ? '' : resolve(qemuFolder),
    folders: [...foldersOf(guestFolders), ...FIRMWARE_FOLDERS],
    dataDir: resolve(dataDir),
    networks: listOf(guestNetworks),
  };
}

/** Folders of an option that takes several. */
export function foldersOf(text: string): string[] {
  return listOf(text).map((folder) => resolve(folder));
}
