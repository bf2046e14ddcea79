/**
 * A Debian on an ext4 disk, for guests of benches: made by mmdebstrap from what the machine's own sources have, booted by an initramfs
 * that hands over to a program on it. What runs there is each bench's own.
 */
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import type { Children } from '../src/cli/demo/children';
import { MODULES } from '../src/cli/demo/linux-guest';
import { findTool } from '../src/cli/demo/tools';
import { say } from './report';

/** @param program of the disk, its first process */
export function diskInit(program: string): string {
  return `#!/bin/sh
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev 2>/dev/null
for m in ${MODULES.join(' ')}; do insmod /modules/$m.ko; done
while [ ! -b /dev/vda ]; do sleep 0.1; done
mount -t ext4 /dev/vda /data
exec switch_root /data ${program}
`;
}

/** @returns the first program that this machine has not, and does not get, of those that making one takes and `others` */
export async function missingForDebian(
  children: Children,
  others: readonly (readonly [tool: string, packageName: string])[] = [],
): Promise<string | undefined> {
  for (const [tool, name] of [...others, ['mmdebstrap', 'mmdebstrap'], ['mke2fs', 'e2fsprogs']] as const)
    if ((await findTool(tool, name, children, say)) === undefined) return tool;
  return undefined;
}

export interface DebianDisk {
  readonly path: string;
  readonly sizeMiB: number;
  readonly packages: readonly string[];
}

/** @param folder where it may be put together @param fill puts the bench's own into its root */
export async function makeDebianDisk(
  folder: string,
  { path, sizeMiB, packages }: DebianDisk,
  children: Children,
  fill: (root: string) => Promise<void> | void,
): Promise<void> {
  const root = join(folder, 'root');
  const sources = '/etc/apt/sources.list.d/debian.sources';
  const include = `--include=${packages.join(',')}`;
  await children.run('mmdebstrap', 'mmdebstrap', ['--variant=minbase', include, 'bookworm', root, sources]);
  await fill(root);
  await children.run('empty', 'truncate', ['-s', `${sizeMiB}M`, path]);
  await children.run('mke2fs', 'mke2fs', ['-q', '-F', '-t', 'ext4', '-d', root, path]);
  rmSync(root, { recursive: true });
}
