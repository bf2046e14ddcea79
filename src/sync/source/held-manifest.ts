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
import { piecesOf } from '../codec/pieces';
import { MANIFEST_BLOCKS, openedImageSchema, readBody, type WorkingState } from '../protocol';
import type { SourceMigration } from './source-migration';

export interface HeldImageState {
  readonly imageNumber: number;
  readonly state: WorkingState;
  readonly manifest: Manifest;
  readonly bases: boolean;
}

const packer = new Packer();

export async function learnHeld(
  migration: SourceMigration,
  session: SendingSession,
  image: ImageSpec,
  useBaseline: boolean,
  baseline: Baseline | undefined,
): Promise<HeldImageState> {
  const opened = readBody(
    openedImageSchema,
    await session.control.request('open_image', { imageId: image.imageId, useBaseline }),
  );
  const manifest = new Manifest(image.sizeBytes);
  const learned = { imageNumber: opened.image, state: opened.state, manifest, bases: opened.bases };
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

/** Hashes of the pages of blocks that the destination holds in another version: 16 x 8 bytes a block. */
export async function askPageHashes(
  session: SendingSession,
  image: number,
  blocks: readonly number[],
): Promise<Uint8Array> {
  const payload = Buffer.alloc(4 * blocks.length);
  for (const [index, block] of blocks.entries()) payload.writeUInt32BE(block, 4 * index);
  const answer = await session.control.request('page_hashes', { image }, payload);
  return Uint8Array.from(answer.payload);
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
