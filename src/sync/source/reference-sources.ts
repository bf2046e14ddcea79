/**
 * What pages may be referred to, and by which addresses: the migration's disks, then files that both hosts have (read-only
 * drives of the guest). The source names them to the destination; a file is used only where a sample of it is equal there.
 * Disks of a running guest become findable while they are read to be sent; those of a stopped VM from their files.
 */
import { randomBytes } from 'node:crypto';
import { HASH_KEY_BYTES } from '../../encoder/keyed-hash';
import type { SharedFile } from '../../model/guest';
import { blockCount, type ImageSpec, PAGES_PER_BLOCK, pagesOfBlocks } from '../../model/image';
import { openImage } from '../../system/image-roots';
import type { SendingSession } from '../../transport/sending-session';
import type { CodecPool } from '../codec/codec-pool';
import { sampleOf } from '../codec/file-sample';
import { inLanes, piecesOf } from '../codec/pieces';
import { MAX_PAGES, type SharedReferences, shareReferences } from '../codec/reference-index';
import { readBody, referencesAnsweredSchema, referencesSchema } from '../protocol';

/** Blocks of a file that one job makes findable. */
const INDEX_BLOCKS = 64;

interface Placed<T> {
  readonly what: T;
  readonly from: number;
}

export class ReferenceSources {
  readonly #disks: readonly Placed<ImageSpec>[];
  readonly #files: readonly Placed<SharedFile>[];
  readonly #pages: number;
  #shared: SharedReferences;
  #filled: Promise<void> | undefined;
  #answered = false;

  constructor(images: readonly ImageSpec[], files: readonly SharedFile[]) {
    let at = 0;
    const place = <T extends { readonly sizeBytes: number }>(what: T): Placed<T> => {
      const from = at;
      at += pagesOfBlocks(what.sizeBytes);
      return { what, from };
    };
    this.#disks = images.filter(({ kind }) => kind === 'disk').map(place);
    this.#files = files.map(place);
    this.#pages = at;
    this.#shared = shareReferences(at);
  }

  /** For jobs that read an image: disks are found by others, all else looks for its pages. Undefined where there is nothing to refer to. */
  of(imageId: string): { readonly shared: SharedReferences; readonly from?: number | undefined } | undefined {
    return this.#pages === 0
      ? undefined
      : { shared: this.#shared, from: this.#disks.find(({ what }) => what.imageId === imageId)?.from };
  }

  /** Makes the files' pages findable; begun early, it is over when the first page is looked for. A file that cannot be read is left out. */
  fill(pool: CodecPool): Promise<void> {
    const shared = this.#shared;
    this.#filled ??= Promise.all(
      this.#files.map(({ what, from }) => indexFile(what, from, shared, pool).catch(() => undefined)),
    ).then(() => undefined);
    return this.#filled;
  }

  /** The same for disks that the destination holds already and that do not change any more. */
  fillDisks(paths: ReadonlyMap<string, string>, pool: CodecPool): Promise<void> {
    const shared = this.#shared;
    const index = async ({ what: { imageId, sizeBytes }, from }: Placed<ImageSpec>): Promise<void> => {
      const path = paths.get(imageId);
      if (path !== undefined) await indexFile({ path, sizeBytes }, from, shared, pool).catch(() => undefined);
    };
    this.#filled ??= Promise.all(this.#disks.map(index)).then(() => undefined);
    return this.#filled;
  }

  /** Names everything to the destination, once a session. */
  async declare(session: SendingSession, imageNumber: (imageId: string) => number): Promise<void> {
    if (this.#pages === 0) return;
    const key = randomBytes(HASH_KEY_BYTES);
    const disks = this.#disks.map(({ what, from }) => ({ image: imageNumber(what.imageId), from }));
    const files = await Promise.all(
      this.#files.map(async ({ what, from }) => ({
        path: what.path,
        sizeBytes: what.sizeBytes,
        from,
        sample: await sampleOfFile(what, key),
      })),
    );
    const { accepted } = readBody(
      referencesAnsweredSchema,
      await session.control.request('references', referencesSchema.parse({ key: key.toString('hex'), disks, files })),
    );
    await this.#filled;
    // Of what is not equal there nothing is referred to: the index begins anew, with the disks alone.
    if (!this.#answered && accepted.includes(false)) this.#shared = shareReferences(this.#files[0]?.from ?? 0);
    this.#answered = true;
  }
}

async function indexFile(
  { path, sizeBytes }: SharedFile,
  from: number,
  shared: SharedReferences,
  pool: CodecPool,
): Promise<void> {
  const handle = await openImage(path);
  try {
    const blocks = Math.min(blockCount(sizeBytes), Math.floor((MAX_PAGES - from) / PAGES_PER_BLOCK));
    const file = { fd: handle.fd, sizeBytes };
    await inLanes(pool.threads, piecesOf(blocks, INDEX_BLOCKS), (piece) =>
      pool.run({ kind: 'index', file, ...piece, shared, from }),
    );
  } finally {
    await handle.close();
  }
}

async function sampleOfFile({ path, sizeBytes }: SharedFile, key: Buffer): Promise<string> {
  const handle = await openImage(path);
  try {
    return await sampleOf(handle, sizeBytes, key);
  } finally {
    await handle.close();
  }
}
