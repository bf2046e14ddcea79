/**
 * A QEMU that receives a guest by its own means: its memory as QEMU's migration stream, its disks through its own NBD
 * server. The guest stays paused; running it is incoming-guest.ts's.
 */
import { rmSync } from 'node:fs';
import { DwcpError } from '../../model/errors';
import { until } from '../../system/wait';
import type { ProcessIdentity } from '../contract';
import { guestDiskOf } from './disk-export';
import { type IncomingCommand, startWaiting } from './fed-qemu';
import type { StartedGuest } from './guest-process';
import { OWN_PREFIX } from './others-at-work';
import type { QmpClient } from './qmp-client';
import { runPlaces } from './run-places';

const LOAD_TIMEOUT_MS = 120_000;
const LOOK_EVERY_MS = 20;

/** @param disks image ids by path @param started hears of the process at once @throws GUEST_REFUSED, QEMU_REFUSED */
export async function startWholeReceiver(
  incoming: IncomingCommand,
  disks: ReadonlyMap<string, string>,
  started: (process: ProcessIdentity) => void,
): Promise<StartedGuest> {
  const { nbdPath } = runPlaces(incoming.runFolder);
  rmSync(nbdPath, { force: true });
  const qemu = await startWaiting(incoming, started);
  const { qmp } = qemu;
  try {
    await qmp.execute('nbd-server-start', { addr: { type: 'unix', data: { path: nbdPath } } });
    for (const device of await qmp.execute('query-block')) {
      const disk = guestDiskOf(device);
      const imageId = disk && disks.get(disk.path);
      if (imageId !== undefined)
        await qmp.execute('block-export-add', {
          type: 'nbd',
          id: `${OWN_PREFIX}${imageId}`,
          'node-name': disk?.node,
          name: imageId,
          writable: true,
        });
    }
    return qemu;
  } catch (error) {
    qmp.close();
    throw error;
  }
}

/** @throws QEMU_REFUSED with QEMU's reason */
export async function untilWholeLoaded(qmp: QmpClient): Promise<void> {
  const loaded = async (): Promise<boolean> => {
    const { status, 'error-desc': why } = await qmp.execute('query-migrate');
    if (status === 'failed')
      throw new DwcpError('QEMU_REFUSED', `QEMU could not load the guest: ${why ?? 'it gives no reason'}`, {
        side: 'destination',
      });
    return status === 'completed';
  };
  if (!(await until(loaded, { everyMs: LOOK_EVERY_MS, withinMs: LOAD_TIMEOUT_MS })))
    throw new DwcpError('QEMU_TIMEOUT', 'QEMU has not loaded the guest in time', { side: 'destination' });
  await qmp.execute('nbd-server-stop');
}
