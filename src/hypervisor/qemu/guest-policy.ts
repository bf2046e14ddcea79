/**
 * What a host's configuration says of guests: where its QEMU programs are, in which folders lie files that a guest from
 * elsewhere may read, which of its networks such a guest may use.
 */
import { resolve } from 'node:path';
import type { ProcessOptions } from '../../model/options';

export interface GuestPolicy {
  /** Empty: programs are looked for in PATH. */
  readonly qemuFolder: string;
  readonly folders: readonly string[];
  readonly networks: readonly string[];
}

/** Firmware that distributions ship: everybody may read it, and nothing of this host stands in it. */
const FIRMWARE_FOLDERS = ['qemu', 'OVMF', 'AAVMF', 'edk2', 'seabios', 'qemu-efi-aarch64'].map(
  (name) => `/usr/share/${name}`,
);

export function guestPolicyOf(
  { qemuFolder, guestFolders, guestNetworks }: Pick<ProcessOptions, 'qemuFolder' | 'guestFolders' | 'guestNetworks'>,
  dataDir: string,
): GuestPolicy {
  return {
    qemuFolder: qemuFolder === '' ? '' : resolve(qemuFolder),
    folders: [dataDir, ...listOf(guestFolders)].map((folder) => resolve(folder)).concat(FIRMWARE_FOLDERS),
    networks: listOf(guestNetworks),
  };
}

function listOf(text: string): string[] {
  return text
    .split(',')
    .map((part) => part.trim())
    .filter((part) => part !== '');
}
