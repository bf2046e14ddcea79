/**
 * Small files that must be whole or absent after a crash: written beside, synced, renamed, and the folder synced too.
 */
import { randomUUID } from 'node:crypto';
import { access, open, readdir, readFile, rename, rm, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { errnoOf } from '../model/errors';
import { makeFolderDurably, syncFolder, syncFolderIfThere } from './durable-folder';

const TEMPORARY = /\.[0-9a-f]{8}-[0-9a-f-]{27}\.tmp$/;

/** Replaces a file as a whole; after a crash either the old or the new content is there. */
export async function writeDurably(path: string, content: string | Buffer): Promise<void> {
  try {
    await replace(path, content);
  } catch (error) {
    // An agent that starts beside this removes what it takes for a crash's leftover: written once more, it stays.
    if (!isMissing(error)) throw error;
    await replace(path, content);
  }
  await syncFolder(dirname(path));
}

/**
 * Sets space aside for a file that has to be written also when the disk is full: put in place by replaceBySpare().
 * Idempotent.
 * @throws DISK_FULL, as ENOSPC
 */
export async function makeSpare(spare: string, sizeBytes: number): Promise<void> {
  const known = await stat(spare).catch(() => undefined);
  if (known && known.size >= sizeBytes) return;
  await writeDurably(spare, Buffer.alloc(sizeBytes));
}

/** As writeDurably(), into space that was set aside. @returns false where there is none */
export async function replaceBySpare(spare: string, path: string, content: Buffer): Promise<boolean> {
  let file;
  try {
    file = await open(spare, 'r+');
  } catch (error) {
    if (isMissing(error)) return false;
    throw error;
  }
  try {
    await file.write(content, 0, content.length, 0);
    await file.truncate(content.length);
    await file.sync();
  } finally {
    await file.close();
  }
  await renameDurably(spare, path);
  return true;
}

async function replace(path: string, content: string | Buffer): Promise<void> {
  await makeFolderDurably(dirname(path));
  const temporary = `${path}.${randomUUID()}.tmp`;
  try {
    const file = await open(temporary, 'w', 0o600);
    try {
      await file.writeFile(content);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
}

/**
 * Takes over a folder as an earlier process has left it: what a crash in the middle of writeDurably() has left below it goes, and
 * what its names say is durable. Before anything is done on the strength of that: it can be read, and may be gone after a crash
 * of the host, since the process may have died in front of its sync. Only while nothing else writes there.
 * @param passedOver folders in it where others may write
 */
export async function takeOverFolder(folder: string, passedOver: readonly string[] = []): Promise<void> {
  const top = (await readdir(folder, { withFileTypes: true })).filter(({ name }) => !passedOver.includes(name));
  const below = await Promise.all(
    top
      .filter((entry) => entry.isDirectory())
      .map(({ name }) => readdir(join(folder, name), { recursive: true, withFileTypes: true })),
  );
  const entries = [...top, ...below.flat()];
  for (const { parentPath, name } of entries.filter((entry) => entry.isFile() && TEMPORARY.test(entry.name)))
    await rm(join(parentPath, name), { force: true });
  await syncFolder(folder);
  for (const { parentPath, name } of entries.filter((entry) => entry.isDirectory()))
    await syncFolderIfThere(join(parentPath, name));
}

/** Renames durably; both names lie in folders that exist. */
export async function renameDurably(from: string, to: string): Promise<void> {
  await rename(from, to);
  await syncFolder(dirname(to));
  if (dirname(from) !== dirname(to)) await syncFolder(dirname(from));
}

/** A file's content, or undefined where there is no such file. */
export async function readIfThere(path: string): Promise<Buffer | undefined> {
  try {
    return await readFile(path);
  } catch (error) {
    if (isMissing(error)) return undefined;
    throw error;
  }
}

export function isMissing(error: unknown): boolean {
  return errnoOf(error) === 'ENOENT';
}

export async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}

/** Names in a folder; none where it is not there. */
export async function namesIn(folder: string): Promise<string[]> {
  try {
    return await readdir(folder);
  } catch (error) {
    if (isMissing(error)) return [];
    throw error;
  }
}
