/**
 * The crash matrix: in every state of a guest's move something dies, stalls, is cut or is full, or an operator does what he
 * should not, and afterwards one of two hosts runs the guest, memory and disk of one moment and not older than its pause, and at
 * no moment did both run it. A run of CI takes one cell a fault; `npm run bench -- matrix` takes all (DWCP_MATRIX=full).
 */
import { appendFileSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import type { GuestState } from '../../src/model/guest-states';
import { MIB } from '../../src/model/units';
import { type Cell, nameOf, type Outcome } from '../helpers/cells';
import { cells } from '../helpers/crash-matrix';
import { inflict } from '../helpers/faults';
import { CrashDisk, type HostDisk, SmallDisk } from '../helpers/host-disks';
import { endPlace, type HostDisks, type MovingVm, type Place, type Side, startPlace } from '../helpers/moving-vm';
import { describeWhere, needsProgram, needsRoot } from '../helpers/needs';
import { buildCountingGuest, type CountingGuest, needsAssembler, needsQemu } from '../helpers/qemu';
import { Scene } from '../helpers/scene';
import { type StoppedState, StoppedVm } from '../helpers/stopped-vm';
import { within } from '../helpers/waiting';

const PAGES = 2048;
const FULL = process.env.DWCP_MATRIX === 'full';
const ONLY = process.env.DWCP_MATRIX_ONLY;
/** Cells that an earlier run has been through, one name a line. */
const DONE = new Set((process.env.DWCP_MATRIX_DONE ?? '').split('\n'));
/** Of so many who go through it at once, the how manieth this is. */
const [SHARE = 0, SHARES = 1] = (process.env.DWCP_MATRIX_SHARE ?? '0/1').split('/').map(Number);
const MAX_DOWNTIME_MS = 6_000;
const CANCEL_AFTER_MS = 10_000;

describeWhere([
  needsQemu(),
  needsAssembler(),
  needsRoot(),
  needsProgram('mount', 'mount'),
  needsProgram('mkfs.ext4', 'e2fsprogs'),
])('the crash matrix', () => {
  let guest: CountingGuest;
  let number = 0;
  let shared: Place | undefined;

  beforeAll(() => (guest = buildCountingGuest(PAGES, { pagesPerTick: 160 }, 24 * MIB, true)));
  afterAll(async () => {
    if (shared) await endPlace(shared);
  });

  const chosen = cells(FULL)
    .filter((cell) => (ONLY === undefined || nameOf(cell).includes(ONLY)) && !DONE.has(nameOf(cell)))
    .filter((_, index) => index % SHARES === SHARE);
  test.each(chosen.map((cell) => ({ ...cell, name: nameOf(cell) })))(
    '$name',
    async (cell) => {
      number += 1;
      const startedAt = Date.now();
      const place = await placeFor(cell);
      const vm = await (cell.what.startsWith('guest')
        ? Scene.at(place, `crash-${number}`, guest)
        : StoppedVm.at(place, `crash-${number}`));
      let outcome = 'not settled';
      try {
        await faultsIn(vm, cell);
        await vm.settled(cell.faults.includes('link for good') ? CANCEL_AFTER_MS : Infinity);
        outcome = await vm.outcome();
        expect(cell.allowed).toContain(outcome as Outcome);
      } catch (error) {
        outcome = `FAILED (${outcome}): ${String(error).slice(0, 300)}`;
        throw error;
      } finally {
        vm.note(`outcome ${outcome}`);
        write(cell, outcome, Date.now() - startedAt, vm);
        if (place === shared && !outcome.startsWith('FAILED')) await vm.leave();
        else {
          if (place === shared) shared = undefined;
          await vm.end();
        }
      }
    },
    240_000,
  );

  /** Where its faults want a disk of its own, a lab of its own; else one that goes on for as long as nothing has failed there. */
  async function placeFor(cell: Cell): Promise<Place> {
    const disks: HostDisks = { source: diskFor('source', cell), destination: diskFor('destination', cell) };
    if (disks.source || disks.destination) return startPlace(disks);
    return (shared ??= await startPlace({}, true));
  }

  /** It moves, up to its cell's state; there the faults come. */
  async function faultsIn(vm: Scene | StoppedVm, { what, state, faults }: Cell): Promise<void> {
    const slow = ['disks', 'memory', 'claimed', 'transfer'].includes(state);
    const id = await vm.migrate({
      maxDowntimeMs: MAX_DOWNTIME_MS,
      bandwidthLimit: slow ? 6e6 : 0,
      enableDwcp: !what.endsWith('standard transfer'),
    });
    await within(
      60_000,
      `state ${state}`,
      vm instanceof Scene ? reached(vm, state as GuestState, id) : vm.reached(state as StoppedState),
    );
    await Promise.all(faults.map((fault) => inflict(fault, vm)));
  }
});

function reached({ watch, lab }: Scene, state: GuestState, migrationId: string): Promise<void> {
  if (state === 'converged')
    void lab
      .until(migrationId, 'the switchover', ({ progress }) => progress?.phase === 'switchover', 60_000)
      .then(
        () => watch.say('converged'),
        () => undefined,
      );
  return watch.reached(state);
}

/** What a cell's faults do to a host's disk says what disk that is. */
function diskFor(side: Side, { faults }: Cell): HostDisk | undefined {
  if (faults.includes(`${side} host crash`)) return new CrashDisk();
  return faults.includes(side === 'source' ? 'source disk full' : 'full disk') ? new SmallDisk('400m') : undefined;
}

/** For the bench, which may be ended and goes on where it was: a line a cell, as soon as it is known. */
function write(cell: Cell, outcome: string, ms: number, vm: MovingVm): void {
  const text = `=== ${nameOf(cell)}\n${outcome.startsWith('FAILED') ? vm.report() : `${vm.log.join('\n')}\n`}`;
  if (outcome.startsWith('FAILED')) process.stderr.write(text);
  const out = process.env.DWCP_MATRIX_OUT;
  if (out === undefined) return;
  mkdirSync(out, { recursive: true });
  appendFileSync(join(out, 'crash-matrix.jsonl'), `${JSON.stringify({ cell: nameOf(cell), outcome, ms })}\n`);
  appendFileSync(join(out, 'crash-matrix.log'), text);
}
