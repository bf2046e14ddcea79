/**
 * A guest that is loaded here and paused: the locks of its disks, taken while its source can still have it back - behind the point of
 * no return `cont` would be refused for the sake of a scanner or a backup that has an image open here - and its start.
 */
import { DwcpError, hasCode, messageOf } from '../../model/errors';
import { until } from '../../system/wait';
import type { DeviceState } from '../contract';
import type { QmpClient } from './qmp-client';

/** Before, only `cont` takes them (QEMU docs/interop, blockdev-set-active). */
const SINCE_MAJOR = 10;
const PATIENCE_MS = 3_000;
const TRY_EVERY_MS = 100;
const RESUME_TIMEOUT_MS = 10_000;

/**
 * The loaded guest is paused, and its disks are its QEMU's.
 * @throws QEMU_REFUSED with what holds one of them, or the state of a guest that no `cont` lets go on as its source meant it
 */
export async function ownDisks(qmp: QmpClient): Promise<void> {
  const { status } = await qmp.execute('query-status');
  if (status !== 'paused')
    throw new DwcpError('QEMU_REFUSED', `The guest has arrived in state "${status}", not ready to run`, {
      side: 'destination',
    });
  if ((await qmp.execute('query-version')).qemu.major < SINCE_MAJOR) return;
  let last: unknown;
  const taken = async (): Promise<boolean> => {
    try {
      await qmp.execute('blockdev-set-active', { active: true });
      return true;
    } catch (error) {
      if (!hasCode(error, 'QEMU_REFUSED')) throw error;
      last = error;
      return false;
    }
  };
  if (await until(taken, { everyMs: TRY_EVERY_MS, withinMs: PATIENCE_MS })) return;
  throw new DwcpError('QEMU_REFUSED', `Another program holds a disk of the guest here: ${messageOf(last)}`, {
    side: 'destination',
    cause: last,
  });
}

/** Past the point of no return only. @returns QEMU's time of it, once it has been seen to @throws QEMU_REFUSED where QEMU says so */
export async function letRun(qmp: QmpClient): Promise<{ resumedAtMs: number; responds: boolean }> {
  const resumed = qmp.event('RESUME', ({ name }) => name === 'RESUME', RESUME_TIMEOUT_MS);
  const [{ atMs }] = await Promise.all([resumed, qmp.execute('cont')]);
  await qmp.execute('announce-self', { initial: 50, max: 550, rounds: 5, step: 100 }).catch(() => undefined);
  const { running } = await qmp.execute('query-status');
  return { resumedAtMs: atMs, responds: running };
}

export function sameState(known: DeviceState | 'whole', { commands, devices }: DeviceState): boolean {
  return known !== 'whole' && known.commands.equals(commands) && known.devices.equals(devices);
}

export function endedBefore(): DwcpError {
  return new DwcpError('QEMU_REFUSED', 'The QEMU that had loaded the guest has ended before it was told to run it', {
    side: 'destination',
  });
}

export async function answers(qmp: QmpClient | undefined): Promise<boolean> {
  if (!qmp || qmp.ended) return false;
  return qmp.execute('query-status').then(
    () => true,
    () => false,
  );
}
