/**
 * node:fs, node:fs/promises and src/store/system-calls as a simulated process sees them: calls that wait do so as an event, so
 * that others come between; calls that do not are done at once. A function that is not here fails with its name.
 */
import { constants } from 'node:fs';
import { type Inode, PAGE } from './disk-model';
import type { Life } from './life';
import { failure, type ProcessFiles, type Virtual } from './sim-fs';

export type Module = Readonly<Record<string, unknown>>;

/** A module of which only this is simulated: whatever else is asked of it says so. */
export function only(name: string, members: Record<string, unknown>): Module {
  return new Proxy(members, {
    get: (target, key) => {
      if (key in target || typeof key === 'symbol' || key === '__esModule' || key === 'default' || key === 'then')
        return target[key as string];
      throw new Error(`sim: ${name} has no ${key}`);
    },
  });
}

class Stats {
  readonly size: number | bigint;
  readonly ino: number | bigint;
  readonly mtimeMs: number | bigint;
  readonly mtimeNs: bigint;
  readonly blocks: number;
  readonly nlink: number;
  readonly dev = 1;
  readonly mode: number;
  readonly #node: Inode;

  constructor(node: Inode, bigint: boolean) {
    const size = node.kind === 'file' ? node.now.size : PAGE;
    this.size = bigint ? BigInt(size) : size;
    this.ino = bigint ? BigInt(node.ino) : node.ino;
    this.mtimeMs = bigint ? BigInt(Math.round(node.mtimeMs)) : node.mtimeMs;
    // Two writes in one moment of the simulated clock are two moments to a kernel.
    this.mtimeNs = BigInt(Math.round(node.mtimeMs)) * 1_000_000n + BigInt(node.version);
    this.blocks = (node.now.pages.size * PAGE) / 512;
    this.nlink = node.links;
    this.mode = 0o600;
    this.#node = node;
  }

  isFile(): boolean {
    return this.#node.kind === 'file';
  }

  isDirectory(): boolean {
    return this.#node.kind === 'folder';
  }

  /** None is simulated. */
  isBlockDevice(): boolean {
    return false;
  }

  isSocket(): boolean {
    return this.#node.kind === 'socket';
  }
}

interface Entry {
  readonly name: string;
  readonly parentPath: string;
  readonly path: string;
  isFile(): boolean;
  isDirectory(): boolean;
}

type Encoding = string | { readonly encoding?: string | null } | null | undefined;

export interface FsModules {
  readonly files: ProcessFiles;
  readonly fs: Module;
  readonly promises: Module;
  readonly systemCalls: Module;
}

