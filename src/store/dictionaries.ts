/**
 * Trained dictionaries on this host: those trained here, for VMs that leave, and those received, for VMs that arrive. A version
 * never changes; it is named by its BLAKE3, and taken only where it hashes to its name. What is old goes when nothing
 * needs it: frames name their dictionary, and live no longer than a migration.
 * Pages of a VM lie in a dictionary in the clear, and it goes to hosts where its VMs go: so a tenant's VMs share one, and a VM
 * without a tenant has its own.
 *
 *   <data>/dictionaries/tenants/<tenant>/<vmType>/   those of a tenant's VMs; vms/<uuid>/<vmType>/ that of a VM without one; in each:
 *     current.json         the version in use for VMs that leave
 *     <hash>.dict          versions, the last few
 *     samples/<ms>.pages   what they were trained on, 4 KiB each; new ones replace old ones by age
 *   <data>/dictionaries/received/<hash>.dict         from sources
 */
import { rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { blockHash } from '../encoder/hash';
import type { TrainedDictionary } from '../encoder/trained-dictionary';
import { DwcpError } from '../model/errors';
import { nameSchema, vmTypeSchema } from '../model/ids';
import type { VmLooks } from '../model/image';
import { KIB } from '../model/units';
import { readIfThere, writeDurably } from './durable-file';
import { makeFolderDurably, removeDurably } from './durable-folder';
import { idPath, idsIn } from './id-path';

/** Larger ones are forgotten at the low levels that they serve, without an error. */
export const MAX_DICTIONARY_BYTES = 60 * KIB;
const KEPT_VERSIONS = 4;
const KEPT_RECEIVED = 32;
const RECEIVED = 'received';

const OWNERS = ['tenants', 'vms'] as const;

const versionSchema = z.strictObject({
  vmType: vmTypeSchema,
  of: z.enum(OWNERS),
  name: nameSchema,
  /** Counts from 1. */
  version: z.int().min(1),
  hash: z.string().regex(/^[0-9a-f]{32}$/),
  sizeBytes: z.int().min(1).max(MAX_DICTIONARY_BYTES),
  samples: z.int().min(1),
  /** Share that frames of pages held out of the training became smaller by. */
  gain: z.number(),
  trainedAtMs: z.number(),
});
export type DictionaryVersion = z.infer<typeof versionSchema>;

/** Which VMs a dictionary is for: those of a type, of one tenant, or one VM alone. */
export interface DictionaryKey {
  readonly of: (typeof OWNERS)[number];
  readonly name: string;
  readonly vmType: string;
}

/** Of the library's adapter, whose samples are its caller's own. */
export const DIRECT_DICTIONARY = { of: 'vms', name: 'direct' } as const;

/** The dictionary that a VM goes with; none where it is of no type, or nothing tells it from others. */
export function dictionaryKeyOf({ vmType, tenant, uuid }: VmLookedAt): DictionaryKey | undefined {
  if (vmType === undefined) return undefined;
  if (tenant) return { of: 'tenants', name: tenant, vmType };
  return uuid === undefined ? undefined : { of: 'vms', name: uuid, vmType };
}

type VmLookedAt = { readonly [K in keyof VmLooks]?: VmLooks[K] | undefined };

export interface ActiveDictionary extends TrainedDictionary {
  readonly hash: string;
}

/** A VM type as somebody wrote it. @throws INVALID_INPUT */
export function vmTypeOf(text: string): string {
  const parsed = vmTypeSchema.safeParse(text);
  if (parsed.success) return parsed.data;
  throw new DwcpError('INVALID_INPUT', `VM type "${text}": ${parsed.error.issues[0]?.message ?? ''}`);
}

function dictionaryHash(bytes: Buffer): string {
  return blockHash(bytes).toString('hex');
}

/** Its name in frames: the first four bytes of its hash. */
export function dictionaryOf(bytes: Buffer): ActiveDictionary {
  const hash = dictionaryHash(bytes);
  return { hash, id: Number.parseInt(hash.slice(0, 8), 16), bytes };
}

export class DictionaryStore {
  readonly #folder: string;
  readonly #received: string;

  constructor(dataDir: string) {
    this.#folder = join(dataDir, 'dictionaries');
    this.#received = join(this.#folder, RECEIVED);
  }

  /** What releases before had trained from VMs of all tenants together goes, samples and all. */
  async removeFormer(): Promise<void> {
    const known: readonly string[] = [...OWNERS, RECEIVED];
    for (const name of await idsIn(this.#folder))
      if (!known.includes(name)) await removeDurably(idPath(this.#folder, name));
  }

  samplesFolder(key: DictionaryKey): string {
    return join(this.#folderOf(key), 'samples');
  }

  /** The version in use; undefined where there is none, or it is damaged: then frames go without. */
  async current(
    key: DictionaryKey,
  ): Promise<{ readonly described: DictionaryVersion; readonly dictionary: ActiveDictionary } | undefined> {
    const described = await this.#version(key);
    const dictionary = described && (await read(this.#folderOf(key), described.hash));
    return described && dictionary && { described, dictionary };
  }

  async list(): Promise<DictionaryVersion[]> {
    const versions = await Promise.all((await this.#keys()).map((key) => this.#version(key)));
    return versions.filter((version) => version !== undefined);
  }

  /** Makes a new version the one in use. */
  async put(key: DictionaryKey, bytes: Buffer, samples: number, gain: number): Promise<DictionaryVersion> {
    const { hash } = dictionaryOf(bytes);
    const known = await this.#version(key);
    const version = versionSchema.parse({
      ...key,
      version: (known?.version ?? 0) + 1,
      hash,
      sizeBytes: bytes.length,
      samples,
      gain,
      trainedAtMs: Date.now(),
    });
    const folder = this.#folderOf(key);
    await makeFolderDurably(folder);
    await writeDurably(pathOf(folder, hash), bytes);
    await writeDurably(join(folder, 'current.json'), JSON.stringify(version, null, 1));
    await keepLatest(folder, hash, KEPT_VERSIONS);
    return version;
  }

  async received(hash: string): Promise<ActiveDictionary | undefined> {
    return read(this.#received, hash);
  }

  /** Keeps what a source has sent. @throws PROTOCOL_VIOLATION where it is not what its name says */
  async receive(hash: string, bytes: Buffer): Promise<ActiveDictionary> {
    const dictionary = dictionaryOf(bytes);
    if (dictionary.hash !== hash || bytes.length > MAX_DICTIONARY_BYTES)
      throw new DwcpError(
        'PROTOCOL_VIOLATION',
        `A dictionary of ${bytes.length} bytes does not hash to ${hash.slice(0, 40)}`,
        { side: 'destination' },
      );
    await makeFolderDurably(this.#received);
    await writeDurably(pathOf(this.#received, hash), bytes);
    await keepLatest(this.#received, hash, KEPT_RECEIVED);
    return dictionary;
  }

  /** Dictionaries and samples of a type, whoever's. */
  async forget(vmType: string): Promise<void> {
    vmTypeOf(vmType);
    for (const key of await this.#keys()) if (key.vmType === vmType) await removeDurably(this.#folderOf(key));
  }

  async #keys(): Promise<DictionaryKey[]> {
    const keys: DictionaryKey[] = [];
    for (const of of OWNERS)
      for (const name of await idsIn(join(this.#folder, of)))
        for (const vmType of await idsIn(join(this.#folder, of, name))) keys.push({ of, name, vmType });
    return keys;
  }

  #folderOf({ of, name, vmType }: DictionaryKey): string {
    return idPath(idPath(join(this.#folder, of), name), vmType);
  }

  async #version(key: DictionaryKey): Promise<DictionaryVersion | undefined> {
    const text = await readIfThere(join(this.#folderOf(key), 'current.json'));
    if (!text) return undefined;
    try {
      const version = versionSchema.parse(JSON.parse(text.toString('utf8')));
      const isItsOwn = version.vmType === key.vmType && version.of === key.of && version.name === key.name;
      return isItsOwn ? version : undefined;
    } catch {
      // Without it frames are larger, and never wrong.
      return undefined;
    }
  }
}

function pathOf(folder: string, hash: string): string {
  return idPath(folder, hash, '.dict');
}

async function read(folder: string, hash: string): Promise<ActiveDictionary | undefined> {
  const bytes = await readIfThere(pathOf(folder, hash));
  const dictionary = bytes && dictionaryOf(bytes);
  return dictionary?.hash === hash ? dictionary : undefined;
}

/** The oldest go; migrations under way have theirs in memory. */
async function keepLatest(folder: string, newest: string, count: number): Promise<void> {
  const others = (await idsIn(folder, '.dict')).filter((hash) => hash !== newest);
  const aged = await Promise.all(
    others.map(async (hash) => ({
      hash,
      mtimeMs: (await stat(pathOf(folder, hash)).catch(() => undefined))?.mtimeMs ?? 0,
    })),
  );
  aged.sort((a, b) => b.mtimeMs - a.mtimeMs);
  for (const { hash } of aged.slice(count - 1)) await rm(pathOf(folder, hash), { force: true });
}
