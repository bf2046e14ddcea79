/**
 * Learning what the destination holds of an image. Generations before hashes: where this host has the hashes of the same
 * root already (its own baseline, or an earlier question), none travel; else they come packed, 64 Ki blocks at a time.
 */
import { HASH_BYTES } from '../../encoder/hash';
import { Packer } from '../../encoder/packer';
import { DwcpError } from '../../model/errors';
import type { ImageSpec } from '../../model/image';
import type { Baseline } from '../../store/baselines';
import { Manifest } from '../../store/manifest';
import type { SendingSession } from '../../transport/sending-session';
import type { ToldPages } from '../codec/codec-jobs';
import { piecesOf } from '../codec/pieces';
import type { BlockFeed } from '../feeds/block-feed';
import { MANIFEST_BLOCKS, type WorkingState } from '../protocol';
import { type HashesOf, hashesIn, hashesNow, openProven, tryProofs } from './proven-image';
import type { SourceMigration } from './source-migration';

export interface HeldImageState {
  readonly imageNumber: number;
  readonly state: WorkingState;
  readonly manifest: Manifest;
  readonly bases: boolean;
  /** The destination's, for page hashes. */
  readonly pageKey: Buffer;
}

/** What this host knows of an image before it asks. */
export interface KnownHere {
  /** Whether the destination may begin from what it holds. */
  readonly useBaseline: boolean;
  readonly baseline: Baseline | undefined;
  /** The image as it is, where it can be read. */
  readonly feed?: Pick<BlockFeed, 'file' | 'load'> | undefined;
}

const packer = new Packer();

export async function learnHeld(
  migration: SourceMigration,
  session: SendingSession,
  image: ImageSpec,
  { useBaseline, baseline, feed }: KnownHere,
): Promise<HeldImageState> {
  const now = feed && hashesNow(feed, migration.context.pool);
  const proofs = [...proofsIn(image, baseline), ...(now ? [now] : [])];
  const opened = await openProven(session, image, useBaseline ? proofs : undefined);
  const manifest = new Manifest(image.sizeBytes);
  const pageKey = Buffer.from(opened.pageKey, 'hex');
  const learned = { imageNumber: opened.image, state: opened.state, manifest, bases: opened.bases, pageKey };
  if (opened.zero) return learned;
  const before = migration.heldBefore.get(image.imageId);
  const known = [before, baseline && { root: baseline.record.root, manifest: baseline.manifest }].find(
    (each) => each?.root === opened.root,
  );
  if (known && known.manifest.sizeBytes === image.sizeBytes) {
    known.manifest.hashes.copy(manifest.hashes);
    return learned;
  }
  await fetchManifest(session, opened.image, manifest);
  migration.heldBefore.set(image.imageId, { root: opened.root, manifest: copyOf(manifest) });
  return learned;
}

/** What the destination holds of an image that cannot be looked at yet, for a guess: nothing is decided, and nothing learnt but that. */
export async function assumeHeld(
  session: SendingSession,
  image: ImageSpec,
  { useBaseline, baseline }: Omit<KnownHere, 'feed'>,
): Promise<WorkingState> {
  if (!useBaseline) return (await openProven(session, image, undefined)).state;
  return (await tryProofs(session, image, proofsIn(image, baseline)))?.state ?? 'empty';
}

function proofsIn({ sizeBytes }: ImageSpec, baseline: Baseline | undefined): HashesOf[] {
  return baseline?.record.sizeBytes === sizeBytes ? [hashesIn(baseline.manifest)] : [];
}

/** Hashes of the pages of blocks that the destination holds in another version: 16 x 8 bytes a block. */
export async function askPageHashes(
  { control }: SendingSession,
  image: number,
  blocks: readonly number[],
  pageKey: Buffer,
): Promise<ToldPages> {
  const payload = Buffer.alloc(4 * blocks.length);
  for (const [index, block] of blocks.entries()) payload.writeUInt32BE(block, 4 * index);
  const answer = await control.request('page_hashes', { image }, payload);
  return { hashes: Uint8Array.from(answer.payload), key: Uint8Array.from(pageKey) };
}

async function fetchManifest(session: SendingSession, image: number, manifest: Manifest): Promise<void> {
  for (const { first, count } of piecesOf(manifest.blocks, MANIFEST_BLOCKS)) {
    const answer = await session.control.request('manifest', { image, first, count });
    const out = manifest.hashes.subarray(first * HASH_BYTES, (first + count) * HASH_BYTES);
    const bytes = answer.body.packed === true ? packer.unpack(answer.payload, out) : answer.payload.copy(out);
    if (bytes !== out.length)
      throw new DwcpError('PROTOCOL_VIOLATION', 'A manifest has another length than its image', { side: 'source' });
  }
}

function copyOf(manifest: Manifest): Manifest {
  const copy = new Manifest(manifest.sizeBytes);
  manifest.hashes.copy(copy.hashes);
  return copy;
}
