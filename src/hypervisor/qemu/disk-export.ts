/**
 * The disks of a running guest, seen through its QEMU: their content over NBD, and what the guest writes meanwhile through
 * dirty bitmaps. A round takes the bitmap so far and starts the next in one transaction, so no write falls between.
 *
 *   watch()  bitmap 1 records          nextRound()  { add bitmap n+1, disable bitmap n }, read n's extents, remove n
 */
import { rmSync } from 'node:fs';
import { DwcpError } from '../../model/errors';
import { isDeep } from '../../model/json-depth';
import { NbdClient, type NbdExtent, zeroExtents } from '../nbd-client';
import { parseOptionText, valueIn } from './option-text';
import { OWN_PREFIX } from './others-at-work';
import { isListenedAt } from './process-table';
import type { QmpClient } from './qmp-client';
import type { BlockDevice } from './qmp-schemas';
import { limitWrites } from './write-limit';

/** Readers of one disk at a time: NBD answers each connection in order, more or less. */
const READERS = 2;
const DIRTY = 1;

export interface GuestDisk {
  readonly node: string;
  readonly sizeBytes: number;
}

/** Options deep: more than any that are looked for. */
const MOST_NODES = 8;
const PATHS_BELOW = ['filename', 'file.filename', 'file.file.filename'];

/**
 * The file behind what QEMU calls a disk. Where that takes more words than a path (a size, a driver of its own) it is JSON, with the
 * file at the bottom.
 */
export function fileBehind(name: string): string {
  const text = name.startsWith('json:') ? name.slice('json:'.length) : undefined;
  if (text === undefined || isDeep(text, MOST_NODES)) return name;
  const file = valueIn(parseOptionText(text) ?? { pairs: [] }, ...PATHS_BELOW);
  return file ?? name;
}

/** A writable drive of the guest that can be exported. */
export function guestDiskOf(
  device: BlockDevice,
): (GuestDisk & { readonly path: string; readonly format: string }) | undefined {
  const { inserted } = device;
  if (!inserted || inserted.ro || inserted['node-name'] === undefined) return undefined;
  return {
    node: inserted['node-name'],
    sizeBytes: inserted.image['virtual-size'],
    path: fileBehind(inserted.image.filename),
    format: inserted.drv,
  };
}

export class DiskExports {
  readonly #qmp: QmpClient;
  readonly #nbdPath: string;
  readonly #disks = new Map<string, DiskReader>();
  #serving = false;

  constructor(qmp: QmpClient, nbdPath: string) {
    this.#qmp = qmp;
    this.#nbdPath = nbdPath;
  }

