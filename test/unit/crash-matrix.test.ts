/** What the crash matrix expects is what the tables of the hand-over allow: no cell is green with an ending that they exclude. */
import type { GuestState } from '../../src/model/guest-states';
import { type Cell, nameOf } from '../helpers/cells';
import { cells } from '../helpers/crash-matrix';
import { endingsFrom, type Standing } from '../helpers/endings';
import type { StoppedState } from '../helpers/stopped-vm';

const BEFORE: Standing = { source: 'claimed', destination: 'promised', hasRun: false };
const STANDING: Readonly<Record<GuestState | StoppedState, Standing>> = {
  disks: BEFORE,
  memory: BEFORE,
  converged: BEFORE,
  paused: BEFORE,
  completed: BEFORE,
  loaded: BEFORE,
  claimed: BEFORE,
  transfer: BEFORE,
  handedOver: { source: 'handed_over', destination: 'promised', hasRun: false },
  mine: { source: 'handed_over', destination: 'mine', hasRun: false },
  started: { source: 'handed_over', destination: 'mine', hasRun: true },
  installed: { source: 'handed_over', destination: 'installed', hasRun: true },
};

const standingOf = ({ what, state }: Cell): Standing => {
  const at = STANDING[state as GuestState | StoppedState];
  return what.startsWith('stopped') ? { ...at, hasRun: true } : at;
};

const all = cells(true);

test.each(all.map((cell) => ({ name: nameOf(cell), cell })))('$name', ({ cell }) => {
  const endings = endingsFrom(standingOf(cell));
  const killsGuest = cell.faults.some((fault) => /QEMU$|host crash$/.test(fault));
  const stops = cell.faults.includes('operator stop');
  for (const outcome of cell.allowed) {
    if (outcome === 'lost') expect(killsGuest).toBe(true);
    else if (outcome === 'held') expect(stops).toBe(true);
    else expect([...endings]).toContain(outcome);
  }
  expect(cell.allowed.length).toBeGreaterThan(0);
});

test('the tables let one side have the VM in the end, from wherever a migration stands', () => {
  expect([...endingsFrom(BEFORE)].sort()).toEqual(['moved', 'stayed']);
  expect([...endingsFrom(STANDING.started)]).toEqual(['moved']);
  expect([...endingsFrom(STANDING.installed)]).toEqual(['moved']);
  expect([...endingsFrom(STANDING.mine)].sort()).toEqual(['moved', 'stayed']);
});
