/**
 * Names that must be there, or gone, after a crash of the host. What a file holds is synced with the file; that it is there
 * under its name is written in its folder, and that the folder is, in the one above it.
 */
import { mkdir, open, rm } from 'node:fs/promises';
import { dirname, resolve, sep } from 'node:path';
import { errnoOf } from '../model/errors';

export async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, 'r');
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}

/** As syncFolder(), where there is such a folder. */
export async function syncFolderIfThere(path: string): Promise<void> {
  await syncFolder(path).catch((error: unknown) => {
    if (errnoOf(error) !== 'ENOENT') throw error;
  });
}

/** Folders whose names are known to be there after a crash, as this process has seen to it. */
const durable = new Set<string>();
const MOST_KNOWN = 10_000;

/** Makes a folder and what is missing above it, for this user alone: VMs' content lies below. All of it is there after a crash. */
export async function makeFolderDurably(path: string): Promise<void> {
  const folder = resolve(path);
  const first = await mkdir(folder, { recursive: true, mode: 0o700 });
  // That a folder is there says nothing: another may have made it a moment ago, or an agent that was killed before its sync.
  if (first === undefined && durable.has(folder)) return;
  for (let name = folder; name !== dirname(name); name = dirname(name)) {
    const mayBeOurs = first !== undefined && name.length >= resolve(first).length;
    if (!mayBeOurs && durable.has(name)) break;
    await syncFolder(dirname(name)).catch((error: unknown) => {
      // A folder that this agent may not even list, and has made nothing in.
      if (mayBeOurs || !['EACCES', 'EPERM'].includes(errnoOf(error) ?? '')) throw error;
    });
  }
  if (durable.size >= MOST_KNOWN) durable.clear();
  for (let name = folder; name !== dirname(name); name = dirname(name)) durable.add(name);
}

/** Removes files or folders, those that are there; none of them comes back after a crash. */
export async function removeDurably(...paths: readonly string[]): Promise<void> {
  for (const path of paths.map((each) => resolve(each))) {
    for (const folder of durable) if (folder === path || folder.startsWith(path + sep)) durable.delete(folder);
    await rm(path, { recursive: true, force: true });
  }
  // Also where nothing was there any more: an agent that died right behind its rm had not come to this.
  for (const folder of new Set(paths.map(dirname))) {
    await syncFolderIfThere(folder);
  }
}
