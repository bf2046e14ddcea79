/**
 * What others do with a guest's disks in its QEMU: block jobs, exports, an NBD server, bitmaps that a backup keeps. A move would break
 * it off or leave it behind, so it is refused by name before anything is sent, and ends where such work begins while it is under way.
 * Nothing of it is ever stopped or removed.
 */
import { existsSync, rmSync } from 'node:fs';
import { type DwcpError, hasCode, messageOf } from '../../model/errors';
import { cannotBeMovedLive } from '../../model/guest-refusals';
import { isListenedAt } from './process-table';
import type { QmpClient } from './qmp-client';
import type { QmpReturn } from './qmp-schemas';

/** What DWCP calls its own in a QEMU begins so. */
export const OWN_PREFIX = 'dwcp-';
/** Through, and not dismissed yet: it holds nothing. */
const OVER: ReadonlySet<string> = new Set(['concluded', 'null']);
/** Jobs that touch no disk of the guest. */
const APART: ReadonlySet<string> = new Set(['create']);

/**
 * @param nbdPath where our own server is, or would be
 * @param withDisks the guest has disks that are to be read over NBD
 * @throws GUEST_REFUSED
 */
export async function assertNobodyAtWork(
  qmp: QmpClient,
  nbdPath: string,
  { withDisks, force }: { readonly withDisks: boolean; readonly force: boolean },
): Promise<void> {
  const [job] = await jobsOfOthers(qmp);
  if (job) throw busyWith(job);
  const [theirs] = await exportsOfOthers(qmp);
  if (theirs)
    throw cannotBeMovedLive(
      `somebody else’s NBD server in its QEMU has the export ${theirs.id} (of ${theirs['node-name']}): wait for whoever reads ` +
        'it, or end it (block-export-del, nbd-server-stop)',
    );
  if (!force) await assertNothingKept(qmp);
  if (withDisks) await assertCanServe(qmp, nbdPath);
}

/** Ends a move where somebody begins a block job meanwhile. @returns what stops the looking */
export function watchForJobs(qmp: QmpClient, failed: (error: DwcpError) => void): () => void {
  return qmp.onEvent(({ name, data }) => {
    if (name !== 'JOB_STATUS_CHANGE' || data.status !== 'created' || String(data.id).startsWith(OWN_PREFIX)) return;
    assertNoJobs(qmp).catch((error: unknown) => {
      if (hasCode(error, 'GUEST_REFUSED')) failed(error);
    });
  });
}

/** @throws GUEST_REFUSED where another's block job is under way: QEMU would break off its migration for it, or it for that */
export async function assertNoJobs(qmp: QmpClient): Promise<void> {
  const [job] = await jobsOfOthers(qmp);
  if (job) throw busyWith(job);
}

async function exportsOfOthers(qmp: QmpClient): Promise<QmpReturn<'query-block-exports'>> {
  return (await qmp.execute('query-block-exports')).filter(({ id }) => !id.startsWith(OWN_PREFIX));
}

async function jobsOfOthers(qmp: QmpClient): Promise<QmpReturn<'query-jobs'>> {
  const jobs = await qmp.execute('query-jobs');
  return jobs.filter(({ id, type, status }) => !id.startsWith(OWN_PREFIX) && !APART.has(type) && !OVER.has(status));
}

/** A persistent bitmap lies in its QCOW2 file, which stays behind. */
async function assertNothingKept(qmp: QmpClient): Promise<void> {
  for (const node of await qmp.execute('query-named-block-nodes', { flat: true })) {
    const kept = node.ro === true ? undefined : node['dirty-bitmaps']?.find(({ persistent }) => persistent === true);
    if (kept)
      throw cannotBeMovedLive(
        `its disk ${node.file ?? node['node-name'] ?? ''} has the persistent dirty bitmap ${kept.name ?? ''} of a backup, which would ` +
          'stay behind: remove it (block-dirty-bitmap-remove), or --force leaves it; the next backup is a full one either way',
      );
  }
}

/** A QEMU has one NBD server, and it has to make its socket where the agent finds it. */
async function assertCanServe(qmp: QmpClient, nbdPath: string): Promise<void> {
  // What an earlier attempt has left is taken away when the disks are watched.
  if (isListenedAt(nbdPath)) return;
  rmSync(nbdPath, { force: true });
  try {
    await qmp.execute('nbd-server-start', { addr: { type: 'unix', data: { path: nbdPath } } });
  } catch (error) {
    if (!hasCode(error, 'QEMU_REFUSED')) throw error;
    throw cannotBeMovedLive(
      `its QEMU cannot serve its disks at ${nbdPath}: ${messageOf(error)}. Where another NBD server is in its QEMU, end that ` +
        '(nbd-server-stop); where its user may not write there, start it with `dwcp vm start`',
    );
  }
  const found = existsSync(nbdPath);
  await qmp.execute('nbd-server-stop');
  rmSync(nbdPath, { force: true });
  if (!found)
    throw cannotBeMovedLive(
      `its QEMU sees other folders than the agent (chroot, or a namespace of its own): nothing is at ${nbdPath} that it has put ` +
        'there; start it with `dwcp vm start`',
    );
}

function busyWith({ id, type }: { readonly id: string; readonly type: string }): DwcpError {
  return cannotBeMovedLive(
    `it is busy with block job ${id} (${type}), which goes on: migrate it when that has ended (query-jobs on its monitor)`,
  );
}
