/**
 * Sessions that bring images without a VM changing hands (the adapter's): when their records end, and whose way they may be in.
 * How an image arrives and where it goes is the destination-migration's, as for every other.
 */
import { DwcpError } from '../../model/errors';
import { GRANT_LIFETIME_MS } from '../../model/timing';
import type { DestinationMigration, DestinationRecord } from './destination-migration';

type Images = DestinationRecord['images'];

/** What they ask of the hub. */
export interface Records {
  list(): Promise<readonly string[]>;
  migration(migrationId: string): Promise<DestinationMigration | undefined>;
  dismiss(migrationId: string): Promise<void>;
  holds(sessionId: string): boolean;
}

/** Ends direct sessions to images of a VM, or to some of them, that nobody holds: they are in nobody's way. What has arrived stays as baseline. */
export async function endIdleDirect(hub: Records, vmId: string, images?: Images): Promise<void> {
  for (const id of await hub.list()) {
    const record = (await hub.migration(id))?.record;
    if (record?.mode === 'direct' && record.vmId === vmId && (!images || shareImages(record.images, images)) && !hub.holds(id)) await hub.dismiss(id);
  }
}

/** As endIdleDirect(), of one session that was begun longer ago than a grant lasts. @returns whether it has ended */
export async function endOldDirect(hub: Records, migration: DestinationMigration): Promise<boolean> {
  const { migrationId } = migration.record;
  if (hub.holds(migrationId) || Date.now() - (await migration.savedAtMs()) < GRANT_LIFETIME_MS) return false;
  await hub.dismiss(migrationId);
  return true;
}

/** @throws VM_BUSY where another migration, or another direct session to the same images, has them in its hands */
export async function assertImagesFree(hub: Records, { migrationId, vmId, images }: DestinationRecord, hostId: string): Promise<void> {
  await endIdleDirect(hub, vmId, images);
  for (const id of await hub.list()) {
    const other = id === migrationId ? undefined : (await hub.migration(id))?.record;
    if (other?.vmId !== vmId || (other.mode === 'direct' && !shareImages(other.images, images))) continue;
    throw new DwcpError('VM_BUSY', `Host ${hostId} has images of ${vmId} in its hands for ${id}`, { side: 'destination' });
  }
}

function shareImages(some: Images, others: Images): boolean {
  return some.some(({ imageId }) => others.some((other) => other.imageId === imageId));
}
