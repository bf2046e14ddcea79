/**
 * Trained dictionaries on this host: those trained here, for VMs that leave, and those received, for VMs that arrive. A version
 * never changes; it is named by its BLAKE3, and taken only where it hashes to its name. What is old goes when nothing
 * needs it: frames name their dictionary, and live no longer than a migration.
 *
 *   <data>/dictionaries/<vmType>/current.json        the version in use for VMs of this type that leave
 *   <data>/dictionaries/<vmType>/<hash>.dict         versions, the last few
 *   <data>/dictionaries/<vmType>/samples/<ms>.pages  what they were trained on, 4 KiB each; new ones replace old ones by age
 *   <data>/dictionaries/received/<hash>.dict         from sources
 */
import { rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { blockHash } from '../encoder/hash';
import type { TrainedDictionary } from '../encoder/trained-dictionary';
import { DwcpError } from '../model/errors';
import { vmTypeSchema } from '../model/ids';
import { KIB } from '../model/units';
import { namesIn, readIfThere, writeDurably } from './durable-file';
import { makeFolderDurably, removeDurably } from './durable-folder';

/** Larger ones are forgotten at the low levels that they serve, without an error. */
export const MAX_DICTIONARY_BYTES = 60 * KIB;
const KEPT_VERSIONS = 4;
const KEPT_RECEIVED = 32;
const RECEIVED = 'received';

const versionSchema = z.strictObject({
  vmType: vmTypeSchema,
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

  constructor(dataDir: string) {
    this.#folder = join(dataDir, 'dictionaries');
  }

  /** Folder of the samples of a type. */
  samplesFolder(vmType: string): string {
    return join(this.#folder, vmType, 'samples');
  }

  /** The version in use for a type; undefined where there is none, or it is damaged: then frames go without. */
  async current(
    vmType: string,
  ): Promise<{ readonly described: DictionaryVersion; readonly dictionary: ActiveDictionary } | undefined> {
    const described = await this.#version(vmType);
    const dictionary = described && (await this.#read(vmType, described.hash));
    return described && dictionary && { described, dictionary };
  }

  async list(): Promise<DictionaryVersion[]> {
    const types = (await namesIn(this.#folder)).filter((name) => name !== RECEIVED);
    const versions = await Promise.all(types.map((vmType) => this.#version(vmType)));
    return versions.filter((version) => version !== undefined);
  }

  /** Makes a new version the one in use. */
  async put(vmType: string, bytes: Buffer, samples: number, gain: number): Promise<DictionaryVersion> {
    const { hash } = dictionaryOf(bytes);
    const known = await this.#version(vmType);
    const version = versionSchema.parse({
      vmType,
      version: (known?.version ?? 0) + 1,
      hash,
      sizeBytes: bytes.length,
      samples,
      gain,
      trainedAtMs: Date.now(),
    });
    await makeFolderDurably(join(this.#folder, vmType));
    await writeDurably(this.#path(vmType, hash), bytes);
    await writeDurably(join(this.#folder, vmType, 'current.json'), JSON.stringify(version, null, 1));
    await this.#keepLatest(vmType, hash, KEPT_VERSIONS);
    return version;
  }

  async received(hash: string): Promise<ActiveDictionary | undefined> {
    return this.#read(RECEIVED, hash);
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
    await makeFolderDurably(join(this.#folder, RECEIVED));
    await writeDurably(this.#path(RECEIVED, hash), bytes);
    await this.#keepLatest(RECEIVED, hash, KEPT_RECEIVED);
    return dictionary;
  }

  async forget(vmType: string): Promise<void> {
    await removeDurably(join(this.#folder, vmType));
  }

  #path(folder: string, hash: string): string {
    return join(this.#folder, folder, `${hash}.dict`);
  }

  async #read(folder: string, hash: string): Promise<ActiveDictionary | undefined> {
    const bytes = await readIfThere(this.#path(folder, hash));
    const dictionary = bytes && dictionaryOf(bytes);
    return dictionary?.hash === hash ? dictionary : undefined;
  }

  async #version(vmType: string): Promise<DictionaryVersion | undefined> {
    const text = await readIfThere(join(this.#folder, vmType, 'current.json'));
    if (!text) return undefined;
    try {
      return versionSchema.parse(JSON.parse(text.toString('utf8')));
    } catch {
      // Without it frames are larger, and never wrong.
      return undefined;
    }
  }

  /** The oldest go; migrations under way have theirs in memory. */
  async #keepLatest(folder: string, newest: string, count: number): Promise<void> {
    const others = (await namesIn(join(this.#folder, folder))).filter(
      (name) => name.endsWith('.dict') && name !== `${newest}.dict`,
    );
    const aged = await Promise.all(
      others.map(async (name) => ({
        name,
        mtimeMs: (await stat(join(this.#folder, folder, name)).catch(() => undefined))?.mtimeMs ?? 0,
      })),
    );
    aged.sort((a, b) => b.mtimeMs - a.mtimeMs);
    for (const { name } of aged.slice(count - 1)) await rm(join(this.#folder, folder, name), { force: true });
  }
}
