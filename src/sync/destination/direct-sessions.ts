/**
 * Sessions that bring images without a VM changing hands (the adapter's): when their records end, and whose way they may be in.
 * How an image arrives and where it goes is the destination-migration's, as for every other.
 */
import { DwcpError } from '../../model/errors';
import type { ImageSpec } from '../../model/image';
import { GRANT_LIFETIME_MS } from '../../model/timing';
import type { DestinationMigration } from './destination-migration';
import type { DestinationRecord } from './destination-record';
import type { IncomingMigrations } from './incoming-migrations';

/** What they ask of the hub. */
export interface Records {
  readonly incoming: Pick<IncomingMigrations, 'recordsOf'>;
  dismiss(migrationId: string): Promise<void>;
  holds(sessionId: string): boolean;
}

function isIdleDirect(hub: Records, { mode, migrationId }: DestinationRecord): boolean {
  return mode === 'direct' && !hub.holds(migrationId);
}

/** Ends direct sessions to images of a VM that nobody holds: they are in nobody's way. What has arrived stays as baseline. */
export async function endIdleDirect(hub: Records, vmId: string): Promise<void> {
  for (const record of await hub.incoming.recordsOf(vmId))
    if (isIdleDirect(hub, record)) await hub.dismiss(record.migrationId);
}

/** As endIdleDirect(), of one session that was begun longer ago than a grant lasts. @returns whether it has ended */
export async function endOldDirect(hub: Records, migration: DestinationMigration): Promise<boolean> {
  if (!isIdleDirect(hub, migration.record) || Date.now() - (await migration.savedAtMs()) < GRANT_LIFETIME_MS)
    return false;
  await hub.dismiss(migration.record.migrationId);
  return true;
}

/**
 * Makes room for a direct session: others to the same images that nobody holds end.
 * @throws VM_BUSY where one that is held, or a migration, has them in its hands
 */
export async function assertImagesFree(
  hub: Records,
  {
    migrationId,
    vmId,
    images,
  }: Pick<DestinationRecord, 'migrationId' | 'vmId'> & { readonly images: readonly ImageSpec[] },
  hostId: string,
): Promise<void> {
  for (const other of await hub.incoming.recordsOf(vmId)) {
    if (other.migrationId === migrationId || (other.mode === 'direct' && !shareImages(other.images, images))) continue;
    if (!isIdleDirect(hub, other))
      throw new DwcpError('VM_BUSY', `Host ${hostId} has images of ${vmId} in its hands for ${other.migrationId}`, {
        side: 'destination',
      });
    await hub.dismiss(other.migrationId);
  }
}

function shareImages(some: readonly ImageSpec[], others: readonly ImageSpec[]): boolean {
  return some.some(({ imageId }) => others.some((other) => other.imageId === imageId));
}
