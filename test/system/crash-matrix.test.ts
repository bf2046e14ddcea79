/**
 * The crash matrix: in every state of a guest's move something dies, is cut or is full, and afterwards one of two hosts runs
 * the guest, none of its pages is older than its pause, and at no moment did both run it. A run of CI takes the states that
 * matter most; `npm run bench -- matrix` takes all (DWCP_MATRIX=full) and prints the table.
 */
import { execFileSync } from 'node:child_process';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { findListener } from '../../src/hypervisor/qemu/process-table';
import { MIB } from '../../src/model/units';
import { cells, type Cell, type Fault, type Outcome } from '../helpers/crash-matrix';
import { temporaryFolder } from '../helpers/data';
import { countsOn, killGuests, monitorPath, startGuestOn } from '../helpers/guest-lab';
import { GuestWatch } from '../helpers/guest-watch';
import { Lab } from '../helpers/lab';
import { describeWhere, needsProgram, needsRoot } from '../helpers/needs';
import { Relay } from '../helpers/proxy';
import { buildCountingGuest, type CountingGuest, expectOnePass, needsAssembler, needsQemu } from '../helpers/qemu';

const PAGES = 2048;
const FULL = process.env.DWCP_MATRIX === 'full';
const ONLY = process.env.DWCP_MATRIX_ONLY;
const SETTLED_MS = 75_000;

describeWhere([needsQemu(), needsAssembler(), needsRoot(), needsProgram('mount', 'mount')])('the crash matrix', () => {
  const results: { cell: string; outcome: string }[] = [];
  const log: string[] = [];
  const mounted = join(temporaryFolder(), 'b');
  let guest: CountingGuest;
  let number = 0;

  beforeAll(() => {
    guest = buildCountingGuest(PAGES, 400, 24 * MIB);
    mkdirSync(mounted, { recursive: true });
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=400m', 'tmpfs', mounted]);
  });

  afterAll(() => {
    execFileSync('umount', ['-l', mounted]);
    const out = process.env.DWCP_MATRIX_OUT;
    if (out === undefined) return;
    mkdirSync(out, { recursive: true });
    writeFileSync(join(out, 'crash-matrix.json'), JSON.stringify(results, null, 1));
    writeFileSync(join(out, 'crash-matrix.log'), `${log.join('\n')}\n`);
  });

  const chosen = cells(FULL).filter(({ state, faults }) => ONLY === undefined || `${state}: ${faults.join(' + ')}`.includes(ONLY));
  test.each(chosen.map((cell) => ({ ...cell, name: `${cell.state}: ${cell.faults.join(' + ')}` })))('$name', async (cell) => {
    number += 1;
    const lab = await Lab.start({ own: true, bDataDir: join(mounted, String(number)), bArgs: ['--advertise-address', '127.0.0.2'] });
    const relay = new Relay({ host: '127.0.0.2', port: lab.b.port }, { host: '127.0.0.1', port: lab.b.port });
    await relay.listen();
    const vmId = `crash-${number}`;
    const watch = new GuestWatch(vmId, lab.a, lab.b);
    let outcome = 'not settled';
    try {
      outcome = await runCell(lab, relay, watch, vmId, cell);
      expect(cell.allowed).toContain(outcome as Outcome);
    } catch (error) {
      outcome = `FAILED (${outcome}): ${String(error).slice(0, 200)}`;
      throw error;
    } finally {
      watch.stop();
      watch.note(`outcome ${outcome}`);
      results.push({ cell: `${cell.state}: ${cell.faults.join(' + ')}`, outcome });
      log.push(`--- ${cell.state}: ${cell.faults.join(' + ')}`, ...watch.log);
      if (outcome.startsWith('FAILED')) process.stderr.write(`${watch.log.join('\n')}\n`);
      killGuests();
      await lab.stop();
      rmSync(lab.b.dataDir, { recursive: true, force: true });
    }
  }, 200_000);

  async function runCell(lab: Lab, relay: Relay, watch: GuestWatch, vmId: string, { state, faults }: Cell): Promise<Outcome> {
    await startGuestOn(lab, vmId, guest, false);
    const before = await watch.countAtSource();
    expect(before).toBeGreaterThan(0);
    const slow = state === 'disks' || state === 'memory';
    watch.migrationId = `m-${vmId}`;
    const id = await lab.migrate(vmId, { migrationId: watch.migrationId, maxDowntimeMs: 6_000, bandwidthLimit: slow ? 6e6 : 0 });
    if (state === 'converged') void lab.until(id, 'the switchover', ({ progress }) => progress?.phase === 'switchover', 60_000).then(() => watch.say('converged'), () => undefined);
    await Promise.race([watch.reached(state), new Promise((_, reject) => setTimeout(() => reject(new Error(`state ${state} was not reached`)), 60_000).unref())]);
    for (const fault of faults) watch.note(`fault: ${fault}`);
    await Promise.all(faults.map((fault) => inflict(fault, lab, relay, vmId, id)));
    await settled(lab, id, faults.includes('link for good'));
    await new Promise((resolve) => setTimeout(resolve, 300));
    expect(watch.overlaps).toEqual([]);
    const running = watch.running;
    expect(running.length).toBeLessThanOrEqual(1);
    if (running.length === 0) return 'lost';
    const side = running[0] === 'source' ? lab.a : lab.b;
    watch.stop();
    await new Promise((resolve) => setTimeout(resolve, 100));
    const counts = await countsOn(side, vmId, PAGES);
    expectOnePass(counts);
    expect(counts[0]).toBeGreaterThanOrEqual(before);
    return running[0] === 'source' ? 'stayed' : 'moved';
  }
});

