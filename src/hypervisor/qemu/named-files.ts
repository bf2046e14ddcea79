/**
 * The files that a guest's command names and that stay where they are when it moves: what is read of them has to be the same at its
 * destination. At the source they are held against what its QEMU has open: a disc that was taken away or exchanged since is found before
 * anything is sent. Firmware is each host's own; what the files hold is compared elsewhere.
 */
import { existsSync } from 'node:fs';
import { cannotBeMovedLive } from '../../model/guest-refusals';
import type { GuestFile } from '../contract';
import { filesOf } from './allowed-options';
import { layersOf } from './disk-format';
import { driveOf, namedFormat, nodeOf, pathOfDrive, pathOfNode } from './guest-disks';
import { parseOptionText, valueIn } from './option-text';
import { type OptionWord, optionWords } from './option-words';
import type { ProcessPaths } from './process-paths';
import { relocate } from './relocate';

const READ_AT_START = new Set(['-kernel', '-initrd', '-dtb']);

/** @param command as it runs here, its disks moved away */
export function filesThatStay(command: readonly string[]): GuestFile[] {
  const options = optionWords(command.slice(1));
  const firmware = firmwareOf(options);
  const atStart = new Set(options.flatMap(({ flag, value }) => (READ_AT_START.has(flag) ? [value] : [])));
  return filesOf(command)
    .read.filter((path) => !firmware.has(path))
    .map((path) => ({ path, use: atStart.has(path) ? 'start' : 'drive' }));
}

/** Of a command at its source: bases of disks that arrive as content are not asked for. */
export function filesLeftBehind(
  command: readonly string[],
  disks: readonly { readonly path: string; readonly raw: boolean }[],
): GuestFile[] {
  const elsewhere = disks.map(({ path, raw }) => ({ from: path, to: path, raw }));
  return filesThatStay(relocate(command, elsewhere, '/'));
}

/** With those that QCOW2 files among them build on, which only these name. @throws GUEST_REFUSED as layersOf() */
export async function withBases(
  files: readonly GuestFile[],
  command: readonly string[],
  folders: readonly string[],
): Promise<GuestFile[]> {
  const all = new Map(files.map((file) => [file.path, file]));
  for (const { path } of files)
    if (namedFormat(command, path) === 'qcow2')
      for (const layer of await layersOf(path, folders))
        if (!all.has(layer.path)) all.set(layer.path, { path: layer.path, use: 'drive' });
  return [...all.values()];
}

/**
 * As its QEMU reads them now.
 * @param force leaves out what is read when it begins anew, where that is gone
 * @throws GUEST_REFUSED where one is gone
 */
export function filesHeld(
  files: readonly GuestFile[],
  paths: ProcessPaths,
  { force }: { readonly force: boolean },
): GuestFile[] {
  return files.flatMap((file): GuestFile[] => {
    const { path, use } = file;
    if (use === 'start') {
      if (existsSync(path)) return [file];
      if (force) return [];
      throw cannotBeMovedLive(
        `it was started with ${path}, which is gone since: put that back, so that it can be compared with the destination’s; ` +
          '--force takes what lies there',
      );
    }
    const held = paths.heldAs(path);
    if (held.now === 'nothing')
      throw cannotBeMovedLive(
        `it reads ${path}, which is gone since it was started: eject it (eject on its monitor), or put it back`,
      );
    if (held.now !== 'another') return [file];
    if (held.heldAt === undefined)
      throw cannotBeMovedLive(
        `it reads what was ${path} when it was started, and another file lies there now: eject it, or put the former one back`,
      );
    return [{ ...file, heldAt: held.heldAt }];
  });
}

function firmwareOf(options: readonly OptionWord[]): ReadonlySet<string> {
  const nodes = options.flatMap((option) => nodeOf(option) ?? []);
  const found = new Set<string>();
  const follow = (name: string | undefined, steps = 0): void => {
    const node = nodes.find((each) => name !== undefined && valueIn(each, 'node-name') === name);
    if (!node || steps > nodes.length) return;
    found.add(pathOfNode(node) ?? '');
    follow(valueIn(node, 'file'), steps + 1);
  };
  for (const option of options) {
    const { flag, value = '' } = option;
    if (flag === '-bios') found.add(value);
    const drive = driveOf(option);
    if (drive && valueIn(drive, 'if') === 'pflash') found.add(pathOfDrive(drive) ?? '');
    const machine = flag === '-machine' || flag === '-M' ? parseOptionText(value, 'type') : undefined;
    for (const bank of ['pflash0', 'pflash1']) if (machine) follow(valueIn(machine, bank));
  }
  return found;
}
