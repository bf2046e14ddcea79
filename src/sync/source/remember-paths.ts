/**
 * What a transfer has learnt of its paths, for the next one: round trip, loss, and how many streams the tuner confirmed. A
 * transfer too short for that teaches nothing. What cannot be written down is said and forgotten: no transfer fails for it.
 */
import { messageOf } from '../../model/errors';
import { pathName } from '../../transport/endpoint';
import type { PathStats } from '../../transport/path-streams';
import type { Held } from '../../transport/stream-tuner';
import type { SourceMigration } from './source-migration';

/** Never throws. @param confirmed by the path's name @param begunWith streams; shows how good the expectation was */
export async function rememberPaths(
  migration: SourceMigration,
  paths: readonly PathStats[],
  confirmed: ReadonlyMap<string, Held>,
  begunWith: number,
): Promise<void> {
  const { history, explain } = migration.context;
  const congestionControl = migration.openSession?.congestionControl;
  for (const { peer, rttMs, lossRatio } of paths) {
    const path = pathName(peer);
    const held = confirmed.get(path);
    if (!held) continue;
    explain?.(migration.migrationId, `${path}: begun with ${begunWith} streams, held ${held.streams}`);
    const row = {
      path,
      atMs: Date.now(),
      hour: new Date().getHours(),
      rttMs,
      expectedStreams: begunWith,
      streams: held.streams,
      bytesPerSecond: held.goodput,
      ...(lossRatio !== undefined && { lossRatio }),
      ...(congestionControl !== undefined && { congestionControl }),
    };
    await history
      .add(row)
      .catch((error: unknown) =>
        explain?.(migration.migrationId, `what was learnt of ${path} is not kept: ${messageOf(error)}`),
      );
  }
}
