/**
 * Names that must be there, or gone, after a crash of the host. What a file holds is synced with the file; that it is there
 * under its name is written in its folder, and that the folder is, in the one above it.
 */
import { mkdir, open, rm } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { errnoOf } from '../model/errors';

export async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, 'r');
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}

/** Makes a folder and what is missing above it; all of that is there after a crash. */
export async function makeFolderDurably(path: string): Promise<void> {
  const folder = resolve(path);
  const first = await mkdir(folder, { recursive: true });
  if (first === undefined) return;
  for (let made = folder; ; made = dirname(made)) {
    await syncFolder(dirname(made));
    if (made === resolve(first) || made === dirname(made)) return;
  }
}

/** Removes files or folders, those that are there; none of them comes back after a crash. */
export async function removeDurably(...paths: readonly string[]): Promise<void> {
  for (const path of paths) await rm(path, { recursive: true, force: true });
  // Also where nothing was there any more: an agent that died right behind its rm had not come to this.
  for (const folder of new Set(paths.map(dirname))) {
    await syncFolder(folder).catch((error: unknown) => {
      if (errnoOf(error) !== 'ENOENT') throw error;
    });
  }
}
