/**
 * Who holds a monitor: QEMU speaks to one client on each at a time, and another hears nothing until that one has gone. The kernel knows
 * both ends of a connection, and tells them to `ss` (iproute2); where that is missing nobody is named.
 */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { hasCode } from '../../model/errors';
import { cannotBeMovedLive } from '../../model/guest-refusals';
import { findListener } from './process-table';

const run = promisify(execFile);
const TIMEOUT_MS = 3_000;
const MAX_BYTES = 16 * 1024 * 1024;
/** A row of `ss -xpnH`: where a socket is bound, its number, that of the other end, and who has it open. */
const ROW = /^u_str\s+ESTAB\s+\d+\s+\d+\s+(\S+)\s+(\d+)\s+\S+\s+(\d+)(?:\s+users:\((.*)\))?/;
const FIRST_USER = /^\("([^"]*)",pid=(\d+),/;

export interface MonitorHolder {
  readonly pid: number;
  readonly name: string;
}

/**
 * Why a monitor does not answer, as its migration is told: what another program holds does not get better by being asked again, what an
 * earlier attempt of this agent holds does.
 */
export async function whyNoAnswer(error: unknown, socketPath: string): Promise<unknown> {
  if (!hasCode(error, 'QEMU_TIMEOUT', 'QEMU_UNREACHABLE')) return error;
  const holder = await findHolder(socketPath);
  if (!holder || holder.pid === process.pid) return error;
  return cannotBeMovedLive(
    `process ${holder.pid} (${holder.name}) holds its monitor ${socketPath}, which takes one client at ` +
      'a time: end that, or give the guest a monitor of its own for DWCP (-qmp unix:PATH,server=on,wait=off)',
    { cause: error },
  );
}

/** As whyNoAnswer(), of a QEMU that is looked at before anything is begun: one that does not answer then is not asked again and again. */
export async function whySilent(error: unknown, socketPath: string): Promise<unknown> {
  if (!hasCode(error, 'QEMU_TIMEOUT') || (await findHolder(socketPath))?.pid === process.pid) return error;
  const pid = findListener(socketPath)?.pid;
  return cannotBeMovedLive(
    `its QEMU${pid === undefined ? '' : ` (process ${pid})`} does not answer on its monitor ` +
      `${socketPath}: it hangs, is stopped (kill -CONT), or another client holds that monitor (ss -xp)`,
    { cause: error },
  );
}

/** The process whose connection a monitor's QEMU has taken; undefined where that cannot be seen, or nobody's has been. */
export async function findHolder(socketPath: string): Promise<MonitorHolder | undefined> {
  try {
    const { stdout } = await run('ss', ['-xpnH'], { timeout: TIMEOUT_MS, maxBuffer: MAX_BYTES });
    return holderIn(stdout, socketPath);
  } catch {
    return undefined;
  }
}

/** @param rows what `ss -xpnH` says */
export function holderIn(rows: string, socketPath: string): MonitorHolder | undefined {
  const sockets = rows.split('\n').flatMap((line) => {
    const [, path, own, peer, users] = ROW.exec(line) ?? [];
    return path === undefined ? [] : [{ path, own, peer, users }];
  });
  // Whoever waits to be taken has no end at QEMU yet that anybody has open.
  const taken = sockets.filter(({ path, users }) => path === socketPath && users !== undefined);
  for (const { peer } of taken) {
    const [, name, pid] = FIRST_USER.exec(sockets.find(({ own }) => own === peer)?.users ?? '') ?? [];
    if (name !== undefined) return { pid: Number(pid), name };
  }
  return undefined;
}
