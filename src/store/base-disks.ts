/**
 * Disks that others may refer to: images that do not change, registered on a host as public within a tenant (a distribution's
 * image, a template). Known by the digests of their pages, which nobody is told as they are; a file that has been touched
 * since is none any more.
 *
 *   <data>/bases/<name>.json    what it is
 *   <data>/bases/<name>.pages   16 bytes a page (BLAKE3): 4 MiB for each GiB
 */
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { HASH_BYTES } from '../encoder/hash';
import { keyedHash } from '../encoder/keyed-hash';
import { baseNameSchema, tenantSchema } from '../model/ids';
import { pagesOfBlocks } from '../model/image';
import { readIfThere, writeDurably } from './durable-file';
import { removeDurably } from './durable-folder';
import { idPath, idsIn } from './id-path';

const baseSchema = z.strictObject({
  name: baseNameSchema,
  tenant: tenantSchema,
  path: z.string().min(1),
  sizeBytes: z.int().min(1),
  modifiedAtMs: z.number(),
  /** Of its content: two files of the same root are the same base. */
  root: z.string(),
});
export type BaseDisk = z.infer<typeof baseSchema>;

/** How the other side is told which base it is: two of the same root are the same. */
export function baseMark(root: string, pageKey: Buffer): string {
  return keyedHash(pageKey, Buffer.from(root)).toString('hex');
}

export class BaseStore {
  readonly #folder: string;

  constructor(dataDir: string) {
    this.#folder = join(dataDir, 'bases');
  }

  /** @param pages the digests of its pages, one behind the other */
  async put(base: BaseDisk, pages: Buffer): Promise<void> {
    await this.forget(base.name);
    await writeDurably(idPath(this.#folder, base.name, '.pages'), pages);
    await writeDurably(idPath(this.#folder, base.name, '.json'), JSON.stringify(base, null, 1));
  }

  async forget(name: string): Promise<void> {
    await removeDurably(idPath(this.#folder, name, '.json'), idPath(this.#folder, name, '.pages'));
  }

  async list(): Promise<BaseDisk[]> {
    const names = (await idsIn(this.#folder, '.json')).sort();
    const found = await Promise.all(
      names.map(async (name) => {
        const text = await readIfThere(idPath(this.#folder, name, '.json'));
        const base = text && baseSchema.safeParse(JSON.parse(text.toString('utf8'))).data;
        return base?.name === name ? base : undefined;
      }),
    );
    return found.flatMap((base) => base ?? []);
  }

  /** Whether the file is the one that was registered, untouched. */
  async isWhole({ path, sizeBytes, modifiedAtMs }: BaseDisk): Promise<boolean> {
    const now = await stat(path).catch(() => undefined);
    return now?.size === sizeBytes && now.mtimeMs === modifiedAtMs;
  }

  /** The digests of its pages; undefined where they are not all there. */
  async pagesOf({ name, sizeBytes }: BaseDisk): Promise<Buffer | undefined> {
    const pages = await readIfThere(idPath(this.#folder, name, '.pages'));
    return pages?.length === pagesOfBlocks(sizeBytes) * HASH_BYTES ? pages : undefined;
  }
}
