/**
 * QEMU's own copy of a running guest's disks to another QEMU (blockdev-mirror to an NBD export): what the standard transfer
 * uses. Ready mirrors end with both copies equal, as of the moment at which the guest stood still.
 *
 *   start -> running -> ready (writes go to both) -> finish, the guest stopped -> gone
 */
import { DwcpError } from '../../model/errors';
import { wait } from '../../system/wait';
import type { QmpClient } from './qmp-client';
import type { QmpEvent } from './qmp-schemas';

const JOB = 'dwcp-mirror-';
const NODE = 'dwcp-to-';
const END_TIMEOUT_MS = 60_000;

interface Mirror {
  readonly imageId: string;
  readonly node: string;
  readonly job: string;
}

export class DiskMirrors {
  readonly #qmp: QmpClient;
  readonly #path: string;
  readonly #failed: (error: DwcpError) => void;
  #mirrors: readonly Mirror[] = [];
  #stopListening: (() => void) | undefined;

  /** @param path a socket on which the destination QEMU's NBD server answers @param failed called where a mirror breaks */
  constructor(qmp: QmpClient, path: string, failed: (error: DwcpError) => void) {
    this.#qmp = qmp;
    this.#path = path;
    this.#failed = failed;
  }

  /** @throws QEMU_REFUSED */
  async start(disks: readonly { readonly imageId: string; readonly node: string }[]): Promise<void> {
    this.#mirrors = disks.map(({ imageId, node }, index) => ({ imageId, node, job: `${JOB}${index}` }));
    this.#stopListening = this.#qmp.onEvent((event) => this.#hear(event));
    for (const [index, { imageId, node, job }] of this.#mirrors.entries()) {
      const target = `${NODE}${index}`;
      await this.#qmp.execute('blockdev-add', {
        driver: 'nbd',
        'node-name': target,
        server: { type: 'unix', path: this.#path },
        export: imageId,
      });
      await this.#qmp.execute('blockdev-mirror', {
        'job-id': job,
        device: node,
        target,
        sync: 'full',
        'on-target-error': 'report',
      });
    }
  }

  async progress(): Promise<{ imageId: string; doneBytes: number; totalBytes: number; ready: boolean }[]> {
    const jobs = await this.#qmp.execute('query-block-jobs');
    return this.#mirrors.flatMap(({ imageId, job }) =>
      jobs
        .filter(({ device }) => device === job)
        .map(({ offset, len, ready }) => ({ imageId, doneBytes: offset, totalBytes: len, ready })),
    );
  }

  /** With the guest stopped. @throws QEMU_REFUSED where a mirror did not come to its end */
  async finish(): Promise<void> {
    this.#stopListening?.();
    for (const { job } of this.#mirrors) {
      const ended = this.#qmp.event(
        `the end of ${job}`,
        (event) => isEnd(event) && event.data.device === job,
        END_TIMEOUT_MS,
      );
      const [{ name, data }] = await Promise.all([ended, this.#qmp.execute('block-job-cancel', { device: job })]);
      if (name === 'BLOCK_JOB_CANCELLED' || data.error !== undefined)
        throw new DwcpError('QEMU_REFUSED', `QEMU's mirror of a disk did not finish: ${reasonOf(data)}`, {
          side: 'source',
        });
    }
    await clearMirrors(this.#qmp);
  }

  #hear(event: QmpEvent): void {
    if (!isEnd(event) || !String(event.data.device).startsWith(JOB)) return;
    this.#failed(
      new DwcpError('SESSION_LOST', `QEMU's mirror of a disk broke: ${reasonOf(event.data)}`, { side: 'source' }),
    );
  }
}

function isEnd({ name }: QmpEvent): boolean {
  return name === 'BLOCK_JOB_COMPLETED' || name === 'BLOCK_JOB_CANCELLED';
}

function reasonOf({ error }: QmpEvent['data']): string {
  return typeof error === 'string' ? error : 'it was cancelled';
}

/** Takes away every mirror of ours, finished or not: the guest's disks are its own again. */
export async function clearMirrors(qmp: QmpClient): Promise<void> {
  for (let attempt = 0; attempt < 100; attempt += 1) {
    const jobs = (await qmp.execute('query-block-jobs')).filter(({ device }) => device.startsWith(JOB));
    if (jobs.length === 0) break;
    for (const { device } of jobs)
      await qmp.execute('block-job-cancel', { device, force: true }).catch(() => undefined);
    await wait(20);
  }
  for (const node of await qmp.execute('query-named-block-nodes')) {
    if (node['node-name']?.startsWith(NODE))
      await qmp.execute('blockdev-del', { 'node-name': node['node-name'] }).catch(() => undefined);
  }
}
