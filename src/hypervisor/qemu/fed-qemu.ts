/**
 * A QEMU that waits for a guest, started here, and seen to take how the guest's stream begins: it has every RAM block, and it goes on.
 * What it is fed then is incoming-guest.ts's.
 */
import type { GuestHardware } from '../../model/guest-hardware';
import { cannotRunHere } from '../../model/guest-refusals';
import type { GuestSetUp, ProcessIdentity } from '../contract';
import { type StartedGuest, type StartRules, startGuestProcess } from './guest-process';
import { hardwareDifference } from './hardware-difference';
import { IncomingMigration } from './incoming-migration';
import type { QmpClient } from './qmp-client';
import { hardwareOf } from './running-hardware';
import { settingsDifference } from './settings';

export interface IncomingCommand {
  readonly command: readonly string[];
  readonly rules: Omit<StartRules, 'purpose'>;
  readonly runFolder: string;
  /** What it has to consist of; undefined where that is not asked. */
  readonly hardware?: GuestHardware | undefined;
}

/**
 * @param started hears of the process at once: who gives it up ends that
 * @throws GUEST_REFUSED, QEMU_REFUSED with the reason, QEMU_UNREACHABLE, QEMU_TIMEOUT
 */
export async function startFedQemu(
  incoming: IncomingCommand,
  { prefix, sectionId }: GuestSetUp,
  started: (process: ProcessIdentity) => void,
): Promise<{ readonly qmp: QmpClient; readonly process: ProcessIdentity; readonly incoming: IncomingMigration }> {
  const qemu = await startWaiting(incoming, started);
  const { qmp, process, places } = qemu;
  try {
    return { qmp, process, incoming: await IncomingMigration.open(qemu, places.incomingPath, prefix, sectionId) };
  } catch (error) {
    qmp.close();
    throw error;
  }
}

/**
 * A QEMU that waits for a guest and is the machine that the guest has.
 * @param started hears of the process at once: who gives it up ends that @throws GUEST_REFUSED with what is not the same
 */
export async function startWaiting(
  { command, rules, runFolder, hardware }: IncomingCommand,
  started: (process: ProcessIdentity) => void,
): Promise<StartedGuest> {
  const qemu = await startGuestProcess(command, runFolder, { ...rules, purpose: 'incoming' });
  started(qemu.process);
  if (!hardware) return qemu;
  try {
    const difference =
      hardwareDifference(hardware, await hardwareOf(qemu.qmp)) ??
      (await settingsDifference(qemu.qmp, hardware.devices));
    if (difference === undefined) return qemu;
    throw cannotRunHere(difference);
  } catch (error) {
    qemu.qmp.close();
    throw error;
  }
}
