/**
 * What a QCOW2 file says of itself: size, and the files that it builds on. It is looked at only where the guest's command names the
 * format: into a raw disk a guest can write such a header too, and whoever went by it would open what it names.
 *
 *   0 u32 "QFI\xfb"   4 u32 version   8 u64, 16 u32 where the base's name is   24 u64 size of the disk   32 u32 encryption
 *   60 u32 internal snapshots   72 u64 features, of which bit 2 is a data file besides   100 u32 header's length   (big-endian)
 *   extensions behind the header: u32 type, u32 length, bytes up to a multiple of 8; type 0xe2792aca is the base's format
 *
 * Source: QEMU, docs/interop/qcow2.rst.
 */
import { realpathSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { DwcpError } from '../../model/errors';
import { openImage } from '../../system/image-roots';
import { quoted } from './allowance';
import { filesOf } from './allowed-options';
import { bottomDriver, namedFormat } from './guest-disks';

const QCOW2_MAGIC = 0x514649fb;
const HEADER_BYTES = 64 * 1024;
const FIXED_BYTES = 72;
const DATA_FILE = 4n;
const BASE_FORMAT = 0xe2792aca;
const MAX_LAYERS = 64;

interface Qcow2Header {
  readonly sizeBytes: number;
  /** Whether its content can be read by itself: not encrypted, and no internal snapshots that would stay behind. */
  readonly plain: boolean;
  readonly base?: { readonly name: string; readonly format: string | undefined };
  readonly dataFile: boolean;
}

/** A file and how it is to be read; the layer that it builds on stands behind it. */
export interface DiskLayer {
  readonly path: string;
  readonly format: 'raw' | 'qcow2';
}

/**
 * Size of the disk whose content a QCOW2 file holds. Undefined where a file is to be taken as it is: a raw one, one that is
 * encrypted, or one with internal snapshots, which only the file itself has.
 * @throws GUEST_REFUSED where the command names no format; what opening the file says
 */
export async function qcow2SizeBytes(command: readonly string[], path: string): Promise<number | undefined> {
  const format = namedFormat(command, path);
  if (format === undefined)
    throw refused(
      `its disk ${quoted(path)} has no format in the guest’s command; define it anew with format=raw or format=qcow2`,
    );
  if (format !== 'qcow2') return undefined;
  const header = await readHeader(path);
  return header?.plain ? header.sizeBytes : undefined;
}

/**
 * A QCOW2 disk with the files that it builds on, each with the format that the one above names: all in its own folder, or in one
 * that this host's configuration names.
 * @throws GUEST_REFUSED where a header leads elsewhere, or leaves a format to be guessed
 */
export async function layersOf(path: string, folders: readonly string[]): Promise<DiskLayer[]> {
  const layers: DiskLayer[] = [{ path, format: 'qcow2' }];
  const allowed = [dirname(path), dirname(realOf(path)), ...folders].map(realOf);
  for (let at = path; ; ) {
    const header = await readHeader(at);
    if (header?.dataFile)
      throw refused(
        `${quoted(at)} keeps its content in another file, which its header names; convert it with qemu-img`,
      );
    if (!header?.base) return layers;
    const { name, format } = header.base;
    if (format !== 'raw' && format !== 'qcow2')
      throw refused(
        `${quoted(at)} does not say in what format its base ${quoted(name)} is; qemu-img rebase -u -F names it`,
      );
    const base = /^[^/]*:/.test(name) ? undefined : realOf(resolve(dirname(at), name));
    if (base === undefined || !allowed.some((folder) => base.startsWith(join(folder, '/'))))
      throw refused(
        `${quoted(at)} builds on ${quoted(name)}, neither in the disk’s own folder nor in this host’s guestFolders; ` +
          'put it there, or name its folder',
      );
    if (layers.length >= MAX_LAYERS) throw refused(`${quoted(path)} builds on more than ${MAX_LAYERS} files`);
    layers.push({ path: base, format });
    if (format === 'raw') return layers;
    at = base;
  }
}

/** Before a QEMU opens them: no file that a command names leads to one that it may not. @throws GUEST_REFUSED */
export async function assertLayers(command: readonly string[], folders: readonly string[]): Promise<void> {
  const { written, read } = filesOf(command);
  for (const path of [...written, ...read]) if (namedFormat(command, path) === 'qcow2') await layersOf(path, folders);
}

/** The layers as one of QEMU's block devices, with nothing left for a header to say. */
export function nodeOfLayers([layer, ...below]: readonly DiskLayer[]): Record<string, unknown> {
  if (!layer) throw new DwcpError('INTERNAL', 'a disk without a file');
  const backing = below.length === 0 ? null : nodeOfLayers(below);
  return {
    driver: layer.format,
    'read-only': true,
    file: { driver: bottomDriver(layer.path), filename: layer.path },
    ...(layer.format === 'qcow2' && { backing }),
  };
}

async function readHeader(path: string): Promise<Qcow2Header | undefined> {
  const handle = await openImage(path);
  try {
    const bytes = Buffer.alloc(HEADER_BYTES);
    const { bytesRead } = await handle.read(bytes, 0, HEADER_BYTES, 0);
    if (bytesRead < FIXED_BYTES || bytes.readUInt32BE(0) !== QCOW2_MAGIC) return undefined;
    const version = bytes.readUInt32BE(4);
    const [at, length] = [Number(bytes.readBigUInt64BE(8)), bytes.readUInt32BE(16)];
    const name = at === 0 ? undefined : Buffer.alloc(Math.min(length, 1023));
    if (name) await handle.read(name, 0, name.length, at);
    return {
      sizeBytes: Number(bytes.readBigUInt64BE(24)),
      plain: bytes.readUInt32BE(32) === 0 && bytes.readUInt32BE(60) === 0,
      dataFile: version >= 3 && (bytes.readBigUInt64BE(72) & DATA_FILE) !== 0n,
      ...(name && { base: { name: name.toString('utf8'), format: baseFormat(bytes, version) } }),
    };
  } finally {
    await handle.close();
  }
}

function baseFormat(bytes: Buffer, version: number): string | undefined {
  for (let at = version >= 3 ? bytes.readUInt32BE(100) : FIXED_BYTES; at + 8 <= bytes.length; ) {
    const [type, length] = [bytes.readUInt32BE(at), bytes.readUInt32BE(at + 4)];
    if (type === 0) return undefined;
    if (type === BASE_FORMAT) return bytes.toString('utf8', at + 8, Math.min(at + 8 + length, bytes.length));
    at += 8 + Math.ceil(length / 8) * 8;
  }
  return undefined;
}

function realOf(path: string): string {
  try {
    return realpathSync(path);
  } catch {
    return resolve(path);
  }
}

function refused(reason: string): DwcpError {
  return new DwcpError('GUEST_REFUSED', `The guest is refused: ${reason}`);
}