export function createFsModules(life: Life, files: ProcessFiles, freeBytes: () => number): FsModules {
  const wait = <T>(label: string, act: () => T): Promise<T> =>
    new Promise((resolve, reject) => {
      life.inFlight.add(act);
      life.post(label, () => {
        life.inFlight.delete(act);
        try {
          resolve(act());
        } catch (error) {
          reject(error);
        }
      });
    });

  const decoded = (bytes: Buffer, encoding: Encoding): Buffer | string => {
    const name = typeof encoding === 'string' ? encoding : encoding?.encoding;
    return name ? bytes.toString(name as BufferEncoding) : bytes;
  };
  const stat = (path: string, bigint = false): Stats => new Stats(files.get(path, 'stat'), bigint);
  const list = (
    path: string,
    {
      recursive = false,
      withFileTypes = false,
    }: { readonly recursive?: boolean; readonly withFileTypes?: boolean } = {},
  ): (string | Entry)[] => {
    if (!recursive && !withFileTypes) return files.names(path);
    const found: (string | Entry)[] = [];
    const visit = (folder: string): void => {
      for (const name of files.names(folder)) {
        const at = `${folder}/${name}`;
        const kind = files.get(at, 'scandir').kind;
        found.push(
          withFileTypes
            ? {
                name,
                parentPath: folder,
                path: folder,
                isFile: () => kind === 'file',
                isDirectory: () => kind === 'folder',
              }
            : at.slice(path.length + 1),
        );
        if (recursive && kind === 'folder') visit(at);
      }
    };
    visit(path);
    return found;
  };
  const writeAll = (fd: number, content: string | Uint8Array, position: number | null = null): number => {
    const bytes = typeof content === 'string' ? Buffer.from(content) : content;
    return files.write(fd, bytes, 0, bytes.length, position);
  };
  const replace = (path: string, content: string | Uint8Array, flags: string): void => {
    const fd = files.open(path, flags);
    try {
      writeAll(fd, content);
    } finally {
      files.close(fd);
    }
  };

  class FileHandle {
    readonly fd: number;
    readonly #path: string;

    constructor(fd: number, path: string) {
      this.fd = fd;
      this.#path = path;
    }

    read(
      into: Uint8Array,
      offset = 0,
      length = into.byteLength - offset,
      position: number | null = null,
    ): Promise<{ bytesRead: number; buffer: Uint8Array }> {
      return wait(`reads ${this.#path}`, () => ({
        bytesRead: files.read(this.fd, into, offset, length, position),
        buffer: into,
      }));
    }

    write(
      content: string | Uint8Array,
      offset = 0,
      length?: number,
      position: number | null = null,
    ): Promise<{ bytesWritten: number; buffer: unknown }> {
      const bytes = typeof content === 'string' ? Buffer.from(content) : content;
      return wait(`writes ${this.#path}`, () => ({
        bytesWritten: files.write(this.fd, bytes, offset, length ?? bytes.length - offset, position),
        buffer: content,
      }));
    }

    writeFile(content: string | Uint8Array): Promise<void> {
      return wait(`writes ${this.#path}`, () => void writeAll(this.fd, content));
    }

    readFile(encoding?: Encoding): Promise<Buffer | string> {
      return wait(`reads ${this.#path}`, () => {
        const { node } = files.file(this.fd, 'read');
        const bytes = Buffer.alloc(node.now.size);
        files.disk.read(node, bytes, 0);
        return decoded(bytes, encoding);
      });
    }

    sync(): Promise<void> {
      return wait(`syncs ${this.#path}`, () => files.sync(this.fd));
    }

    datasync(): Promise<void> {
      return this.sync();
    }

    truncate(size = 0): Promise<void> {
      return wait(`truncates ${this.#path}`, () => files.truncate(this.fd, size));
    }

    stat({ bigint = false }: { readonly bigint?: boolean } = {}): Promise<Stats> {
      return wait(`looks at ${this.#path}`, () => new Stats(files.file(this.fd, 'fstat').node, bigint));
    }

    close(): Promise<void> {
      return wait(`closes ${this.#path}`, () => files.close(this.fd));
    }
  }

  const promises = only('node:fs/promises', {
    constants,
    access: (path: string) =>
      wait(`looks for ${path}`, () => {
        if (!files.exists(path)) throw failure('ENOENT', 'access', path);
      }),
    open: (path: string, flags?: string | number) =>
      wait(`opens ${path}`, () => new FileHandle(files.open(path, flags), path)),
    mkdir: (path: string, { recursive = false }: { readonly recursive?: boolean } = {}) =>
      wait(`makes ${path}`, () => files.makeFolder(path, recursive)),
    readdir: (path: string, options?: Parameters<typeof list>[1]) => wait(`lists ${path}`, () => list(path, options)),
    readFile: (path: string, encoding?: Encoding) =>
      wait(`reads ${path}`, () => decoded(files.readFile(path), encoding)),
    writeFile: (path: string, content: string | Uint8Array) =>
      wait(`writes ${path}`, () => replace(path, content, 'w')),
    rename: (from: string, to: string) => wait(`renames ${from} to ${to}`, () => files.rename(from, to)),
    link: (from: string, to: string) => wait(`links ${from} as ${to}`, () => files.link(from, to)),
    unlink: (path: string) => wait(`unlinks ${path}`, () => files.remove(path)),
    rm: (path: string, options?: { readonly recursive?: boolean; readonly force?: boolean }) =>
      wait(`removes ${path}`, () => files.remove(path, options)),
    stat: (path: string, { bigint = false }: { readonly bigint?: boolean } = {}) =>
      wait(`looks at ${path}`, () => stat(path, bigint)),
    lstat: (path: string) => wait(`looks at ${path}`, () => stat(path)),
    statfs: () =>
      wait('asks for free space', () => ({
        bavail: files.disk.full ? 0 : freeBytes() / PAGE,
        bfree: freeBytes() / PAGE,
        bsize: PAGE,
        blocks: 1e9,
      })),
    truncate: (path: string, size: number) =>
      wait(`truncates ${path}`, () => files.disk.truncate(files.get(path, 'truncate'), size)),
    copyFile: (from: string, to: string) => wait(`copies ${from}`, () => replace(to, files.readFile(from), 'w')),
  });

  const fs = only('node:fs', {
    constants,
    promises,
    existsSync: (path: string) => files.exists(path),
    openSync: (path: string, flags?: string | number) => files.open(path, flags),
    closeSync: (fd: number) => files.close(fd),
    readSync: (
      fd: number,
      into: Uint8Array,
      offset = 0,
      length = into.byteLength - offset,
      position: number | null = null,
    ) => files.read(fd, into, offset, length, position),
    writeSync: (
      fd: number,
      content: string | Uint8Array,
      offset = 0,
      length?: number,
      position: number | null = null,
    ) =>
      typeof content === 'string'
        ? writeAll(fd, content)
        : files.write(fd, content, offset, length ?? content.length - offset, position),
    ftruncateSync: (fd: number, size = 0) => files.truncate(fd, size),
    fsyncSync: (fd: number) => files.sync(fd),
    fdatasyncSync: (fd: number) => files.sync(fd),
    fstatSync: (fd: number, { bigint = false }: { readonly bigint?: boolean } = {}) =>
      new Stats(files.file(fd, 'fstat').node, bigint),
    statSync: (
      path: string,
      { throwIfNoEntry = true, bigint = false }: { readonly throwIfNoEntry?: boolean; readonly bigint?: boolean } = {},
    ) => (!throwIfNoEntry && !files.find(path) ? undefined : stat(path, bigint)),
    readFileSync: (path: string, encoding?: Encoding) => decoded(files.readFile(path), encoding),
    writeFileSync: (path: string, content: string | Uint8Array) => replace(path, content, 'w'),
    readdirSync: (path: string, options?: Parameters<typeof list>[1]) => list(path, options),
    readlinkSync: (path: string) => files.readLink(path),
    mkdirSync: (path: string, { recursive = false }: { readonly recursive?: boolean } = {}) =>
      files.makeFolder(path, recursive),
    rmSync: (path: string, options?: { readonly recursive?: boolean; readonly force?: boolean }) =>
      files.remove(path, options),
    unlinkSync: (path: string) => files.remove(path),
    renameSync: (from: string, to: string) => files.rename(from, to),
    linkSync: (from: string, to: string) => files.link(from, to),
  });

  const systemCalls = only('system-calls', {
    nextData: (fd: number, offset: number) => files.disk.nextData(files.file(fd, 'lseek').node, offset) ?? Infinity,
    nextHole: (fd: number, offset: number) => files.disk.nextHole(files.file(fd, 'lseek').node, offset),
    punchHole: (fd: number, offset: number, length: number) => {
      files.disk.punch(files.file(fd, 'fallocate').node, offset, length);
      return true;
    },
    cloneFile: () => false,
    tryLockFile: (fd: number) => (files.tryLock(fd) ? 'locked' : 'busy'),
    yieldToOtherThreads: () => undefined,
    setSparseSize: (fd: number, sizeBytes: number) => files.truncate(fd, sizeBytes),
  });

  return { files, fs, promises, systemCalls };
}

export type { Virtual };
