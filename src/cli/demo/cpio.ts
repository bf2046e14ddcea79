/**
 * A cpio archive in the "new ASCII" form, as the Linux kernel unpacks it at boot. Folders, files and symbolic links only.
 *
 *   "070701" then 13 fields of 8 hex digits: ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor
 *   namesize check; name and NUL, padded to 4; content, padded to 4; last an entry "TRAILER!!!"
 *
 * Source: Linux, Documentation/driver-api/early-userspace/buffer-format.rst.
 */

export type CpioEntry =
  | { readonly path: string; readonly kind: 'folder' }
  | { readonly path: string; readonly kind: 'file'; readonly content: Buffer; readonly executable: boolean }
  | { readonly path: string; readonly kind: 'link'; readonly target: string };

const MODES = { folder: 0o040755, link: 0o120777, file: 0o100644, program: 0o100755 } as const;

export function cpioOf(entries: readonly CpioEntry[]): Buffer {
  const records = entries.map((entry, index) => record(entry.path, modeOf(entry), contentOf(entry), index + 1));
  return Buffer.concat([...records, record('TRAILER!!!', 0, Buffer.alloc(0), 0)]);
}

function modeOf(entry: CpioEntry): number {
  if (entry.kind !== 'file') return MODES[entry.kind];
  return entry.executable ? MODES.program : MODES.file;
}

function contentOf(entry: CpioEntry): Buffer {
  if (entry.kind === 'file') return entry.content;
  return entry.kind === 'link' ? Buffer.from(entry.target) : Buffer.alloc(0);
}

function record(path: string, mode: number, content: Buffer, inode: number): Buffer {
  const name = Buffer.from(`${path}\0`);
  const fields = [inode, mode, 0, 0, 1, 0, content.length, 0, 0, 0, 0, name.length, 0]
    .map((value) => value.toString(16).padStart(8, '0'))
    .join('');
  return Buffer.concat([padded(Buffer.concat([Buffer.from(`070701${fields}`), name])), padded(content)]);
}

function padded(bytes: Buffer): Buffer {
  return Buffer.concat([bytes, Buffer.alloc((4 - (bytes.length % 4)) % 4)]);
}
