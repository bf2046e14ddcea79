/**
 * What an agent does when it starts, before it has heard of Temporal: a guest that a dead agent has left standing still runs
 * on where it is this host's own, and what stands behind a line of a journal is completed. Which: `atStart` in the tables of
 * src/model/ownership-machine.ts. Nothing is decided here.
 */
import { toDwcpError } from '../model/errors';
import { SOURCE_TABLE, sourceState } from '../model/ownership-machine';
import type { SourceOwnership } from '../sync/hand-over/source-ownership';
import { wait } from '../system/wait';
import type { Logger } from '../telemetry/logger';
import type { HostParts } from './host';

const TRY_AGAIN_MS = 2_000;

/** @param signal ends it: from then on activities and the sweep do what is left */
export async function recoverUntilDone(
  host: HostParts,
  ownership: SourceOwnership,
  log: Logger,
  signal: AbortSignal,
): Promise<void> {
  while (!signal.aborted) {
    const failed = [...(await recoverSource(host, ownership, log)), ...(await host.hub.incoming.recover())];
    for (const { migrationId, error } of failed)
      log.warn({ migrationId, ...error.report() }, 'what an earlier agent had left could not be completed yet');
    if (failed.length === 0) return;
    await wait(TRY_AGAIN_MS, signal).catch(() => undefined);
  }
}

async function recoverSource(
  { registry, ownership: journal }: HostParts,
  ownership: SourceOwnership,
  log: Logger,
): Promise<{ migrationId: string; error: ReturnType<typeof toDwcpError> }[]> {
  const failed: { migrationId: string; error: ReturnType<typeof toDwcpError> }[] = [];
  await Promise.all(
    (await registry.list()).map(async ({ vmId }) => {
      let migrationId = vmId;
      try {
        const last = await journal.last(vmId);
        if (!last) return;
        migrationId = last.migrationId;
        const { atStart } = SOURCE_TABLE[sourceState(last.state)];
        if (atStart === 'let the guest run on') {
          if (await ownership.resumeClaimed(vmId, migrationId))
            log.info({ migrationId, vmId }, 'the guest of a claimed VM runs on here');
        } else if (atStart === 'roll_back') await ownership.rollBack(vmId, migrationId);
        else if (atStart === 'taken_over') await ownership.completeRelease(vmId, migrationId);
      } catch (error) {
        failed.push({ migrationId, error: toDwcpError(error, 'INTERNAL', { side: 'source' }) });
      }
    }),
  );
  return failed;
}
