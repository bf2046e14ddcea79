/**
 * The control worker's audit log: what it has authorised for which operator, and what it has refused. Several workers on one machine have
 * a folder each, numbered; a folder is a data folder to `dwcp audit --data-dir`.
 */
import { homedir } from 'node:os';
import { join } from 'node:path';
import { DwcpError, messageOf, toDwcpError } from '../model/errors';
import type { ProcessOptions } from '../model/options';
import { AuditLog } from '../store/audit-log';
import { refusalsOf } from '../store/audit-refusals';
import { tryLockFolder, type Unlock } from '../store/folder-lock';
import type { DecisionsHeard } from './issuer';

const MOST_WORKERS = 256;

export interface Decisions extends DecisionsHeard {
  readonly folder: string;
  close(): Promise<void>;
}

/** @throws CONFIG_INVALID where it cannot be written: nothing is authorised that nobody could ask about later */
export async function openDecisions(
  { controlAuditDir }: Pick<ProcessOptions, 'controlAuditDir'>,
  warn: (error: DwcpError) => void,
): Promise<Decisions> {
  const parent = controlAuditDir || join(homedir(), '.local', 'share', 'dwcp', 'control');
  try {
    const { folder, unlock } = firstFree(parent);
    const log = await AuditLog.open(folder, (error) => warn(toDwcpError(error, 'INTERNAL')));
    return {
      folder,
      authorised: (details) => log.write('authorised', details),
      refused: refusalsOf(log),
      close: async () => {
        await log.close();
        unlock();
      },
    };
  } catch (cause) {
    throw new DwcpError('CONFIG_INVALID', `The audit log under ${parent} cannot be written: ${messageOf(cause)}`, {
      hint: 'Name a folder of this user with --control-audit-dir',
      cause,
    });
  }
}

function firstFree(parent: string): { readonly folder: string; readonly unlock: Unlock } {
  for (let number = 1; number <= MOST_WORKERS; number += 1) {
    const folder = join(parent, String(number));
    const unlock = tryLockFolder(folder);
    if (unlock) return { folder, unlock };
  }
  throw new Error(`${MOST_WORKERS} control workers write there already`);
}
