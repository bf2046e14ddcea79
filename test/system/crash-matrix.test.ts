/**
 * The crash matrix: in every state of a guest's move something dies, stalls, is cut or is full, or an operator does what he
 * should not, and afterwards one of two hosts runs the guest, memory and disk of one moment and not older than its pause, and at
 * no moment did both run it. A run of CI takes one cell a fault; `npm run bench -- matrix` takes all (DWCP_MATRIX=full).
 */
import { appendFileSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { MIB } from '../../src/model/units';
import { type Cell, cells, nameOf, type Outcome } from '../helpers/crash-matrix';
import { INFLICT } from '../helpers/faults';
import { CrashDisk, type HostDisk, SmallDisk } from '../helpers/host-disks';
import { describeWhere, needsProgram, needsRoot } from '../helpers/needs';
import { buildCountingGuest, type CountingGuest, needsAssembler, needsQemu } from '../helpers/qemu';
import { Scene } from '../helpers/scene';
import type { Side } from '../helpers/guest-watch';

const PAGES = 2048;
const FULL = process.env.DWCP_MATRIX === 'full';
const ONLY = process.env.DWCP_MATRIX_ONLY;
/** Cells that an earlier run has been through, one name a line. */
const DONE = new Set((process.env.DWCP_MATRIX_DONE ?? '').split('\n'));
const MAX_DOWNTIME_MS = 6_000;
const CANCEL_AFTER_MS = 10_000;

describeWhere([needsQemu(), needsAssembler(), needsRoot(), needsProgram('mount', 'mount'), needsProgram('mkfs.ext4', 'e2fsprogs')])('the crash matrix', () => {
  let guest: CountingGuest;
  let number = 0;

  beforeAll(() => (guest = buildCountingGuest(PAGES, 400, 24 * MIB, true)));

  const chosen = cells(FULL).filter((cell) => (ONLY === undefined || nameOf(cell).includes(ONLY)) && !DONE.has(nameOf(cell)));
  test.each(chosen.map((cell) => ({ ...cell, name: nameOf(cell) })))('$name', async (cell) => {
    number += 1;
    const startedAt = Date.now();
    const scene = await Scene.start({ guest, vmId: `crash-${number}`, disks: { source: diskFor('source', cell), destination: diskFor('destination', cell) } });
    let outcome = 'not settled';
    try {
      outcome = await runCell(scene, cell);
      expect(cell.allowed).toContain(outcome as Outcome);
    } catch (error) {
      outcome = `FAILED (${outcome}): ${String(error).slice(0, 300)}`;
      throw error;
    } finally {
      scene.watch.note(`outcome ${outcome}`);
      write(cell, outcome, Date.now() - startedAt, scene.watch.log);
      await scene.end();
    }
  }, 240_000);

  async function runCell(scene: Scene, { state, faults }: Cell): Promise<Outcome> {
    const { watch, lab } = scene;
    const slow = state === 'disks' || state === 'memory';
    const id = await scene.migrate({ maxDowntimeMs: MAX_DOWNTIME_MS, bandwidthLimit: slow ? 6e6 : 0 });
    if (state === 'converged') void lab.until(id, 'the switchover', ({ progress }) => progress?.phase === 'switchover', 60_000).then(() => watch.say('converged'), () => undefined);
    await Promise.race([watch.reached(state), new Promise((_, reject) => setTimeout(() => reject(new Error(`state ${state} was not reached`)), 60_000).unref())]);
    for (const fault of faults) watch.note(`fault: ${fault}`);
    await Promise.all(faults.map((fault) => INFLICT[fault](scene)));
    await scene.settled(faults.includes('link for good') ? CANCEL_AFTER_MS : Infinity);
    return scene.outcome();
  }
});

/** What a cell's faults do to a host's disk says what disk that is. */
function diskFor(side: Side, { faults }: Cell): HostDisk | undefined {
  if (faults.includes(`${side} host crash`)) return new CrashDisk();
  return faults.includes(side === 'source' ? 'source disk full' : 'full disk') ? new SmallDisk('400m') : undefined;
}

/** For the bench, which may be ended and goes on where it was: a line a cell, as soon as it is known. */
function write(cell: Cell, outcome: string, ms: number, log: readonly string[]): void {
  if (outcome.startsWith('FAILED')) process.stderr.write(`--- ${nameOf(cell)}\n${log.join('\n')}\n`);
  const out = process.env.DWCP_MATRIX_OUT;
  if (out === undefined) return;
  mkdirSync(out, { recursive: true });
  appendFileSync(join(out, 'crash-matrix.jsonl'), `${JSON.stringify({ cell: nameOf(cell), outcome, ms })}\n`);
  appendFileSync(join(out, 'crash-matrix.log'), `--- ${nameOf(cell)}\n${log.join('\n')}\n`);
}
