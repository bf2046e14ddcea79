/**
 * In what form a disk of a guest lies in its file, as the guest's command says it: what was named, or what QEMU would find by
 * itself where nothing was. A guest can write any first bytes to a raw disk, so these count only where QEMU goes by them too.
 *
 *   0 u32 "QFI\xfb"   4 u32 version   24 u64 size of the disk   32 u32 encryption   60 u32 internal snapshots   (big-endian)
 *
 * Source: QEMU, docs/interop/qcow2.rst.
 */
import { open } from 'node:fs/promises';

const QCOW2_MAGIC = 0x514649fb;
const HEADER_BYTES = 64;

/** The format that a command names for the file at `path`; undefined where QEMU is left to find out. */
export function namedFormat(command: readonly string[], path: string): string | undefined {
  const nodes = command.filter((_, index) => command[index - 1] === '-blockdev').map(blockdevOf);
  const node = nodes.find((each) => filenameOf(each) === path);
  if (node)
    return node.filename === undefined
      ? node.driver
      : (nodes.find(({ file }) => file !== undefined && file === node['node-name'])?.driver ?? 'raw');
  const drive = command.find(
    (word, index) =>
      command[index - 1] === '-drive' &&
      word.split(',').some((part) => part === `file=${path}` || part === `file.filename=${path}`),
  );
  return /(?:^|,)(?:format|driver)=([^,]+)/.exec(drive ?? '')?.[1];
}

/**
 * Size of the disk whose content a QCOW2 file holds. Undefined where a file is to be taken as it is: another format, one that
 * is encrypted, or one with internal snapshots, which only the file itself has.
 * @throws what opening the file says
 */
export async function qcow2SizeBytes(command: readonly string[], path: string): Promise<number | undefined> {
  const named = namedFormat(command, path);
  if (named !== undefined && named !== 'qcow2') return undefined;
  const handle = await open(path, 'r');
  try {
    const header = Buffer.alloc(HEADER_BYTES);
    await handle.read(header, 0, HEADER_BYTES, 0);
    if (header.readUInt32BE(0) !== QCOW2_MAGIC || header.readUInt32BE(32) !== 0 || header.readUInt32BE(60) !== 0)
      return undefined;
    return Number(header.readBigUInt64BE(24));
  } finally {
    await handle.close();
  }
}

export function filenameOf(node: Partial<Record<string, string>>): string | undefined {
  return node['file.filename'] ?? node.filename;
}

/** The text values of a -blockdev, with dotted names, whichever way it is written. */
export function blockdevOf(word: string): Partial<Record<string, string>> {
  if (!word.startsWith('{'))
    return Object.fromEntries(
      word.split(',').map((part) => [part.split('=', 1)[0] ?? '', part.slice(part.indexOf('=') + 1)]),
    );
  const flat: Record<string, string> = {};
  const visit = (value: unknown, name: string): void => {
    if (typeof value === 'string') flat[name] = value;
    else if (typeof value === 'object' && value !== null)
      for (const [key, inner] of Object.entries(value)) visit(inner, name === '' ? key : `${name}.${key}`);
  };
  try {
    visit(JSON.parse(word), '');
  } catch {
    // QEMU itself will say what is wrong with it.
  }
  return flat;
}
