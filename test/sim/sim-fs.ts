/**
 * Paths, descriptors and errors of a host's file system, for one process: what an open file is, what each call does, at once.
 * The shapes in which Node gives these calls (node:fs, node:fs/promises) are fs-modules.ts's; what lasts is disk-model.ts's.
 */
import { constants } from 'node:fs';
import type { DiskModel, Inode } from './disk-model';
import type { Life } from './life';

const ERRNO: Readonly<Record<string, number>> = {
  ENOENT: 2,
  EBADF: 9,
  EACCES: 13,
  EEXIST: 17,
  ENOTDIR: 20,
  EISDIR: 21,
  EINVAL: 22,
  ENOSPC: 28,
  ENOTEMPTY: 39,
};
const WORDS: Readonly<Record<string, string>> = {
  ENOENT: 'no such file or directory',
  EBADF: 'bad file descriptor',
  EEXIST: 'file already exists',
  ENOTDIR: 'not a directory',
  EISDIR: 'illegal operation on a directory',
  EINVAL: 'invalid argument',
  ENOSPC: 'no space left on device',
  ENOTEMPTY: 'directory not empty',
};

export function failure(code: string, call: string, path = ''): Error {
  return Object.assign(new Error(`${code}: ${WORDS[code] ?? code}, ${call}${path === '' ? '' : ` '${path}'`}`), {
    code,
    errno: -(ERRNO[code] ?? 1),
    syscall: call,
    ...(path !== '' && { path }),
  });
}

export interface OpenFile {
  readonly node: Inode;
  readonly path: string;
  readonly append: boolean;
  position: number;
}

const FLAGS: Readonly<Record<string, number>> = {
  r: 0,
  'r+': constants.O_RDWR,
  w: constants.O_WRONLY | constants.O_CREAT | constants.O_TRUNC,
  'w+': constants.O_RDWR | constants.O_CREAT | constants.O_TRUNC,
  wx: constants.O_WRONLY | constants.O_CREAT | constants.O_TRUNC | constants.O_EXCL,
  'wx+': constants.O_RDWR | constants.O_CREAT | constants.O_TRUNC | constants.O_EXCL,
  a: constants.O_WRONLY | constants.O_CREAT | constants.O_APPEND,
  'a+': constants.O_RDWR | constants.O_CREAT | constants.O_APPEND,
};

/** What a virtual file system (/proc) answers. */
export interface Virtual {
  read(path: string): string | undefined;
  list(path: string): string[] | undefined;
  readLink(path: string): string | undefined;
}

export class ProcessFiles {
  readonly disk: DiskModel;
  readonly #virtual: Virtual;
  readonly #open = new Map<number, OpenFile>();
  #nextFd = 20;

