/**
 * The orchestrator's metrics, with the keys that users know, from the statuses of recent migrations. Pure.
 */
import type { MigrationStatus } from './orchestrator';

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
    readonly hde: { readonly compression_ratio: number; readonly delta_hit_rate: number };
  };
}

function mean(values: readonly number[]): number {
  return values.length === 0 ? 0 : values.reduce((sum, value) => sum + value, 0) / values.length;
}

export function collectMetrics(statuses: readonly MigrationStatus[]): OrchestratorMetrics {
  const results = statuses.flatMap((status) => status.result ?? []);
  const live = statuses.flatMap((status) => status.live);
  const images = results.flatMap((result) => result.images);
  const withBaseline = images.filter((image) => image.blocks.unchanged + image.blocks.pages + image.blocks.runDelta + image.blocks.oldPages > 0);
  const reasons: Record<string, number> = {};
  for (const { fallbackReason } of results) if (fallbackReason) reasons[fallbackReason.code] = (reasons[fallbackReason.code] ?? 0) + 1;
  return {
    migrations_total: statuses.length,
    migrations_running: statuses.filter((status) => status.state === 'running').length,
    dwcp_speedup: mean(results.filter((result) => result.path === 'dwcp').map((result) => result.speedup)),
    fallback_rate: results.length === 0 ? 0 : results.filter((result) => result.path === 'fallback').length / results.length,
    fallback_reasons: reasons,
    adapter_metrics: {
      amst: {
        active_streams: live.reduce((sum, image) => sum + image.streams, 0),
        chunk_size: live[0]?.batchBytes ?? images[0]?.batchBytes ?? 0,
      },
      hde: {
        compression_ratio: results.reduce((sum, result) => sum + result.totalBytes, 0) / Math.max(1, results.reduce((sum, result) => sum + result.linkBytes, 0)),
        delta_hit_rate: mean(withBaseline.map((image) => image.deltaHitRate)),
      },
    },
  };
}
