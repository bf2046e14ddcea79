/**
 * The source's half of references to bases, disks of the destination that are public within the VM's tenant: a sample of the
 * images' pages finds out which are alike, the hashes of those bases' pages are fetched once (or made from this host's copy
 * of the same base), and pages with these hashes need not cross. All hashes are made with the destination's key. Anything that
 * goes wrong costs the references alone.
 */
import { HASH_BYTES, PAGE_HASH_BYTES } from '../../encoder/hash';
import { keyedPageHashes, pageDigest } from '../../encoder/keyed-hash';
import { DwcpError, toDwcpError } from '../../model/errors';
import { pagesOfBlocks } from '../../model/image';
import { baseMark } from '../../store/base-disks';
import type { SendingSession } from '../../transport/sending-session';
import { filledPages } from '../codec/file-sample';
import { piecesOf } from '../codec/pieces';
import { type BasePages, MAX_PAGES, ReferenceIndex, shareReferences } from '../codec/reference-index';
import { basePagesSchema, basesOfferedSchema, MAX_BASE_PAGES, readBody } from '../protocol';
import type { SourceMigration } from './source-migration';

const SAMPLE_PAGES = 256;
/** Places looked at for them: most of an image may be zeros. */
const LOOKED_AT = 1024;

interface Offered {
  readonly name: string;
  readonly mark: string;
  readonly sizeBytes: number;
  readonly from: number;
}

/** What of the bases there the pages of these images may refer to. Asked at the beginning of each session; fetched once a migration. */
export async function learnBases(
  migration: SourceMigration,
  session: SendingSession,
  paths: readonly string[],
  pageKey: Buffer,
): Promise<BasePages | undefined> {
  const { explain } = migration.context;
  try {
    const sample = keyedPageHashes(pageKey, await sampleOfImages(paths));
    if (sample.length === 0) return undefined;
    const { bases } = readBody(basesOfferedSchema, await session.control.request('bases', {}, sample));
    const [first] = bases;
    if (!first) return undefined;
    const key = bases.map(({ mark, from }) => `${mark} ${from}`).join();
    if (migration.bases?.key === key) return migration.bases.pages;
    const count = bases.reduce((sum, { sizeBytes }) => sum + pagesOfBlocks(sizeBytes), 0);
    if (count > MAX_PAGES)
      throw new DwcpError('PROTOCOL_VIOLATION', `${count} pages of bases are offered, more than ${MAX_PAGES}`, {
        side: 'source',
      });
    const pages = { shared: shareReferences(count), from: first.from, key: Uint8Array.from(pageKey) };
    for (const base of bases) await addBase(migration, session, base, pages);
    migration.bases = { key, pages };
    explain?.(migration.migrationId, `pages may refer to bases there: ${bases.map(({ name }) => name).join(', ')}`);
    return pages;
  } catch (error) {
    const reason = toDwcpError(error, 'INTERNAL');
    if (session.ended) throw reason;
    explain?.(migration.migrationId, `no references to bases: ${reason.code}: ${reason.message}`);
    return undefined;
  }
}

async function addBase(
  { context }: SourceMigration,
  session: SendingSession,
  base: Offered,
  { shared, from, key }: BasePages,
): Promise<void> {
  const index = new ReferenceIndex(shared);
  const add = (hashes: Buffer, first: number): void => {
    for (let at = 0; at < hashes.length; at += PAGE_HASH_BYTES)
      index.add(base.from - from + first + at / PAGE_HASH_BYTES, hashes, at);
  };
  const pageKey = Buffer.from(key);
  const here = (await context.bases.list()).find(
    ({ root, sizeBytes }) => baseMark(root, pageKey) === base.mark && sizeBytes === base.sizeBytes,
  );
  const known = here && (await context.bases.pagesOf(here));
  const pages = pagesOfBlocks(base.sizeBytes);
  for (const { first, count } of piecesOf(pages, MAX_BASE_PAGES)) {
    if (known) add(keyedPageHashes(pageKey, known.subarray(first * HASH_BYTES, (first + count) * HASH_BYTES)), first);
    else {
      const asked = basePagesSchema.parse({ name: base.name, first, count });
      const { payload } = await session.control.request('base_pages', asked);
      if (payload.length !== count * PAGE_HASH_BYTES)
        throw new DwcpError('PROTOCOL_VIOLATION', 'Not as many pages of a base came as were asked for', {
          side: 'source',
        });
      add(payload, first);
    }
    // Other things wait for this thread.
    await new Promise((resolve) => setImmediate(resolve));
  }
}

/** Digests of pages from all over the images, none of zeros. */
async function sampleOfImages(paths: readonly string[]): Promise<Buffer> {
  const digests: Buffer[] = [];
  for (const path of paths)
    for (const page of await filledPages(path, spreadPlaces, SAMPLE_PAGES - digests.length))
      digests.push(pageDigest(page));
  return Buffer.concat(digests);
}

/** In an order that spreads a part of the places over all of the image as well. */
function spreadPlaces(pages: number): number[] {
  const places = Math.min(pages, LOOKED_AT);
  return Array.from({ length: places }, (_, place) => Math.floor((((place * 389) % places) * pages) / places));
}