  constructor(disk: DiskModel, life: Life, virtual: Virtual) {
    this.disk = disk;
    this.#virtual = virtual;
    life.onEnd(() => {
      for (const fd of [...this.#open.keys()]) this.close(fd);
    });
  }

  file(fd: number, call: string): OpenFile {
    const file = this.#open.get(fd);
    if (!file) throw failure('EBADF', call);
    return file;
  }

  find(path: string): Inode | undefined {
    let node: Inode | undefined = this.disk.root;
    for (const name of path.split('/')) {
      if (name === '') continue;
      if (node?.kind !== 'folder') return undefined;
      node = node.entries.get(name);
    }
    return node;
  }

  get(path: string, call: string): Inode {
    const node = this.find(path);
    if (!node) throw failure('ENOENT', call, path);
    return node;
  }

  folderOf(path: string, call: string): { folder: Inode; name: string } {
    const at = path.lastIndexOf('/');
    const folder = this.get(path.slice(0, at) || '/', call);
    if (folder.kind !== 'folder') throw failure('ENOTDIR', call, path);
    return { folder, name: path.slice(at + 1) };
  }

  exists(path: string): boolean {
    if (path.startsWith('/proc/'))
      return (
        this.#virtual.read(path) !== undefined ||
        this.#virtual.list(path) !== undefined ||
        this.#virtual.readLink(path) !== undefined
      );
    return this.find(path) !== undefined;
  }

  open(path: string, flags: string | number = 'r'): number {
    const bits = typeof flags === 'number' ? flags : FLAGS[flags];
    if (bits === undefined) throw new Error(`sim fs: unknown open flags ${flags}`);
    let node = this.find(path);
    if (node && (bits & constants.O_EXCL) !== 0) throw failure('EEXIST', 'open', path);
    if (!node) {
      if ((bits & constants.O_CREAT) === 0) throw failure('ENOENT', 'open', path);
      node = this.create(path, 'open');
    }
    if (node.kind === 'folder' && (bits & 3) !== 0) throw failure('EISDIR', 'open', path);
    if ((bits & constants.O_TRUNC) !== 0) this.disk.truncate(node, 0);
    const fd = (this.#nextFd += 1);
    this.#open.set(fd, { node, path, append: (bits & constants.O_APPEND) !== 0, position: 0 });
    return fd;
  }

  create(path: string, call: string): Inode {
    const { folder, name } = this.folderOf(path, call);
    if (this.disk.full) throw failure('ENOSPC', call, path);
    const node = this.disk.make('file');
    this.disk.link(folder, name, node);
    return node;
  }

  close(fd: number): void {
    const file = this.file(fd, 'close');
    if (file.node.lockedBy === file) file.node.lockedBy = undefined;
    this.#open.delete(fd);
  }

  read(fd: number, into: Uint8Array, offset: number, length: number, position: number | null): number {
    const file = this.file(fd, 'read');
    const at = position ?? file.position;
    const count = this.disk.read(file.node, bufferOf(into, offset, length), at);
    if (position === null) file.position += count;
    return count;
  }

  write(fd: number, bytes: Uint8Array, offset: number, length: number, position: number | null): number {
    const file = this.file(fd, 'write');
    const at = file.append ? file.node.now.size : (position ?? file.position);
    if (!this.disk.write(file.node, bufferOf(bytes, offset, length), at)) throw failure('ENOSPC', 'write');
    if (position === null) file.position = at + length;
    return length;
  }

  readFile(path: string): Buffer {
    if (path.startsWith('/proc/')) {
      const text = this.#virtual.read(path);
      if (text === undefined) throw failure('ENOENT', 'open', path);
      return Buffer.from(text);
    }
    const node = this.get(path, 'open');
    if (node.kind !== 'file') throw failure('EISDIR', 'read', path);
    const bytes = Buffer.alloc(node.now.size);
    this.disk.read(node, bytes, 0);
    return bytes;
  }

  readLink(path: string): string {
    const target = path.startsWith('/proc/') ? this.#virtual.readLink(path) : undefined;
    if (target === undefined) throw failure('ENOENT', 'readlink', path);
    return target;
  }

  names(path: string): string[] {
    if (path === '/proc' || path.startsWith('/proc/')) {
      const names = this.#virtual.list(path);
      if (!names) throw failure('ENOENT', 'scandir', path);
      return names;
    }
    const node = this.get(path, 'scandir');
    if (node.kind !== 'folder') throw failure('ENOTDIR', 'scandir', path);
    return [...node.entries.keys()].sort();
  }

  makeFolder(path: string, recursive: boolean): void {
    const known = this.find(path);
    if (known) {
      if (recursive && known.kind === 'folder') return;
      throw failure('EEXIST', 'mkdir', path);
    }
    const at = path.lastIndexOf('/');
    if (recursive && at > 0 && !this.find(path.slice(0, at))) this.makeFolder(path.slice(0, at), true);
    const { folder, name } = this.folderOf(path, 'mkdir');
    if (this.disk.full) throw failure('ENOSPC', 'mkdir', path);
    this.disk.link(folder, name, this.disk.make('folder'));
  }

  remove(
    path: string,
    { recursive = false, force = false }: { readonly recursive?: boolean; readonly force?: boolean } = {},
  ): void {
    const node = this.find(path);
    if (!node) {
      if (force) return;
      throw failure('ENOENT', 'rm', path);
    }
    if (node.kind === 'folder') {
      if (!recursive) throw failure('EISDIR', 'rm', path);
      for (const name of [...node.entries.keys()]) this.remove(`${path}/${name}`, { recursive });
    }
    const { folder, name } = this.folderOf(path, 'rm');
    this.disk.unlink(folder, name);
  }

  rename(from: string, to: string): void {
    const source = this.folderOf(from, 'rename');
    const target = this.folderOf(to, 'rename');
    const node = source.folder.entries.get(source.name);
    if (!node) throw failure('ENOENT', 'rename', from);
    const replaced = target.folder.entries.get(target.name);
    if (replaced && replaced.kind === 'folder' && node.kind !== 'folder') throw failure('EISDIR', 'rename', to);
    this.disk.rename(source.folder, source.name, target.folder, target.name);
  }

  link(from: string, to: string): void {
    const node = this.get(from, 'link');
    const { folder, name } = this.folderOf(to, 'link');
    if (folder.entries.has(name)) throw failure('EEXIST', 'link', to);
    this.disk.link(folder, name, node);
  }

  truncate(fd: number, size: number): void {
    this.disk.truncate(this.file(fd, 'ftruncate').node, size);
  }

  sync(fd: number): void {
    this.disk.sync(this.file(fd, 'fsync').node);
  }

  tryLock(fd: number): boolean {
    const file = this.file(fd, 'flock');
    if (file.node.lockedBy !== undefined && file.node.lockedBy !== file) return false;
    file.node.lockedBy = file;
    return true;
  }
}

function bufferOf(bytes: Uint8Array, offset: number, length: number): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset + offset, length);
}