  /** Begins to watch a disk and to serve its content. What an earlier attempt has left is taken away first. */
  async watch(imageId: string, disk: GuestDisk): Promise<DiskReader> {
    const known = this.#disks.get(imageId);
    if (known) return known;
    if (!this.#serving) {
      await clearExports(this.#qmp, this.#nbdPath);
      rmSync(this.#nbdPath, { force: true });
      await this.#qmp.execute('nbd-server-start', { addr: { type: 'unix', data: { path: this.#nbdPath } } });
      this.#serving = true;
    }
    const reader = await DiskReader.open(this.#qmp, this.#nbdPath, imageId, disk);
    this.#disks.set(imageId, reader);
    return reader;
  }

  /** Ends exports and bitmaps; a QEMU that is gone needs none of it. */
  async close(): Promise<void> {
    for (const reader of this.#disks.values()) reader.close();
    this.#disks.clear();
    if (!this.#qmp.ended) await clearExports(this.#qmp, this.#nbdPath).catch(() => undefined);
    rmSync(this.#nbdPath, { force: true });
  }
}

/**
 * Takes away every export and bitmap of ours, and the NBD server where that is ours: it is at our place, or has our exports. What others
 * have there is theirs to end.
 */
export async function clearExports(qmp: QmpClient, nbdPath?: string): Promise<void> {
  const all = await qmp.execute('query-block-exports');
  const own = all.filter(({ id }) => id.startsWith(OWN_PREFIX));
  const isOurs = own.length > 0 || (nbdPath !== undefined && isListenedAt(nbdPath));
  if (isOurs && own.length === all.length) await qmp.execute('nbd-server-stop').catch(() => undefined);
  else for (const { id } of own) await qmp.execute('block-export-del', { id, mode: 'hard' }).catch(() => undefined);
  // Of all nodes: a snapshot has put a layer over the disk that had them.
  for (const node of await qmp.execute('query-named-block-nodes', { flat: true })) {
    for (const { name } of node['dirty-bitmaps'] ?? []) {
      if (name?.startsWith(OWN_PREFIX))
        await qmp.execute('block-dirty-bitmap-remove', { node: node['node-name'], name }).catch(() => undefined);
    }
  }
}

export class DiskReader {
  readonly sizeBytes: number;
  readonly #qmp: QmpClient;
  readonly #nbdPath: string;
  readonly #disk: GuestDisk;
  readonly #exportName: string;
  readonly #readers: NbdClient[];
  #round = 1;
  #turn = 0;

  static async open(qmp: QmpClient, nbdPath: string, imageId: string, disk: GuestDisk): Promise<DiskReader> {
    await qmp.execute('transaction', {
      actions: [
        { type: 'block-dirty-bitmap-add', data: { node: disk.node, name: `${OWN_PREFIX}1`, granularity: 65_536 } },
      ],
    });
    await qmp.execute('block-export-add', {
      type: 'nbd',
      id: `${OWN_PREFIX}${imageId}`,
      'node-name': disk.node,
      name: imageId,
      writable: false,
    });
    const connecting = Array.from({ length: READERS }, () => NbdClient.connect(nbdPath, imageId));
    try {
      return new DiskReader(qmp, nbdPath, imageId, disk, await Promise.all(connecting));
    } catch (error) {
      for (const reader of connecting) reader.then((open) => open.close()).catch(() => undefined);
      throw error;
    }
  }

  private constructor(qmp: QmpClient, nbdPath: string, exportName: string, disk: GuestDisk, readers: NbdClient[]) {
    this.#qmp = qmp;
    this.#nbdPath = nbdPath;
    this.#disk = disk;
    this.#exportName = exportName;
    this.#readers = readers;
    this.sizeBytes = disk.sizeBytes;
  }

  read(offset: number, into: Buffer): Promise<void> {
    const reader = this.#readers[(this.#turn = (this.#turn + 1) % this.#readers.length)];
    if (!reader) throw new DwcpError('INTERNAL', 'a disk without readers');
    return reader.read(offset, into);
  }

  /** Stretches that read as zeros. */
  holes(): Promise<NbdExtent[]> {
    return zeroExtents(this.#nbdPath, this.#exportName);
  }

  /** What the guest has written since the round before. @throws GUEST_REFUSED where it writes to another layer meanwhile */
  async nextRound(): Promise<NbdExtent[]> {
    await this.#assertWrittenTo();
    const [last, next] = [`${OWN_PREFIX}${this.#round}`, `${OWN_PREFIX}${this.#round + 1}`];
    const { node } = this.#disk;
    await this.#qmp.execute('transaction', {
      actions: [
        { type: 'block-dirty-bitmap-add', data: { node, name: next, granularity: 65_536 } },
        { type: 'block-dirty-bitmap-disable', data: { node, name: last } },
      ],
    });
    this.#round += 1;
    const id = `${OWN_PREFIX}${this.#exportName}-${this.#round}`;
    const name = `${this.#exportName}-${this.#round}`;
    await this.#qmp.execute('block-export-add', {
      type: 'nbd',
      id,
      'node-name': node,
      name,
      writable: false,
      bitmaps: [last],
    });
    try {
      const client = await NbdClient.connect(this.#nbdPath, name, `qemu:dirty-bitmap:${last}`);
      try {
        return (await client.extents()).filter(({ flags }) => (flags & DIRTY) !== 0);
      } finally {
        client.close();
      }
    } finally {
      await this.#remove(id, node, last);
    }
  }

  async dirtyBytes(): Promise<number> {
    const { node } = this.#disk;
    const nodes = await this.#qmp.execute('query-named-block-nodes', { flat: true });
    const bitmaps = nodes.find((known) => known['node-name'] === node)?.['dirty-bitmaps'] ?? [];
    return bitmaps.find(({ name }) => name === `${OWN_PREFIX}${this.#round}`)?.count ?? 0;
  }

  limitWrites(bytesPerSecond: number): Promise<boolean> {
    return limitWrites(this.#qmp, this.#disk.node, bytesPerSecond);
  }

  close(): void {
    for (const reader of this.#readers) reader.close();
  }

  /** A snapshot puts a layer over the disk: what the guest writes from then on is in none of our bitmaps. */
  async #assertWrittenTo(): Promise<void> {
    const devices = await this.#qmp.execute('query-block');
    if (devices.some(({ inserted }) => inserted?.['node-name'] === this.#disk.node)) return;
    throw new DwcpError(
      'GUEST_REFUSED',
      `Disk ${this.#exportName} got another layer, or was taken away, while it was on its way (a snapshot, a backup, a change of media)`,
      { side: 'source', hint: 'Nothing is lost: the guest goes on where it is. Migrate it again when that has ended' },
    );
  }

  /** The export ends a moment after it was told to, and holds its bitmap until then. */
  async #remove(id: string, node: string, bitmap: string): Promise<void> {
    const ended = this.#qmp.event(
      'the end of an export',
      ({ name, data }) => name === 'BLOCK_EXPORT_DELETED' && data.id === id,
      10_000,
    );
    await Promise.all([ended, this.#qmp.execute('block-export-del', { id, mode: 'hard' })]);
    await this.#qmp.execute('block-dirty-bitmap-remove', { node, name: bitmap });
  }
}
