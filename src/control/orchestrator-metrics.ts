/**
 * The orchestrator's metrics, with the keys that users know, from the statuses of recent migrations. Pure.
 */
import type { ImageResult } from '../model/migration';
import { ownValue } from '../model/own-value';
import type { MigrationStatus } from './migration-status';

export interface OrchestratorMetrics {
  readonly migrations_total: number;
  readonly migrations_running: number;
  /** Mean speedup over the standard transfer of the migrations that went by DWCP. */
  readonly dwcp_speedup: number;
  /** Share of completed migrations that fell back, 0 to 1, and why. */
  readonly fallback_rate: number;
  readonly fallback_reasons: Readonly<Record<string, number>>;
  readonly adapter_metrics: {
    readonly amst: { readonly active_streams: number; readonly chunk_size: number };
    readonly hde: HdeMetrics;
  };
}

export interface HdeMetrics extends EncodingMetrics {
  readonly delta_hit_rate: number;
  /** The same by the tier of the migrations. */
  readonly by_tier: Readonly<Record<string, EncodingMetrics>>;
}

export interface EncodingMetrics {
  /** Image bytes for each byte on the link. */
  readonly compression_ratio: number;
  /** Blocks with pages that the destination had elsewhere. */
  readonly reference_hits: number;
  /** On the link: full, pages, runDelta, oldPages, references, heads. */
  readonly bytes_by_encoding: Readonly<Record<string, number>>;
  /** What remains after deltas and references, by how it was packed: stored, zstd, dictionary, numbers, hex, brotli. */
  readonly bytes_by_packing: Readonly<Record<string, number>>;
  /** Of all encoder threads: reading, choosing, deltas, packing. */
  readonly seconds_by_stage: Readonly<Record<string, number>>;
}

function encodingMetrics(images: readonly ImageResult[]): EncodingMetrics {
  const linkBytes = images.reduce((sum, image) => sum + image.linkBytes, 0);
  return {
    compression_ratio: images.reduce((sum, image) => sum + image.totalBytes, 0) / Math.max(1, linkBytes),
    reference_hits: images.reduce((sum, image) => sum + image.blocks.references, 0),
    bytes_by_encoding: addedUp(images.map(({ encoder }) => encoder.bytes)),
    bytes_by_packing: addedUp(images.map(({ encoder }) => encoder.packings)),
    seconds_by_stage: Object.fromEntries(
      Object.entries(addedUp(images.map(({ encoder }) => encoder.times))).map(([name, ms]) => [
        name.replace(/Ms$/, ''),
        ms / 1000,
      ]),
    ),
  };
}

function addedUp(records: readonly Readonly<Record<string, number>>[]): Record<string, number> {
  const sums: Record<string, number> = {};
  for (const record of records)
    for (const [name, value] of Object.entries(record)) sums[name] = (ownValue(sums, name) ?? 0) + value;
  return sums;
}

function mean(values: readonly number[]): number {
  return values.length === 0 ? 0 : values.reduce((sum, value) => sum + value, 0) / values.length;
}

export function collectMetrics(statuses: readonly MigrationStatus[]): OrchestratorMetrics {
  const results = statuses.flatMap((status) => status.result ?? []);
  const live = statuses.flatMap((status) => status.live);
  const images = results.flatMap((result) => result.images);
  const withBaseline = images.filter(
    (image) => image.blocks.unchanged + image.blocks.pages + image.blocks.runDelta + image.blocks.oldPages > 0,
  );
  const tiers = [...new Set(results.flatMap((result) => result.tier ?? []))];
  const reasons: Record<string, number> = {};
  for (const { fallbackReason } of results)
    if (fallbackReason) reasons[fallbackReason.code] = (ownValue(reasons, fallbackReason.code) ?? 0) + 1;
  return {
    migrations_total: statuses.length,
    migrations_running: statuses.filter((status) => status.state === 'running').length,
    dwcp_speedup: mean(results.filter((result) => result.path === 'dwcp').map((result) => result.speedup)),
    fallback_rate:
      results.length === 0 ? 0 : results.filter((result) => result.path === 'fallback').length / results.length,
    fallback_reasons: reasons,
    adapter_metrics: {
      amst: {
        active_streams: live.reduce((sum, image) => sum + image.streams, 0),
        chunk_size: live[0]?.batchBytes ?? images[0]?.batchBytes ?? 0,
      },
      hde: {
        ...encodingMetrics(images),
        delta_hit_rate: mean(withBaseline.map((image) => image.deltaHitRate)),
        by_tier: Object.fromEntries(
          tiers.map((tier) => [
            tier,
            encodingMetrics(results.filter((result) => result.tier === tier).flatMap((result) => result.images)),
          ]),
        ),
      },
    },
  };
}
