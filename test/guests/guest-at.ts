/**
 * A guest at a host, looked at over a monitor that DWCP does not use: whether it goes on, what its machine consists of, what is at work in
 * its QEMU. Who has to have what is walk.ts's.
 */
import { readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { serialLine, ticksOf } from '../../src/cli/demo/linux-guest';
import { OWN_PREFIX } from '../../src/hypervisor/qemu/others-at-work';
import { QmpClient } from '../../src/hypervisor/qemu/qmp-client';
import { hardwareOf } from '../../src/hypervisor/qemu/running-hardware';
import type { GuestHardware } from '../../src/model/guest-hardware';
import { until } from '../../src/system/wait';
import { FIRST_PAGE, wrongPass } from './boot-sectors';
import { PAGES } from './two-hosts';

const EACH_MS = 60_000;
/** What is numbered as it was made says nothing of the machine. */
const NUMBERED = /\[\d+\]/g;
const PARTS_OF_DEVICES = /^child<(memory-region|qemu:|irq|qemu-memory-region)/;
const CHILD = /^child<(.+)>$/;

export interface Machine {
  readonly hardware: GuestHardware;
  /** Every object of it by its path, with its type. */
  readonly tree: readonly string[];
}

/** What others, or we, do in its QEMU. */
export type AtWork = Readonly<Record<'exports' | 'jobs' | 'bitmaps' | 'nodes' | 'migration' | 'ours', string>>;

export class GuestAt {
  readonly #monitor: string;
  readonly #scratch: string;

  /** @param scratch a folder that its QEMU may write to, and this process sees */
  constructor(monitor: string, scratch: string) {
    this.#monitor = monitor;
    this.#scratch = scratch;
  }

  async ask<T>(question: (qmp: QmpClient) => Promise<T>): Promise<T> {
    const qmp = await QmpClient.connect(this.#monitor);
    try {
      return await question(qmp);
    } finally {
      qmp.close();
    }
  }

  async status(): Promise<string> {
    return this.ask(async (qmp) => (await qmp.execute('query-status')).status).catch(() => 'gone');
  }

  /** Waits until it has counted on. @returns its last count @throws where a page is of another pass, or it stands still */
  async countsOn(from: number): Promise<number> {
    let [last, wrong] = [0, 'it does not answer'];
    const counted = async (): Promise<boolean> => {
      const counts = await this.#counts();
      [last, wrong] = [counts[0] ?? 0, wrongPass(counts) ?? ''];
      return wrong === '' && last > from + 1;
    };
    if (!(await until(counted, { everyMs: 150, withinMs: EACH_MS })))
      throw new Error(wrong === '' ? `it does not count on: ${last} behind ${from}` : wrong);
    return last;
  }

  async #counts(): Promise<number[]> {
    const file = join(this.#scratch, 'memory');
    await this.ask(async (qmp) => {
      const { running } = await qmp.execute('query-status');
      if (running) await qmp.execute('stop');
      await qmp.execute('pmemsave', { val: FIRST_PAGE, size: PAGES * 4096, filename: file });
      if (running) await qmp.execute('cont');
    });
    const memory = readFileSync(file);
    rmSync(file);
    return Array.from({ length: PAGES }, (_, page) => memory.readUInt32LE(page * 4096));
  }

  async machine(): Promise<Machine> {
    return this.ask(async (qmp) => ({ hardware: await hardwareOf(qmp), tree: (await treeOf(qmp)).sort() }));
  }

  async atWork(): Promise<AtWork> {
    return this.ask(async (qmp) => {
      const nodes = await qmp.execute('query-named-block-nodes', { flat: true });
      const named = nodes.flatMap((node) => (node['dirty-bitmaps'] ?? []).map(({ name }) => name ?? ''));
      const exports = (await qmp.execute('query-block-exports')).map(({ id }) => id);
      const jobs = (await qmp.execute('query-jobs')).map(({ id }) => id);
      return {
        exports: exports.join(),
        jobs: jobs.join(),
        bitmaps: named.toSorted().join(),
        ours: [...exports, ...jobs, ...named].filter((name) => name.startsWith(OWN_PREFIX)).join(),
        nodes: nodes.map((node) => `${node.drv ?? ''} ${node.file ?? ''}`).join(),
        migration: `${['active', 'setup', 'cancelling'].includes((await qmp.execute('query-migrate')).status ?? '')}`,
      };
    });
  }
}

async function treeOf(qmp: QmpClient, path = '/machine'): Promise<string[]> {
  const children = (await qmp.execute('qom-list', { path })).filter(
    ({ type }) => CHILD.test(type) && !PARTS_OF_DEVICES.test(type),
  );
  const below = await Promise.all(
    children.map(async ({ name, type }) => {
      const own = `${path}/${name}`;
      return [`${own.replaceAll(NUMBERED, '')} ${CHILD.exec(type)?.[1] ?? ''}`, ...(await treeOf(qmp, own))];
    }),
  );
  return below.flat();
}

/** Of the small Linux: it goes on behind a tick, and finds its files as they should be. */
export async function ticksOn(serial: string, from: number): Promise<number> {
  await serialLine(serial, /^tick \d+/, EACH_MS * 2);
  await until(() => ticksOf(serial).last > from + 5, { everyMs: 200, withinMs: EACH_MS });
  const { last, bad } = ticksOf(serial);
  if (bad.length > 0) throw new Error(`the guest finds other bytes than it has written: ${bad[0] ?? ''}`);
  if (last <= from + 5) throw new Error(`it does not go on: tick ${last} behind ${from}`);
  return last;
}
