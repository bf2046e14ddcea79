/** The content of a guest's disks: kept as it was before a move, and held against what has arrived, bit by bit. */
import { execFileSync } from 'node:child_process';
import { mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { VmRecord } from '../../src/store/vm-registry';

export interface KeptDisk {
  readonly path: string;
  readonly copy: string;
}

/** @param paths of the files that the guest writes to now @param seen a path there as this process sees it */
export function keepDisks(paths: readonly string[], seen: (path: string) => string, folder: string): KeptDisk[] {
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder);
  return paths.map((path, index) => {
    const copy = join(folder, String(index));
    const from = seen(path);
    execFileSync('qemu-img', ['convert', '-U', '-f', formatOf(from), '-O', 'raw', from, copy]);
    return { path, copy };
  });
}

/** @returns what is wrong, of the first disk that is not the same */
export function otherDisk(
  kept: readonly KeptDisk[],
  before: VmRecord,
  after: VmRecord,
  seen: (path: string) => string,
): string | undefined {
  for (const [index, { path, copy }] of kept.entries()) {
    const { imageId } = before.images.find((image) => image.path === path) ?? before.images[index] ?? { imageId: '' };
    const arrived = after.images.find((image) => image.imageId === imageId);
    if (!arrived) return `its disk ${path} has not arrived`;
    const there = seen(arrived.path);
    try {
      const args = ['compare', '-U', '-f', 'raw', '-F', formatOf(there), copy, there];
      execFileSync('qemu-img', args, { encoding: 'utf8', stdio: 'pipe' });
    } catch (error) {
      const { stdout, stderr } = error as { readonly stdout?: string; readonly stderr?: string };
      return `disk ${imageId} has arrived as another: ${`${stdout ?? ''} ${stderr ?? ''}`.trim()}`;
    }
  }
  return undefined;
}

function formatOf(path: string): string {
  const text = execFileSync('qemu-img', ['info', '-U', '--output=json', path], { encoding: 'utf8' });
  const { format } = JSON.parse(text) as { readonly format: string };
  return format === 'qcow2' ? 'qcow2' : 'raw';
}
