/**
 * What a supplier of batches works on: an image of a pass (a lane), a piece of work on it, and what it asks of its sender.
 */
import type { Manifest } from '../../store/manifest';
import type { ContentCipher } from '../../store/sealing-key';
import type { Slab } from '../../transport/slab';
import type { BlockSelection } from '../codec/block-selection';
import type { EncodeJob, EncodeResult, ToldPages } from '../codec/codec-jobs';
import type { CodecPool } from '../codec/codec-pool';
import type { PageTable } from '../codec/page-table';
import type { BlockFeed } from '../feeds/block-feed';
import type { BatchCounts } from './batch-counts';

/** One image of a pass. */
export interface Lane {
  readonly imageNumber: number;
  readonly feed: BlockFeed;
  readonly source: Manifest;
  readonly held: Manifest;
  readonly shadow?:
    | { readonly fd: number; readonly cipher: ContentCipher | undefined; readonly manifest: Manifest }
    | undefined;
  /** Page hashes of the versions held, for images whose blocks are sent again and again. */
  readonly pages?: PageTable | undefined;
  readonly references?: EncodeJob['references'];
  readonly bases?: EncodeJob['bases'];
  readonly versions?: EncodeJob['versions'];
  readonly counts: BatchCounts;
  /** These blocks have been read: their hashes stand in `source`. */
  readonly scanned: (blocks: BlockSelection) => void;
}

export interface BatchSourceContext {
  readonly pool: CodecPool;
  readonly slab: Slab;
  /** Settings for the next batch; asked anew for each. */
  readonly settings: () => EncodeJob['settings'];
  readonly batchBlocks: () => number;
  readonly askPageHashes: (imageNumber: number, blocks: readonly number[]) => Promise<ToldPages>;
  readonly encoded: (result: EncodeResult, level: number) => void;
}

export interface LaneState extends Lane {
  readonly needPages: number[];
  readonly refusals: Map<number, number>;
}

export interface Work {
  readonly lane: LaneState;
  readonly blocks: BlockSelection;
  readonly plain: boolean;
  readonly pages: EncodeJob['pages'];
  readonly again: boolean;
}
