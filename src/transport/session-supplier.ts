/**
 * What a sending session takes its batches from, and what it says of itself.
 */
import type { Counters } from './counters';
import type { PathStats } from './path-streams';
import type { BatchSupplier } from './sending-stream';

export interface SessionSupplier extends BatchSupplier {
  /** Blocks of batches that must come again in full; comes before the `verified` of their batch. */
  refused(blocks: Counters['refused']): void;
  /** Batches whose other blocks are verified at the destination. */
  verified(ids: readonly number[]): void;
  /** True once every block it was to send has been verified. */
  readonly finished: boolean;
  /** True while streams could carry more than it has: nothing queued and nothing being encoded. */
  readonly exhausted: boolean;
}

export interface SessionStats {
  readonly openStreams: number;
  readonly activeStreams: number;
  readonly rttMs: number;
  /** Of what reaches the destination's agent. */
  readonly goodputBytesPerSecond: number;
  /** Share of active streams that wait for a batch. */
  readonly idleShare: number;
  readonly throttled: boolean;
  readonly paths: readonly PathStats[];
}
