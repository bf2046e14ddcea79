/**
 * How fast a guest may write to a disk while it is moved: a limit of QEMU's own, in a group that bears our name, so that whoever comes
 * behind a dead agent finds it and takes it back. A disk that its operator has limited is left as it is.
 */
import { OWN_PREFIX } from './others-at-work';
import type { QmpClient } from './qmp-client';
import type { BlockDevice } from './qmp-schemas';

const LIMITS = ['bps', 'bps_rd', 'bps_wr', 'iops', 'iops_rd', 'iops_wr'] as const;
const NO_LIMITS = Object.fromEntries(LIMITS.map((name) => [name, 0])) as Record<(typeof LIMITS)[number], number>;

/** @param node of the disk's top @returns false where the disk has limits of its operator's, or cannot have any */
export async function limitWrites(qmp: QmpClient, node: string, bytesPerSecond: number): Promise<boolean> {
  const devices = await qmp.execute('query-block');
  const device = devices.find(({ inserted }) => inserted?.['node-name'] === node);
  const name = device && nameOf(device);
  if (!device?.inserted || !name || (!isOurs(device) && LIMITS.some((limit) => (device.inserted?.[limit] ?? 0) > 0)))
    return false;
  const limits = { ...NO_LIMITS, bps_wr: Math.max(1, Math.round(bytesPerSecond)) };
  await qmp.execute('block_set_io_throttle', { ...name, ...limits, group: `${OWN_PREFIX}${node}` });
  return true;
}

/** Takes back every limit of ours. */
export async function clearWriteLimits(qmp: QmpClient): Promise<void> {
  for (const device of await qmp.execute('query-block')) {
    const name = nameOf(device);
    if (isOurs(device) && name) await qmp.execute('block_set_io_throttle', { ...name, ...NO_LIMITS });
  }
}

function isOurs({ inserted }: BlockDevice): boolean {
  return inserted?.group?.startsWith(OWN_PREFIX) ?? false;
}

function nameOf({ device, qdev }: BlockDevice): { readonly device: string } | { readonly id: string } | undefined {
  if (device !== '') return { device };
  return qdev === undefined ? undefined : { id: qdev };
}
