/**
 * Whether a guest that does not run would start here: its QEMU is started once, on disks of no content in folders of their own, with
 * the guest never let go (-S), and ended. What QEMU says then is said before anything is sent. An agent that dies in between leaves
 * the process and the folders: they go when the next one begins, and before the same VM is tried again.
 */
import { closeSync, existsSync, ftruncateSync, mkdirSync, openSync, rmSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { throwCannotRun } from '../../model/guest-refusals';
import { type ImageSpec, SECTOR_BYTES, type VmImage } from '../../model/image';
import type { Allowance } from './allowance';
import { emptyQcow2 } from './empty-qcow2';
import type { GuestPolicy } from './guest-policy';
import { endIncoming, startGuestProcess } from './guest-process';
import { guestsNaming } from './process-table';
import { runPlaces } from './run-places';

const NO_HEAD = Buffer.alloc(0);

export interface ScratchDisk extends VmImage, ImageSpec {
  readonly sizeBytes: number;
  /** What arrives is the disk's content; else it is a file of the guest's own format. */
  readonly raw: boolean;
}

/** The disks of a VM as they are in a rehearsal: as large, at places below `folder`. */
export function scratchDisks(
  images: readonly (VmImage & ImageSpec)[],
  folder: string,
  isRaw: (imageId: string) => boolean,
): ScratchDisk[] {
  return images
    .filter(({ kind }) => kind === 'disk')
    .map(({ imageId, kind, sizeBytes }) => ({
      imageId,
      kind,
      sizeBytes,
      path: join(runPlaces(folder).agentFolder, `${imageId}.img`),
      raw: isRaw(imageId),
    }));
}

/** @throws GUEST_REFUSED with what QEMU says; QEMU_UNREACHABLE where it was killed, or is not ready in time */
export async function rehearse(
  command: readonly string[],
  disks: readonly ScratchDisk[],
  folder: string,
  rules: { readonly allowance: Allowance; readonly policy: GuestPolicy },
): Promise<void> {
  await clearRehearsal(folder);
  try {
    mkdirSync(runPlaces(folder).agentFolder, { recursive: true, mode: 0o700 });
    for (const disk of disks) make(disk);
    const { qmp } = await startGuestProcess(command, folder, { ...rules, purpose: 'try' });
    qmp.close();
  } catch (error) {
    throwCannotRun(error);
  } finally {
    await clearRehearsal(folder);
  }
}

/** Ends what an earlier agent was trying. @param folder of all rehearsals of this host */
export async function clearRehearsals(folder: string): Promise<void> {
  if (!existsSync(folder)) return;
  await endAll(folder);
  rmSync(folder, { recursive: true, force: true });
}

async function clearRehearsal(folder: string): Promise<void> {
  const { agentFolder } = runPlaces(folder);
  await endAll(folder);
  for (const path of [folder, agentFolder]) rmSync(path, { recursive: true, force: true });
}

/** Whether it listens already or not: its command names its folder. It has never let a guest run. */
async function endAll(folder: string): Promise<void> {
  for (const process of guestsNaming([join(folder, '/')])) await endIncoming(process);
}

/** A file that goes over as it is gets that file's size: a guest that is never let go does not see the difference. */
function make({ path, raw, sizeBytes }: ScratchDisk): void {
  const diskBytes = Math.ceil(sizeBytes / SECTOR_BYTES) * SECTOR_BYTES;
  const { head, fileBytes } = raw ? { head: NO_HEAD, fileBytes: diskBytes } : emptyQcow2(diskBytes);
  const fd = openSync(path, 'w', 0o600);
  try {
    writeSync(fd, head, 0, head.length, 0);
    ftruncateSync(fd, fileBytes);
  } finally {
    closeSync(fd);
  }
}
