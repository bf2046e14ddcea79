/**
 * Whether a baseline's content is what its manifest says, by reading all of it on the worker threads. Damage is found
 * on use too; this finds it before.
 */
import type { Baseline, ContentAccess } from '../../store/baselines';
import { isMissing } from '../../store/durable-file';
import { openImage } from '../../system/image-roots';
import type { CodecPool } from '../codec/codec-pool';
import { sealBlocks } from './baseline-sealer';

export type BaselineVerdict =
  | { readonly state: 'whole'; readonly blocks: number }
  | { readonly state: 'damaged'; readonly blocks: number; readonly damagedBlocks: number }
  /** The VM lives here: its image is the content, and may change at any time. */
  | { readonly state: 'in use' }
  /** Sealed with a key that is not here. */
  | { readonly state: 'locked' }
  | { readonly state: 'missing' };

/** @param access to its content, as the store says */
export async function verifyBaseline(
  { record, manifest }: Baseline,
  access: ContentAccess | undefined,
  pool: CodecPool,
): Promise<BaselineVerdict> {
  const path = record.contentPath ?? record.inPlace;
  if (path === undefined) return { state: 'in use' };
  if (!access) return { state: 'locked' };
  try {
    const handle = await openImage(path);
    try {
      const damagedBlocks = await sealBlocks(pool, handle.fd, manifest, { cipher: access.cipher, into: 'as it is' });
      return damagedBlocks === 0
        ? { state: 'whole', blocks: manifest.blocks }
        : { state: 'damaged', blocks: manifest.blocks, damagedBlocks };
    } finally {
      await handle.close();
    }
  } catch (error) {
    if (isMissing(error)) return { state: 'missing' };
    throw error;
  }
}
