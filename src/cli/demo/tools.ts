/**
 * Programs of the distribution: found on PATH or in the sbin folders, installed where this runs as root on Debian,
 * else named with the line that installs them.
 */
import { accessSync, constants, existsSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { messageOf } from '../../model/errors';
import type { Children } from './children';

const ALSO = ['/usr/sbin', '/sbin', '/usr/local/sbin'];

export function whichTool(name: string): string | undefined {
  for (const folder of [...(process.env.PATH ?? '').split(delimiter), ...ALSO]) {
    const path = join(folder, name);
    try {
      accessSync(path, constants.X_OK);
      return path;
    } catch {
      continue;
    }
  }
  return undefined;
}

/** @returns its path, or undefined where it cannot be had; the line to install it has been said then */
export async function findTool(
  name: string,
  debianPackage: string,
  children: Children,
  say: (line: string) => void,
): Promise<string | undefined> {
  const found = whichTool(name);
  if (found !== undefined) return found;
  if (process.getuid?.() !== 0 || !existsSync('/usr/bin/apt-get')) {
    say(`${name} is missing; install it with: sudo apt-get install -y ${debianPackage}. Going on without it.`);
    return undefined;
  }
  say(`${name} is missing; installing ${debianPackage}`);
  await children
    .run('apt', 'apt-get', ['install', '-y', '--no-install-recommends', debianPackage])
    .catch(async () => {
      await children.run('apt', 'apt-get', ['update']);
      await children.run('apt', 'apt-get', ['install', '-y', '--no-install-recommends', debianPackage]);
    })
    .catch((error: unknown) => say(`${debianPackage} could not be installed: ${messageOf(error)}`));
  return whichTool(name);
}
