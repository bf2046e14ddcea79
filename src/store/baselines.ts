/**
 * What a host holds of images from before. Each baseline has a record (JSON), a manifest (the hashes) and, where the
 * content is kept too, a content file; they are checked when opened and limited in size, for each VM and all together. The VM
 * least recently used goes first, within a VM the image least recently used. Images of a VM that lives here are no
 * baselines and are never removed.
 *
 *   <data>/baselines/<vmId>/<imageId>.json       the record, written last: without it there is no baseline
 *   <data>/baselines/<vmId>/<imageId>.manifest   16 bytes a block
 *   the record's contentPath                     beside the image's own place, so that renames stay within a file system
 *
 * Where the image is a block device its content stays on it (inPlace): nothing is renamed, and nothing of the device goes with the record.
 */
import { rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { DwcpError } from '../model/errors';
import { imageIdSchema, imageKindSchema, tenantSchema, vmIdSchema, vmUuidSchema } from '../model/ids';
import { isDevicePath } from '../system/block-device';
import { exists, isMissing, readIfThere, renameDurably, writeDurably } from './durable-file';
import { removeDurably } from './durable-folder';
import { idPath, idsIn } from './id-path';
import { Manifest } from './manifest';
import { type ContentCipher, type Seal, sealSchema } from './sealing-key';

const CONTENT_SUFFIX = '.dwcp-baseline';

/** For what comes by direct sessions, of no VM that a host would know. */
const DIRECT = 'direct';

const recordSchema = z.strictObject({
  vmId: vmIdSchema,
  imageId: imageIdSchema,
  kind: imageKindSchema,
  sizeBytes: z.int().min(1),
  /** Whose VM it is of, and which of that name. */
  tenant: tenantSchema.optional(),
  uuid: z.union([vmUuidSchema, z.literal(DIRECT)]).optional(),
  /** Counts completed migrations of the image; the same number on both sides names the same content. */
  generation: z.int().min(0),
  root: z.string(),
  /** False where a migration was given up half-way: each block is as its hash says, but the whole is no known state. */
  complete: z.boolean(),
  /** Removed with the record, so nothing else may be named here. */
  contentPath: z.string().endsWith(CONTENT_SUFFIX).optional(),
  /** The device that has the content, of the VM while it was here. Left as it is when the record goes. */
  inPlace: z.string().max(4096).refine(isDevicePath).optional(),
  seal: sealSchema.optional(),
  lastUsedAtMs: z.number(),
});
export type BaselineRecord = z.infer<typeof recordSchema>;

/** Whose a baseline is: for another tenant's VM, or another VM of the same name, there is none. One that names no VM is nobody's. */
export type BaselineOwner = Pick<BaselineRecord, 'tenant' | 'uuid'>;
export const DIRECT_OWNER: BaselineOwner = { uuid: DIRECT };

export function ownerOf({ tenant, uuid }: BaselineOwner): BaselineOwner {
  return { ...(tenant !== undefined && { tenant }), ...(uuid !== undefined && { uuid }) };
}

export function isOf(record: BaselineOwner, owner: BaselineOwner): boolean {
  return record.uuid !== undefined && record.uuid === owner.uuid && (record.tenant ?? '') === (owner.tenant ?? '');
}

/** Not how it is kept, nor when it was used. */
function isSame(record: BaselineRecord, wanted: Omit<BaselineRecord, 'lastUsedAtMs' | 'seal'>): boolean {
  const names = ['kind', 'sizeBytes', 'tenant', 'uuid', 'generation', 'root', 'complete', 'contentPath'] as const;
  return names.every((name) => record[name] === wanted[name]);
}

export interface Baseline {
  readonly record: BaselineRecord;
  readonly manifest: Manifest;
}

export interface BaselineListing extends BaselineRecord {
  readonly allocatedBytes: number;
}

/** Most that content files may take, all together and those of one VM; 0 is no limit. */
export interface StoreLimits {
  readonly hostBytes: number;
  readonly vmBytes: number;
}

export interface ContentAccess {
  /** Where it is sealed. */
  readonly cipher: ContentCipher | undefined;
}

/** Who keeps contents unreadable to others while nobody uses them. */
export interface ContentGuard {
  readonly seals: boolean;
  /** A baseline has been recorded. */
  kept(vmId: string, imageId: string): void;
  /** A baseline is going to be replaced or removed: nobody works on its content when this resolves. */
  release(vmId: string, imageId: string): Promise<void>;
  /** Its content is going to be used as a file. @returns false where it cannot be read */
  open(vmId: string, imageId: string): Promise<boolean>;
  /** How its content is read where it lies; undefined where that takes a key that is not here. */
  accessTo(record: BaselineRecord): ContentAccess | undefined;
}

const NO_LIMITS: StoreLimits = { hostBytes: 0, vmBytes: 0 };

/** The VM last used longest ago first: what is left of a VM that has lost an image is worth little. */
function byVm(records: readonly BaselineListing[]): BaselineListing[] {
  const lastUse = new Map<string, number>();
  for (const { vmId, lastUsedAtMs } of records) lastUse.set(vmId, Math.max(lastUsedAtMs, lastUse.get(vmId) ?? 0));
  return [...records].sort(
    (a, b) => (lastUse.get(a.vmId) ?? 0) - (lastUse.get(b.vmId) ?? 0) || a.lastUsedAtMs - b.lastUsedAtMs,
  );
}

/** Where an image's working file and baseline content lie: beside its own place. A device has nothing beside it. */
export function workPathOf(imagePath: string): string {
  return `${fileOnly(imagePath)}.dwcp-work`;
}

export function baselinePathOf(imagePath: string): string {
  return `${fileOnly(imagePath)}${CONTENT_SUFFIX}`;
}

function fileOnly(imagePath: string): string {
  if (isDevicePath(imagePath)) throw new DwcpError('INTERNAL', `nothing lies beside the device ${imagePath}`);
  return imagePath;
}

async function allocatedBytes(path: string | undefined): Promise<number> {
  if (!path) return 0;
  try {
    return (await stat(path)).blocks * 512;
  } catch (error) {
    if (isMissing(error)) return 0;
    throw error;
  }
}

export class BaselineStore {
  readonly #folder: string;
  readonly #limits: StoreLimits;
  #guard: ContentGuard | undefined;

  constructor(dataDir: string, limits: StoreLimits = NO_LIMITS) {
    this.#folder = join(dataDir, 'baselines');
    this.#limits = limits;
  }

  /** Whether contents are rewritten once they are kept: a clone then shares nothing. */
  get sealsContents(): boolean {
    return this.#guard?.seals ?? false;
  }

  guardWith(guard: ContentGuard): void {
    this.#guard = guard;
  }

  /** Whether there is a baseline of an image that is this VM's. */
  async isOf(vmId: string, imageId: string, owner: BaselineOwner): Promise<boolean> {
    const record = await this.#read(vmId, imageId);
    return record !== undefined && isOf(record, owner);
  }

  /**
   * Makes the content file of a baseline one that can be used as the image.
   * @returns false where it is sealed with a key that is not here: it stays as it is
   */
  async openContent(vmId: string, imageId: string): Promise<boolean> {
    if (this.#guard) return this.#guard.open(vmId, imageId);
    return (await this.#read(vmId, imageId))?.seal === undefined;
  }

  /** Its content, which was opened to be used, lies where it lay. */
  givenBack(vmId: string, imageId: string): void {
    this.#guard?.kept(vmId, imageId);
  }

  /** How the content of a baseline is read where it lies; undefined where that takes a key that is not here. */
  accessTo(record: BaselineRecord): ContentAccess | undefined {
    if (this.#guard) return this.#guard.accessTo(record);
    return record.seal ? undefined : { cipher: undefined };
  }

  /** Notes how the content of a baseline is kept, where the baseline is still the same. */
  async setSeal(record: BaselineRecord, seal: Seal | undefined): Promise<void> {
    const now = await this.#read(record.vmId, record.imageId);
    if (now?.root !== record.root || now.contentPath !== record.contentPath || now.lastUsedAtMs !== record.lastUsedAtMs)
      return;
    await writeDurably(this.#path(record.vmId, record.imageId, 'json'), JSON.stringify({ ...now, seal }, null, 1));
  }

  /** The baseline of an image, checked; undefined where there is none or its record or manifest does not hold. */
  async open(vmId: string, imageId: string): Promise<Baseline | undefined> {
    const record = await this.#read(vmId, imageId);
    if (!record) return undefined;
    const manifest = await Manifest.load(this.#path(vmId, imageId, 'manifest'), record.sizeBytes, record.root);
    return manifest && { record, manifest };
  }

  /** Records a baseline; its content file, if any, is in place already. Older ones go where the limit asks for it. */
  async put(
    record: Omit<BaselineRecord, 'lastUsedAtMs' | 'root' | 'seal'>,
    manifest: Manifest,
  ): Promise<BaselineRecord> {
    await this.#guard?.release(record.vmId, record.imageId);
    const full = { ...record, root: manifest.root(), lastUsedAtMs: Date.now() };
    await rm(this.#path(record.vmId, record.imageId, 'json'), { force: true });
    await manifest.save(this.#path(record.vmId, record.imageId, 'manifest'));
    await writeDurably(this.#path(record.vmId, record.imageId, 'json'), JSON.stringify(full, null, 1));
    const keep = `${record.vmId}/${record.imageId}`;
    await this.prune(this.#limits.vmBytes, { vmId: record.vmId, keep });
    await this.prune(this.#limits.hostBytes, { keep });
    this.#guard?.kept(record.vmId, record.imageId);
    return full;
  }

  /** Forgets a baseline, and removes its content file. */
  async forget(vmId: string, imageId: string): Promise<void> {
    const record = await this.#forgetRecord(vmId, imageId);
    if (record?.contentPath) await removeDurably(record.contentPath);
  }

  /** @returns what it was; its content file is left to the caller */
  async #forgetRecord(vmId: string, imageId: string): Promise<BaselineRecord | undefined> {
    await this.#guard?.release(vmId, imageId);
    const record = await this.#read(vmId, imageId);
    await removeDurably(this.#path(vmId, imageId, 'json'), this.#path(vmId, imageId, 'manifest'));
    return record;
  }

  async list(): Promise<BaselineListing[]> {
    const records: BaselineListing[] = [];
    for (const vmId of await idsIn(this.#folder)) {
      for (const imageId of await idsIn(join(this.#folder, vmId), '.json')) {
        const record = await this.#read(vmId, imageId);
        if (record) records.push({ ...record, allocatedBytes: await allocatedBytes(record.contentPath) });
      }
    }
    return records.sort((a, b) => a.lastUsedAtMs - b.lastUsedAtMs);
  }

  /** Removes the least recently used until the rest fits. @param vmId of this VM alone @param keep `vm/image` that stays in any case */
  async prune(
    limitBytes: number,
    { vmId, keep }: { readonly vmId?: string; readonly keep?: string } = {},
  ): Promise<BaselineListing[]> {
    if (limitBytes === 0) return [];
    const all = byVm(
      vmId === undefined ? await this.list() : (await this.list()).filter((record) => record.vmId === vmId),
    );
    let total = all.reduce((sum, record) => sum + record.allocatedBytes, 0);
    const removed: BaselineListing[] = [];
    for (const record of all) {
      if (total <= limitBytes) break;
      if (record.allocatedBytes === 0 || `${record.vmId}/${record.imageId}` === keep) continue;
      await this.forget(record.vmId, record.imageId);
      total -= record.allocatedBytes;
      removed.push(record);
    }
    return removed;
  }

  /** Whether `bytes` more of a VM may be kept without passing a limit, everything else left as it is. */
  async hasRoomFor(bytes: number, vmId: string): Promise<boolean> {
    const { hostBytes, vmBytes } = this.#limits;
    const all = await this.list();
    const fits = (records: readonly BaselineListing[], limitBytes: number): boolean =>
      limitBytes === 0 || records.reduce((sum, record) => sum + record.allocatedBytes, bytes) <= limitBytes;
    return (
      fits(all, hostBytes) &&
      fits(
        all.filter((record) => record.vmId === vmId),
        vmBytes,
      )
    );
  }

  /** What a device holds is a baseline from now on, and stays where it is. Idempotent. */
  async keepInPlace(
    device: string,
    record: Omit<BaselineRecord, 'lastUsedAtMs' | 'root' | 'contentPath' | 'inPlace' | 'seal'>,
    manifest: Manifest,
  ): Promise<void> {
    await this.forget(record.vmId, record.imageId);
    await this.put({ ...record, inPlace: device }, manifest);
  }

  /** Turns a file into the content of a baseline: renames it into place, then records it. Idempotent. */
  async adopt(
    from: string,
    imagePath: string,
    record: Omit<BaselineRecord, 'lastUsedAtMs' | 'root' | 'contentPath' | 'seal'>,
    manifest: Manifest,
  ): Promise<void> {
    const contentPath = baselinePathOf(imagePath);
    // An earlier try may have come as far as the rename, or to its end: what lies there then is what was to be kept.
    const isThere = from === contentPath || !(await exists(from));
    if (isThere) {
      const before = await this.#read(record.vmId, record.imageId);
      const isKept = before !== undefined && isSame(before, { ...record, contentPath, root: manifest.root() });
      if (isKept && (await exists(contentPath))) return this.#guard?.kept(record.vmId, record.imageId);
      await this.forget(record.vmId, record.imageId);
    } else {
      await this.#forgetRecord(record.vmId, record.imageId);
      await renameDurably(from, contentPath);
    }
    if (!(await exists(contentPath))) return;
    await this.put({ ...record, contentPath }, manifest);
  }

  #path(vmId: string, imageId: string, suffix: 'json' | 'manifest'): string {
    return idPath(idPath(this.#folder, vmId), imageId, `.${suffix}`);
  }

  async #read(vmId: string, imageId: string): Promise<BaselineRecord | undefined> {
    const text = await readIfThere(this.#path(vmId, imageId, 'json'));
    if (!text) return undefined;
    try {
      const record = recordSchema.parse(JSON.parse(text.toString('utf8')));
      return record.vmId === vmId && record.imageId === imageId ? record : undefined;
    } catch {
      // A damaged record is no baseline: the image is sent anew, which is slower and never wrong.
      return undefined;
    }
  }
}