async function inflict(fault: Fault, lab: Lab, relay: Relay, vmId: string, migrationId: string): Promise<void> {
  switch (fault) {
    case 'source agent': case 'destination agent': case 'control worker': case 'Temporal server':
      return lab.killAndRestart(fault);
    case 'source QEMU': { killQemu(monitorPath(lab.a, vmId)); return; }
    case 'destination QEMU': { killQemu(monitorPath(lab.b, vmId)); return; }
    case 'link 1 s': return cutFor(relay, 1_000);
    case 'link 30 s': return cutFor(relay, 30_000);
    case 'link for good': return relay.close();
    case 'cancel': return lab.orchestrator.cancelMigration(migrationId).catch(() => undefined);
    case 'full disk': return fill(lab.b.dataDir);
  }
}

function killQemu(path: string): void {
  const found = findListener(path);
  if (found) process.kill(found.pid, 'SIGKILL');
}

async function cutFor(relay: Relay, ms: number): Promise<void> {
  await relay.close();
  await new Promise((resolve) => setTimeout(resolve, ms));
  await relay.listen();
}

async function fill(folder: string): Promise<void> {
  const file = join(folder, 'filler');
  try {
    execFileSync('dd', ['if=/dev/zero', `of=${file}`, 'bs=1M'], { stdio: 'ignore' });
  } catch {
    // Full: that is what was wanted.
  }
  await new Promise((resolve) => setTimeout(resolve, 1_500));
  rmSync(file, { force: true });
}

/** Waits for the migration's end; one that parked is tried again, one whose link is gone is cancelled after a while. */
async function settled(lab: Lab, migrationId: string, linkGone: boolean): Promise<void> {
  const startedAt = Date.now();
  for (let cancelled = false; Date.now() - startedAt < SETTLED_MS; await new Promise((resolve) => setTimeout(resolve, 100))) {
    try {
      const { state, progress } = await lab.orchestrator.getMigrationStatus(migrationId);
      if (state !== 'running') return;
      if (progress?.parked) await lab.orchestrator.retryMigration(migrationId);
      if (linkGone && !cancelled && Date.now() - startedAt > 10_000) {
        cancelled = true;
        await lab.orchestrator.cancelMigration(migrationId);
      }
    } catch {
      continue; // The server is away for a moment.
    }
  }
  throw new Error('the migration did not come to its end');
}
