/**
 * What a guest's source can do before the link stands, from files alone: look through the RAM image kept from its last move, and
 * make the pages of its read-only drives findable. Begun when the guest is claimed, taken by its first rounds.
 */
import { MEMORY_IMAGE_ID, type SharedFile } from '../../model/guest';
import type { ImageSpec } from '../../model/image';
import { ReferenceSources } from '../source/reference-sources';
import type { SourceContext } from '../source/source-context';
import { type KeptMemory, recallMemory } from './kept-memory';

export class GuestHeadStart {
  readonly references: ReferenceSources;
  /** Undefined where it cannot be read: then nothing is known of it. */
  readonly kept: Promise<KeptMemory | undefined>;
  /** Resolves when the pages are findable: until then sending waits, and little else should take the processors. */
  readonly looked: Promise<void>;

  constructor(
    vmId: string,
    images: readonly (ImageSpec & { readonly path: string })[],
    sharedFiles: readonly SharedFile[],
    { store, pool }: SourceContext,
  ) {
    const memory = images.find(({ imageId }) => imageId === MEMORY_IMAGE_ID);
    this.references = new ReferenceSources(images, sharedFiles);
    this.kept = memory
      ? recallMemory(vmId, memory.path, memory.sizeBytes, store, pool).catch(() => undefined)
      : Promise.resolve(undefined);
    // Where most of memory is known there is little to find.
    this.looked = this.kept.then((kept) =>
      kept?.manifest.hashes.some((byte) => byte !== 0) ? undefined : this.references.fill(pool),
    );
  }
}
