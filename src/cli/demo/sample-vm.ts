/**
 * Makes a real VM to move: an ext4 disk image with files of this machine, and a memory image that is this process's own
 * memory. Nothing in it is made up, so what compression and deltas reach on it they reach on data of that kind.
 */
import { createHash, randomBytes } from 'node:crypto';
import {
  closeSync,
  cpSync,
  createReadStream,
  existsSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  rmSync,
  statSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { BLOCK_SIZE_BYTES } from '../../model/image';
import { MIB } from '../../model/units';
import { writeFully } from '../../sync/codec/block-io';
import type { Children } from './children';

/** Where real files are found on any Linux machine, in the order in which they are taken. */
const FILE_SOURCES = ['/usr/bin', '/usr/lib/x86_64-linux-gnu', '/usr/lib', '/usr/share'];
const PAGE_BYTES = 4096;

/** Copies whole real files to `folder` until they take about `bytes`. */
export function stageFiles(folder: string, bytes: number): number {
  let taken = 0;
  const walk = (path: string, target: string): void => {
    for (const entry of readdirSync(path, { withFileTypes: true }).sort((a, b) => (a.name < b.name ? -1 : 1))) {
      if (taken >= bytes) return;
      const from = join(path, entry.name);
      const to = join(target, entry.name);
      if (entry.isDirectory()) walk(from, to);
      else if (entry.isFile()) {
        const { size } = statSync(from);
        if (size === 0 || size > bytes / 8) continue;
        mkdirSync(target, { recursive: true });
        try {
          cpSync(from, to);
          taken += size;
        } catch {
          continue; // A file that this user may not read is no loss.
        }
      }
    }
  };
  for (const source of FILE_SOURCES) if (existsSync(source)) walk(source, join(folder, source));
  return taken;
}

/** An ext4 image of `sizeBytes` with real files on it; without mkfs.ext4, the files one behind the other. */
export async function makeDiskImage(
  path: string,
  sizeBytes: number,
  children: Children,
  mkfs: string | undefined,
): Promise<void> {
  const staging = `${path}.files`;
  try {
    stageFiles(staging, sizeBytes * 0.68);
    const fd = openSync(path, 'w', 0o600);
    ftruncateSync(fd, sizeBytes);
    closeSync(fd);
    if (mkfs !== undefined)
      await children.run('mkfs', mkfs, [
        '-q',
        '-F',
        '-E',
        'lazy_itable_init=0,lazy_journal_init=0',
        '-d',
        staging,
        path,
      ]);
    else concatenate(staging, path, sizeBytes);
  } finally {
    rmSync(staging, { recursive: true, force: true });
  }
}

function concatenate(folder: string, path: string, sizeBytes: number): void {
  const fd = openSync(path, 'r+');
  let at = 0;
  for (const entry of readdirSync(folder, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile() || at >= sizeBytes) continue;
    const bytes = readFileSync(join(entry.parentPath, entry.name));
    at += writeSync(fd, bytes, 0, Math.min(bytes.length, sizeBytes - at), at);
  }
  closeSync(fd);
}

/**
 * Writes this process's memory (its heap, stack and libraries, as the kernel shows them) into an image of `sizeBytes`,
 * each page at a place that stays the same from one dump to the next. Pages never touched stay holes.
 */
export function dumpOwnMemory(path: string, sizeBytes: number): number {
  const image = openSync(path, existsSync(path) ? 'r+' : 'w', 0o600);
  ftruncateSync(image, sizeBytes);
  const memory = openSync('/proc/self/mem', 'r');
  const buffer = Buffer.alloc(MIB);
  let at = 0;
  for (const { start, end } of mappings()) {
    for (let address = start; address < end && at < sizeBytes; address += buffer.length) {
      const length = Math.min(buffer.length, end - address, sizeBytes - at);
      try {
        const got = readSync(memory, buffer, 0, length, address);
        writePages(image, buffer.subarray(0, got - (got % PAGE_BYTES)), at);
      } catch {
        // Not every mapping can be read; its place stays empty.
      }
      at += length;
    }
  }
  closeSync(memory);
  closeSync(image);
  return at;
}

function mappings(): { start: number; end: number }[] {
  return readFileSync('/proc/self/maps', 'utf8')
    .split('\n')
    .flatMap((line) => {
      const match = /^([0-9a-f]+)-([0-9a-f]+) r/.exec(line);
      if (!match || line.includes('[v')) return [];
      const [start, end] = [Number.parseInt(match[1] ?? '', 16), Number.parseInt(match[2] ?? '', 16)];
      // V8 reserves gigabytes and touches little of them: only mappings of a size that is mostly used are taken.
      return end - start <= 24 * MIB ? [{ start, end }] : [];
    });
}

function writePages(image: number, bytes: Buffer, position: number): void {
  const zeros = Buffer.alloc(PAGE_BYTES);
  for (let page = 0; page < bytes.length; page += PAGE_BYTES) {
    const part = bytes.subarray(page, page + PAGE_BYTES);
    if (!part.equals(zeros)) writeFully(image, part, position + page);
  }
}

export async function sha256OfFile(path: string): Promise<string> {
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(path, { highWaterMark: MIB })) hash.update(chunk as Buffer);
  return hash.digest('hex');
}

/** New files' worth of blocks, small edits in place as a running system makes them, and a later dump of memory. */
export function changePart(diskBytes: number, images: Readonly<Record<string, string>>): void {
  const fd = openSync(images.vda ?? '', 'r+');
  const blocks = diskBytes / BLOCK_SIZE_BYTES;
  const old = Buffer.alloc(BLOCK_SIZE_BYTES);
  for (let index = 0; index < blocks; index += 1) {
    const pick = createHash('sha1').update(`${index}`).digest().readUInt8(0);
    if (pick < 3) writeSync(fd, randomBytes(BLOCK_SIZE_BYTES), 0, BLOCK_SIZE_BYTES, index * BLOCK_SIZE_BYTES);
    else if (pick < 13) {
      readSync(fd, old, 0, BLOCK_SIZE_BYTES, index * BLOCK_SIZE_BYTES);
      for (let edit = 0; edit < 24; edit += 1)
        old.writeUInt32LE((old.readUInt32LE(edit * 2600) + 1) >>> 0, edit * 2600);
      writeSync(fd, old, 0, BLOCK_SIZE_BYTES, index * BLOCK_SIZE_BYTES);
    }
  }
  closeSync(fd);
  dumpOwnMemory(images.memory ?? '', statSync(images.memory ?? '').size);
}
